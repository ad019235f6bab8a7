//! What is kept for the next prompt, and what is alive at once.

use super::*;
use crate::conditioner::CacheOptions;
use crate::conditioner::meddling::in_time;
use crate::weights::{Family, SyntheticSize};

fn load() -> Conditioner {
    let builder = Conditioner::builder().cache(CacheOptions::OFF);
    let text = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 5);
    text.unwrap()
}

/// On a thread of rayon's that makes one, another task of the caller's may want the same, or another one.
#[test]
fn nobody_waits_for_another_one_who_makes_the_same() {
    in_time(|| {
        let text = load();
        let (kept, made) = (Last::default(), std::cell::Cell::new(0));
        let make = || {
            made.set(made.get() + 1);
            Ok(Worn {
                seat: Arc::clone(&text.inner.seat),
                reports: Vec::new(),
            })
        };
        let within = || {
            kept.get_or_make("film", make)?;
            kept.get_or_make("ink", make)?;
            make()
        };
        kept.get_or_make("film", within).unwrap();
        assert_eq!(made.get(), 3);
        kept.get_or_make("film", make).unwrap();
        assert_eq!(made.get(), 3);
        kept.get_or_make("ink", make).unwrap();
        assert_eq!(made.get(), 4);
    });
}

//! What is kept for the next prompt, and what is alive at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;

use super::*;
use crate::conditioner::CacheOptions;
use crate::conditioner::meddling::{Meddling, in_time, lora};
use crate::kernels::Kernels;
use crate::profile::Profile;
use crate::weights::{Family, LoraFolder, SyntheticSize};

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

/// Beside the loaded ones, which are always there.
#[test]
fn one_set_of_loras_is_there_at_a_time() {
    let (text, (folder, _lora)) = (load(), lora());
    let (home, most) = (Arc::clone(&text.inner.home), Arc::new(AtomicUsize::new(0)));
    let (seats, seen) = (Arc::clone(&home), Arc::clone(&most));
    let count = move |_| {
        seen.fetch_max(seats.n_living(), Ordering::Relaxed);
    };
    let kernels: Arc<dyn Kernels> = Arc::new(Meddling::at_layers(count));
    home.carry(&Device::Cpu, &kernels).unwrap();
    let loras = LoraFolder::open(folder.path()).unwrap();
    let strengths = ["0.1", "0.2", "0.3", "0.1", "0.2"];
    let texts = strengths.map(|strength| format!("a barn <lora:film:{strength}>"));
    let each = texts.each_ref().map(|text| Request::new(text));
    let each = each.map(|request| request.profile(Profile::A1111).loras(&loras));
    let batch = text.encode_batch(&each).unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 2);
    let context = |one: &Conditioning| one.context().flatten_all().unwrap().to_vec1::<f32>();
    for (request, together) in each.into_iter().zip(&batch) {
        let alone = text.encode(request).unwrap();
        assert_eq!(context(&alone).unwrap(), context(together).unwrap());
    }
}

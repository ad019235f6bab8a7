//! Moves, and what is made or moved in the middle of one.

use std::collections::BTreeMap;

use candle_core::{Tensor, TensorId};

use super::*;
use crate::conditioner::CacheOptions;
use crate::conditioner::Request;
use crate::conditioner::meddling::{Meddling, in_time, lora};
use crate::conditioning::Conditioning;
use crate::encoder::{ClipText, Gelu};
use crate::weights::{Family, SyntheticSize};

/// The address of a matrix: equal where it is shared.
fn embedding(clip: &ClipText) -> TensorId {
    let mut id = None;
    let _same = clip.with_changes(&mut |name, tensor| {
        if name == "token_embedding" {
            id = Some(tensor.id());
        }
        Ok(None)
    });
    id.unwrap()
}

/// All handles of a load get new encoders that still share their tensors; the old ones are free
/// when the last call that uses them has ended; the cache holds nothing of the old device.
#[test]
fn a_move_takes_all_handles_along() {
    let builder = Conditioner::builder();
    let text = builder.random_weights(Family::Sdxl, SyntheticSize::Tiny, 5);
    let text = text.unwrap();
    let before = text.encode("a barn").unwrap();
    let tanh = || text.encode(Request::new("a barn").gelu(Gelu::Tanh));
    let before_tanh = tanh().unwrap();
    let other = beside(&text);
    let running = text.placed();
    let [old, old_other] = [&text, &other].map(|one| Arc::downgrade(&one.placed()));
    carried(&text);
    assert_eq!(text.cache_stats().entries, 0);
    assert!(old_other.upgrade().is_none() && old.upgrade().is_some());
    drop(running);
    assert!(old.upgrade().is_none());
    for (one, other) in text.encoders().zip(other.encoders()) {
        assert_eq!(embedding(&one), embedding(&other));
    }
    for part in &text.placed().parts {
        let other = part.with(part.activation(Gelu::Tanh));
        assert_eq!(embedding(&part.clip), embedding(other));
    }
    assert_eq!(context(&before_tanh), context(&tanh().unwrap()));
    let after = text.encode("a barn").unwrap();
    assert_eq!(context(&before), context(&after));
}

/// Another handle of the same load, in a seat of its own.
fn beside(text: &Conditioner) -> Conditioner {
    let placed = text.placed();
    let (home, device) = (&text.inner.home, placed.device.clone());
    let seat = home.seat(placed.parts.iter().map(Part::clone).collect(), device);
    text.beside(Arc::new(text.inner.with(Vec::new(), seat, Vec::new())))
}

fn context(one: &Conditioning) -> Vec<f32> {
    let context = one.context().flatten_all().unwrap();
    context.to_vec1().unwrap()
}

/// A move to where they are.
fn carried(text: &Conditioner) {
    let home = &text.inner.home;
    let kernels = home.choice.kernels(&Device::Cpu).unwrap();
    home.carry(&Device::Cpu, &kernels).unwrap();
}

/// Encoders whose tensors lie in memory that holds more, so that the first move copies all of them.
fn load(family: Family) -> Conditioner {
    let builder = Conditioner::builder().cache(CacheOptions::OFF);
    let text = builder.random_weights(family, SyntheticSize::Tiny, 5);
    let text = text.unwrap();
    let within = |tensor: &Tensor| {
        let twice = Tensor::cat(&[tensor, tensor], 0)?;
        Ok(Some(twice.narrow(0, 0, tensor.dim(0)?)?))
    };
    let loaded = text.placed();
    let parts = loaded.parts.iter().map(|part| {
        let clip = part.clip.with_changes(&mut |_, tensor| within(tensor));
        Part::new(part.id, part.identity.clone(), clip.unwrap())
    });
    let (parts, device) = (parts.collect(), Device::Cpu);
    let placed = Arc::new(Placed { parts, device });
    text.inner.seat.place(placed);
    text
}

/// What is not stacked, by name, as it is kept.
fn kept(text: &Conditioner) -> BTreeMap<String, TensorId> {
    let mut all = BTreeMap::new();
    for clip in text.encoders() {
        let _same = clip.with_changes(&mut |name, tensor| {
            let stacked = [".q.", ".k.", ".v."];
            if !stacked.iter().any(|part| name.contains(part)) {
                let encoder = clip.config().encoder;
                all.insert(format!("{encoder}.{name}"), tensor.id());
            }
            Ok(None)
        });
    }
    all
}

/// How many of these tensors the two do not share.
fn unshared(one: &Conditioner, other: &Conditioner) -> usize {
    let (one, other) = (kept(one), kept(other));
    assert_eq!(one.len(), other.len());
    let both = one.iter().zip(&other);
    both.filter(|(one, other)| one != other).count()
}

/// On a thread of rayon's, any of this may happen between two parts of a product.
#[test]
fn loras_follow_encoders_that_move_while_they_are_put_on() {
    in_time(|| {
        let (text, (_folder, lora)) = (load(Family::Sd1), lora());
        let before = kept(&text);
        let plain = text.with_loras(&[lora.at(0.5)]).unwrap();
        let asked = std::cell::Cell::new(0);
        let meddle = || {
            asked.set(asked.get() + 1);
            if asked.get() == 7 {
                text.offload().unwrap();
                text.with_loras(&[lora.at(0.25)]).unwrap();
                carried(&text);
            }
            false
        };
        let worn = text.with_loras_unless(&[lora.at(0.5)], &meddle).unwrap();
        assert!(asked.get() > 7);
        assert_ne!(before, kept(&text), "nothing was moved");
        assert_eq!([unshared(&text, &worn), unshared(&text, &plain)], [1, 1]);
        let [worn, plain] = [worn, plain].map(|one| context(&one.encode("a barn").unwrap()));
        assert_eq!(worn, plain);
    });
}

/// What is made, and what is moved, in the middle of a move.
#[test]
fn a_move_takes_along_what_was_made_meanwhile() {
    in_time(|| {
        let (text, (_folder, lora)) = (load(Family::Sdxl), lora());
        let want = text.with_loras(&[lora.at(0.5)]).unwrap();
        let made: Arc<Mutex<Vec<Conditioner>>> = Arc::default();
        let (meddled, to) = (text.clone(), Arc::clone(&made));
        // The first is before the move, the second is in front of the first encoder.
        let kernels = Meddling::at_moves(move |time| {
            if (2..=4).contains(&time) {
                let worn = meddled.with_loras(&[lora.at(0.5)]);
                to.lock().unwrap().push(worn.unwrap());
                meddled.offload().unwrap();
            }
            if time == 3 {
                carried(&meddled);
                let worn = meddled.with_loras(&[lora.at(0.5)]);
                to.lock().unwrap().push(worn.unwrap());
            }
        });
        let kernels: Arc<dyn Kernels> = Arc::new(kernels);
        text.inner.home.carry(&Device::Cpu, &kernels).unwrap();
        let made = std::mem::take(&mut *made.lock().unwrap());
        assert!(made.len() >= 4);
        let want_context = context(&want.encode("a barn").unwrap());
        for worn in made.iter().chain([&want]) {
            assert_eq!(worn.kernels(), kernels.name());
            assert_eq!(unshared(&text, worn), 1);
            assert_eq!(context(&worn.encode("a barn").unwrap()), want_context);
        }
    });
}

/// Whoever comes first.
#[test]
fn moves_of_many_threads_end_in_one_place() {
    in_time(|| {
        let (text, (_folder, lora)) = (load(Family::Sd1), lora());
        let worn = std::thread::scope(|scope| {
            let mover = || (0..20).for_each(|_| carried(&text));
            scope.spawn(mover);
            scope.spawn(mover);
            let each = (0..20).map(|_| text.with_loras(&[lora.at(0.5)]).unwrap());
            each.collect::<Vec<_>>()
        });
        for worn in &worn {
            assert_eq!(unshared(&text, worn), 1);
        }
    });
}

//! Which windows are run, and how often.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::DType;

use super::*;
use crate::conditioner::cache::{CacheOptions, DiskCache};
use crate::encoder::{ClipConfig, ClipText, Gelu, Kept};
use crate::kernels::{Activation, Kernels, Reference};
use crate::tokens::END_OF_TEXT;
use crate::weights::{EncoderId, Synthetic, SyntheticSize};

/// Counts the windows that go through attention, layer by layer.
#[derive(Debug)]
struct Counting {
    name: &'static str,
    plain: Reference,
    windows: AtomicUsize,
    /// Each call's non-linearity, and how many windows it was for.
    activated: Mutex<Vec<(Activation, usize)>>,
}

impl Kernels for Counting {
    fn name(&self) -> &'static str {
        self.name
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.plain.linear(x, weight, bias)
    }

    fn layer_norm(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.plain.layer_norm(x, weight, bias)
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let windows = x.dim(0)? / CONTEXT;
        self.activated.lock().unwrap().push((activation, windows));
        self.plain.activate(x, activation)
    }

    fn causal_attention(
        &self,
        qkv: &Tensor,
        heads: usize,
        hidden_keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.windows.fetch_add(qkv.dim(0)?, Ordering::Relaxed);
        self.plain.causal_attention(qkv, heads, hidden_keys)
    }
}

/// An encoder with counting kernels, and a cache in a folder.
fn part(name: &'static str, cache: &Cache) -> (Part, Arc<Counting>) {
    let counting = Arc::new(Counting {
        name,
        plain: Reference::new(&Device::Cpu).unwrap(),
        windows: AtomicUsize::new(0),
        activated: Mutex::default(),
    });
    let source = Synthetic::new(EncoderId::OpenClipG, SyntheticSize::Tiny, 5);
    let config = ClipConfig::detect(EncoderId::OpenClipG, &source).unwrap();
    let (kept, kernels) = (Kept::from(DType::F32), Arc::clone(&counting));
    let clip = ClipText::load(
        &source,
        &config,
        kept,
        kernels,
        &Device::Cpu,
        &mut |_, _| (),
    );
    let identity = cache.identities(&[], 1).remove(0);
    let part = Part::new(EncoderId::OpenClipG, identity, clip.unwrap());
    (part, counting)
}

/// The windows in this GELU.
fn wanted<'a>(part: &Part, chunks: &'a [Chunk], gelu: Gelu) -> Vec<Wanted<'a>> {
    let one = |chunk| Wanted {
        window: Window::from(chunk),
        readout: Readout {
            layer: 1,
            final_norm: false,
            pooled: Pooled::Skip,
            pooled_layer: 1,
        },
        activation: part.activation(gelu),
    };
    chunks.iter().map(one).collect()
}

fn states(cache: &Cache, part: &Part, wanted: &[Wanted<'_>]) -> Vec<States> {
    let device = &Device::Cpu;
    let cached = Cached {
        part,
        cache,
        device,
        stop: &Stop::default(),
    };
    cached.states(wanted).unwrap()
}

/// The number of windows and layers that were run for `chunks`.
fn run(cache: &Cache, (part, counting): &(Part, Arc<Counting>), chunks: &[Chunk]) -> usize {
    let before = counting.windows.load(Ordering::Relaxed);
    let states = states(cache, part, &wanted(part, chunks, Gelu::Own));
    assert_eq!(states.len(), chunks.len());
    counting.windows.load(Ordering::Relaxed) - before
}

#[test]
fn known_windows_do_not_run_the_encoder_and_other_kernels_know_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let options = CacheOptions {
        disk: Some(DiskCache {
            folder: folder.path().to_owned(),
            max_bytes: 1 << 30,
        }),
        ..CacheOptions::default()
    };
    let windows = [END_OF_TEXT, 0].map(Chunk::empty);
    let cache = Cache::new(&options).unwrap();
    let one = part("one", &cache);
    assert_eq!(run(&cache, &one, &windows[..1]), 1);
    assert_eq!(run(&cache, &one, &windows[..1]), 0);
    assert_eq!(run(&cache, &one, &windows), 1);
    assert_eq!(run(&cache, &one, &windows), 0);
    // The same encoder in the same cache, with the identity of the first.
    let mut other = part("other", &cache);
    other.0.identity = one.0.identity;
    assert_eq!(run(&cache, &other, &windows), 2);
    let later = Cache::new(&options).unwrap();
    assert_eq!(run(&later, &part("one", &later), &windows), 0);
    assert_eq!(run(&later, &part("third", &later), &windows), 2);
}

/// Equal windows of two GELUs in one call: a forward for each, and nothing of one in the other's place.
#[test]
fn each_gelu_has_a_forward_and_entries_of_its_own() {
    let chunks = [END_OF_TEXT, 0].map(Chunk::empty);
    let (erf, tanh) = (Activation::GeluErf, Activation::GeluTanh);
    let alone = |gelu| {
        let cache = Cache::new(&CacheOptions::OFF).unwrap();
        let (part, _) = part("alone", &cache);
        shown(&states(&cache, &part, &wanted(&part, &chunks, gelu)))
    };
    let (own, other) = (alone(Gelu::Own), alone(Gelu::Tanh));
    assert!(own.iter().zip(&other).all(|(own, other)| own != other));

    let cache = Cache::new(&CacheOptions::default()).unwrap();
    let (part, counting) = part("one", &cache);
    let activated = || std::mem::take(&mut *counting.activated.lock().unwrap());
    // Two windows, between each other.
    let mut both = wanted(&part, &chunks, Gelu::Own);
    both.extend(wanted(&part, &chunks, Gelu::Tanh));
    both.swap(1, 2);
    let mixed = [&own[0], &other[0], &own[1], &other[1]];
    for counts in [vec![(erf, 2), (tanh, 2)], vec![]] {
        let states = shown(&states(&cache, &part, &both));
        assert!(states.iter().zip(mixed).all(|(one, want)| one == want));
        assert_eq!(activated(), counts);
    }
    // What one of them knows, the other does not.
    cache.clear();
    for (gelu, counts) in [(Gelu::Tanh, [(tanh, 1)]), (Gelu::Own, [(erf, 1)])] {
        states(&cache, &part, &wanted(&part, &chunks[..1], gelu));
        assert_eq!(activated(), counts);
    }
}

fn shown(states: &[States]) -> Vec<Vec<f32>> {
    let values = |one: &States| one.hidden.flatten_all().unwrap().to_vec1().unwrap();
    states.iter().map(values).collect()
}

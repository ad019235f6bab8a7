//! What a builder refuses, and what it tells while it loads.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sd_conditioner::candle_core::DType;
use sd_conditioner::conditioner::{Embeddings, PlannedPair, PlannedPrompt};
use sd_conditioner::hub::Hub;
use sd_conditioner::weights::{
    Checkpoint, EncoderId, Lora, LoraFolder, Synthetic, SyntheticSize, TensorSource,
};
use sd_conditioner::{
    Builder, Conditioner, Conditioning, ConditioningList, Dialect, Error, ErrorKind, Family,
    Guidance, Profile, Prompt, Request, Timeline,
};

use crate::support::close::bits;

fn random(builder: Builder, family: Family) -> sd_conditioner::Result<Conditioner> {
    builder.random_weights(family, SyntheticSize::Tiny, 73)
}

/// What programs with several threads hand around: losing it would break them without a word.
#[test]
fn handles_and_results_may_be_shared_between_threads() {
    fn shared<T: Send + Sync + Debug + 'static>() {}
    fn cheap<T: Clone + Send + Sync + Debug + 'static>() {}
    cheap::<Conditioner>();
    cheap::<Builder>();
    cheap::<Embeddings>();
    cheap::<Hub>();
    cheap::<Lora>();
    cheap::<Request<'static>>();
    cheap::<PlannedPair>();
    cheap::<PlannedPrompt>();
    cheap::<Conditioning>();
    cheap::<Guidance>();
    cheap::<ConditioningList>();
    cheap::<Timeline>();
    shared::<Checkpoint>();
    shared::<LoraFolder>();
    shared::<Error>();
}

/// Integers gave zeros.
#[test]
fn types_that_lose_everything_are_refused() {
    let refused = |builder: Builder, dtype: DType| {
        let error = random(builder, Family::Sd1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{dtype:?}");
        assert!(error.message().contains(dtype.as_str()), "{error}");
        assert!(error.hint_text().unwrap().contains("f32, f16, bf16"));
    };
    for dtype in [DType::U8, DType::U32, DType::I64] {
        refused(Conditioner::builder().dtype(dtype), dtype);
        refused(Conditioner::builder().output_dtype(dtype), dtype);
    }
    refused(Conditioner::builder().dtype(DType::F64), DType::F64);
    let made = random(Conditioner::builder(), Family::Sd1).unwrap();
    let made = made.encode("a cat").unwrap();
    assert!(made.to_dtype(DType::I64).is_err());
}

#[test]
fn f64_holds_what_was_computed() {
    let [wide, plain] = [DType::F64, DType::F32].map(|dtype| {
        let builder = Conditioner::builder().output_dtype(dtype);
        let text = random(builder, Family::Sdxl).unwrap();
        text.encode_pair("a cat", "fog").unwrap().stacked().unwrap()
    });
    assert_eq!(wide.context().dtype(), DType::F64);
    assert_eq!(wide.vector().unwrap().unwrap().dtype(), DType::F64);
    let narrowed = wide.to_dtype(DType::F32).unwrap();
    assert_eq!(bits(narrowed.context()), bits(plain.context()));
}

/// It counted from zero, told of layers before they were read, and never came to an end.
#[test]
fn progress_counts_layers_up_to_all_of_them() {
    let mut told: Vec<(EncoderId, usize, usize)> = Vec::new();
    let text = Conditioner::builder().random_weights_with_progress(
        Family::Sdxl,
        SyntheticSize::Tiny,
        73,
        &mut |encoder, done, total| told.push((encoder, done, total)),
    );
    for clip in text.unwrap().encoders() {
        let (id, layers) = (clip.config().encoder, clip.config().layers);
        let of_one = told.iter().filter(|(encoder, ..)| *encoder == id);
        let done: Vec<usize> = of_one.clone().map(|(_, done, _)| *done).collect();
        assert!(of_one.clone().all(|(.., total)| *total == layers));
        assert!(done.is_sorted_by(|a, b| a < b), "{done:?}");
        assert!(done[0] > 0 && done.last() == Some(&layers), "{done:?}");
    }
}

/// Asked in front of every group of layers and of what is around them; progress tells of what was read by then.
#[test]
fn loading_stops_when_the_caller_asks() {
    let asked = Arc::new(AtomicUsize::new(0));
    let stopping_at = |most: usize| {
        let asked = Arc::clone(&asked);
        asked.store(0, Ordering::SeqCst);
        Conditioner::builder().stop_when(move || asked.fetch_add(1, Ordering::SeqCst) == most)
    };
    let (size, seed) = (SyntheticSize::Tiny, 73);
    let whole = stopping_at(usize::MAX).random_weights(Family::Sdxl, size, seed);
    drop(whole.unwrap());
    let most = asked.load(Ordering::SeqCst);
    assert!(most > 10, "{most}");
    for at in [0, 1, most / 2, most - 1] {
        let mut whole = Vec::new();
        let stopped = stopping_at(at).random_weights_with_progress(
            Family::Sdxl,
            size,
            seed,
            &mut |encoder, done, total| {
                if done == total {
                    whole.push(encoder);
                }
            },
        );
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
        assert_eq!(asked.load(Ordering::SeqCst), at + 1);
        assert!(whole.len() < 2, "{at}: {whole:?}");
    }
    let clips = random(Conditioner::builder(), Family::Sdxl).unwrap();
    let configs: Vec<_> = clips.encoders().map(|clip| clip.config().clone()).collect();
    let sources = configs
        .iter()
        .map(|one| Synthetic::new(one.encoder, size, seed));
    let sources: Vec<Synthetic> = sources.collect();
    let pairs = configs
        .iter()
        .cloned()
        .zip(sources.iter().map(|one| one as &dyn TensorSource));
    let stopped = stopping_at(3).load_sources(Family::Sdxl, &pairs.collect::<Vec<_>>());
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
}

/// It was ignored.
#[test]
fn families_that_contradict_each_other_are_refused() {
    let of = |family| Conditioner::builder().family(family);
    assert!(random(of(Family::Sdxl), Family::Sdxl).is_ok());
    let error = random(of(Family::Sdxl), Family::Sd1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.message().contains("sdxl") && error.message().contains("sd1"));
    assert_eq!(
        of(Family::Sdxl)
            .load_sources(Family::Sd1, &[])
            .unwrap_err()
            .kind(),
        ErrorKind::Mismatch
    );
}

#[test]
fn names_lead_back_to_what_they_name() {
    for family in Family::ALL {
        assert_eq!(family.to_string().parse::<Family>().unwrap(), family);
    }
    for profile in Profile::ALL {
        assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
    }
    let error = "SDXL".parse::<Family>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(error.to_string().contains("\"SDXL\"") && error.to_string().contains("sd1, sd2, sdxl"));
    let error = "comfy".parse::<Profile>().unwrap_err();
    assert!(error.to_string().contains("comfyui"), "{error}");
    let notes = Prompt::parse("a (cat", Dialect::A1111).notes().to_vec();
    assert!(
        notes[0].to_string().ends_with("(unbalanced at 2..3)"),
        "{}",
        notes[0]
    );
}

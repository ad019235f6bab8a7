//! Schedules: the texts of the reference's run, each against its tensors; and the whole timeline.

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::conditioner::CacheOptions;
use sd_conditioner::conditioning::{Conditioning, Span, Timeline};
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request};
use serde_json::{Value, json};

use crate::support::close::{bits, distance};
use crate::support::golden::{Case, Goldens};

fn conditioner(seed: u64) -> Conditioner {
    Conditioner::builder()
        .cache(CacheOptions::OFF)
        .random_weights(Family::Sd1, SyntheticSize::Tiny, seed)
        .unwrap()
}

/// The timeline as the manifest writes schedules.
fn written(timeline: &Timeline) -> Value {
    let parts = timeline.parts.iter().map(|part| {
        let entries = part.entries.iter().map(|entry| match entry.span {
            Span::UntilStep(until) => json!([until, entry.text]),
            Span::Percent { .. } => panic!("A1111 counts steps"),
        });
        json!({ "weight": part.weight, "schedule": entries.collect::<Vec<_>>() })
    });
    Value::Array(parts.collect())
}

fn check_side(conditioner: &Conditioner, goldens: &Goldens, case: &Case, side: &str) {
    let text = if side == "positive" {
        &case.positive
    } else {
        &case.negative
    };
    let request = Request::new(text.as_str().unwrap()).profile(Profile::Forge);
    let request = if side == "negative" {
        request.as_negative()
    } else {
        request
    };
    let steps = u32::try_from(case.option("steps").unwrap().as_u64().unwrap()).unwrap();
    let timeline = conditioner
        .encode_schedule(&request, Pass::First { steps })
        .unwrap();
    assert_eq!(written(&timeline), case.extra[&format!("{side}.schedule")]);
    // The reference run encoded each text in a call of its own.
    let texts = case.extra[&format!("{side}.texts")].as_array().unwrap();
    for (index, text) in texts.iter().enumerate() {
        let request = Request::new(text.as_str().unwrap()).profile(Profile::Forge);
        let ours = conditioner.encode(request).unwrap();
        let stored = &case.tensors[&format!("{side}.{index}.hidden_states")];
        let (theirs, ours) = goldens.rows(stored, ours.context());
        let found = distance(&ours, &theirs);
        assert!(
            found.relative <= case.tolerance.rel_f32,
            "{side} {index}: {found:?}"
        );
    }
}

#[test]
fn a_schedule_equals_the_reference_run() {
    let goldens = Goldens::load(&["a1111"]);
    let conditioner = conditioner(goldens.manifest.seed);
    let cases = goldens.manifest.cases.iter();
    let cases: Vec<&Case> = cases
        .filter(|case| case.option("steps").is_some())
        .collect();
    assert_eq!(cases.len(), 1);
    for case in cases {
        check_side(&conditioner, &goldens, case, "positive");
        check_side(&conditioner, &goldens, case, "negative");
    }
}

/// The texts of one schedule are one call: unweighted ones equal their own encoding bit for bit,
/// weighted ones share their mean.
#[test]
fn texts_of_a_schedule_are_one_call() {
    let conditioner = conditioner(5);
    let encode = |text: &str| {
        let request = Request::new(text).profile(Profile::A1111);
        let pass = Pass::First { steps: 10 };
        conditioner.encode_schedule(&request, pass).unwrap()
    };
    let alone = |text: &str| {
        let request = Request::new(text).profile(Profile::A1111);
        conditioner.encode(request).unwrap()
    };
    let plain = encode("a [cat:dog:0.5]");
    for (entry, text) in plain.entries().zip(["a cat", "a dog"]) {
        assert_eq!(entry.text, text);
        assert_eq!(
            bits(entry.conditioning.context()),
            bits(alone(text).context())
        );
    }
    let strong = encode("a [(cat:1.5):dog:0.5]");
    let dog = strong.entries().nth(1).unwrap();
    assert_ne!(
        bits(dog.conditioning.context()),
        bits(alone("a dog").context())
    );
    let together = [Request::new("a (cat:1.5)"), Request::new("a dog")];
    let together = together.map(|request| request.profile(Profile::A1111));
    let together = conditioner.encode_together(&together).unwrap();
    for (entry, both) in strong.entries().zip(&together) {
        assert_eq!(bits(entry.conditioning.context()), bits(both.context()));
    }
}

/// Shorter texts get empty windows, so that a sampler can change between them.
#[test]
fn texts_of_a_schedule_have_one_length() {
    let conditioner = conditioner(5);
    let text = format!("a [cat:{}:3]", "dog ".repeat(80));
    let request = Request::new(&text).profile(Profile::A1111);
    let pass = Pass::First { steps: 10 };
    let timeline = conditioner.encode_schedule(&request, pass).unwrap();
    let lengths: Vec<usize> = timeline
        .entries()
        .map(|entry| entry.conditioning.tokens())
        .collect();
    assert_eq!(lengths, [154, 154]);
    let empty = conditioner.encode(Request::new("").profile(Profile::A1111));
    let first = timeline.entries().next().unwrap().conditioning.context();
    let tail: Tensor = first.narrow(1, 77, 77).unwrap();
    assert_eq!(bits(&tail), bits(empty.unwrap().context()));
}

#[test]
fn a_sampler_follows_a_timeline() {
    let conditioner = conditioner(5);
    let request = Request::new("[a cat:a dog:3]").profile(Profile::A1111);
    let pass = Pass::First { steps: 10 };
    let timeline = conditioner.encode_schedule(&request, pass).unwrap();
    let part = &timeline.parts[0];
    let shown: Vec<&str> = (0..12)
        .map(|calls| part.at_call(calls, 10).unwrap().text.as_str())
        .collect();
    assert_eq!(shown[..5], ["a cat", "a cat", "a cat", "a cat", "a dog"]);
    assert_eq!(shown[11], "a cat"); // beyond the last entry: the first one
    let whole: Conditioning = conditioner.encode("a cat").unwrap();
    let part = &Timeline::constant("a cat", whole).between(0.25, 0.5).parts[0];
    let active: Vec<bool> = (0..8)
        .map(|calls| part.at_call(calls, 8).is_some())
        .collect();
    assert_eq!(
        active,
        [false, false, true, true, true, false, false, false]
    );
}

#[test]
fn other_tools_have_no_schedules() {
    let conditioner = conditioner(5);
    let text = "a [cat:dog:0.5] AND a hat:0.6";
    let pass = Pass::First { steps: 10 };
    let timeline = |profile| {
        let request = Request::new(text).profile(profile);
        conditioner.encode_schedule(&request, pass).unwrap()
    };
    assert_eq!(timeline(Profile::A1111).parts.len(), 2);
    let comfyui = timeline(Profile::ComfyUi);
    assert_eq!(comfyui.parts.len(), 1);
    assert_eq!(comfyui.entries().next().unwrap().text, text);
    let alone = |profile| {
        let request = Request::new(text).profile(profile);
        conditioner.encode(request).unwrap()
    };
    let told = |profile| {
        let notes = alone(profile).notes().to_vec();
        notes.iter().any(|note| note.message.contains("scheduled"))
    };
    assert!(told(Profile::A1111) && !told(Profile::ComfyUi));
}

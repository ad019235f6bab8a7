//! Single cases in which this library was once wrong, against values of the reference programs
//! (`tests/golden/conditioning/corners.json`).

use std::collections::BTreeMap;

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::conditioning::Emphasis;
use sd_conditioner::profile::{DIALECTS, EqualLengths, split_named};
use sd_conditioner::prompt::NoteKind;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::tokens::Cleaner;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request};
use serde::Deserialize;

use crate::support::close::{assert_close, bits, values};
use crate::support::embeddings;
use crate::support::entries::Stored;

/// The largest difference, in parts of the largest value.
const BAR: f64 = 1e-5;

/// What a program was told, and what it gave.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    tool: String,
    family: String,
    profile: String,
    positive: Text,
    negative: Option<Text>,
    #[serde(default)]
    as_negative: bool,
    #[serde(default)]
    embeddings: bool,
    dialect: Option<String>,
    emphasis: Option<String>,
    split: Option<String>,
    cleaner: Option<String>,
    clip_skip: Option<i32>,
    steps: Option<u32>,
    results: BTreeMap<String, Sample>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    One(String),
    Two([String; 2]),
}

/// Every so many-th value of a tensor, row-major.
#[derive(Debug, Deserialize)]
struct Sample {
    shape: Vec<usize>,
    every: usize,
    values: Vec<f64>,
}

impl Case {
    fn request<'a>(&self, text: &'a Text, set: &'a Embeddings) -> Request<'a> {
        let mut request = match text {
            Text::One(text) => Request::new(text),
            Text::Two([first, second]) => Request::per_encoder(first, second),
        };
        request = request.profile(Profile::named(&self.profile).unwrap());
        request = request.embeddings(set);
        if let Some(name) = &self.dialect {
            let found = DIALECTS.iter().find(|(other, _)| other == name);
            request = request.dialect(found.unwrap().1);
        }
        if let Some(name) = &self.emphasis {
            request = request.emphasis(Emphasis::named(name).unwrap());
        }
        if let Some(name) = &self.split {
            request = request.split(split_named(name).unwrap().0);
        }
        if let Some(name) = &self.cleaner {
            assert_eq!(name, "hf-slow-ftfy");
            request = request.cleaner(Cleaner::HfSlowFtfy);
        }
        match self.clip_skip {
            Some(number) => request.clip_skip(number),
            None => request,
        }
    }

    /// Everything that the program gave, under the names of the file.
    fn run(&self, text: &Conditioner, set: &Embeddings) -> BTreeMap<String, Tensor> {
        let mut all = BTreeMap::new();
        let positive = self.request(&self.positive, set);
        if let Some(steps) = self.steps {
            let sided = if self.as_negative {
                positive.as_negative()
            } else {
                positive
            };
            let timeline = text.encode_schedule(&sided, Pass::First { steps }).unwrap();
            for (part, place) in timeline.parts.iter().zip(0..) {
                for (entry, index) in part.entries.iter().zip(0..) {
                    keep(&mut all, &format!("{place}.{index}"), &entry.conditioning);
                }
            }
            return all;
        }
        match &self.negative {
            None => keep(&mut all, "positive", &text.encode(positive).unwrap()),
            Some(negative) => {
                let negative = self.request(negative, set);
                let pair = text.encode_pair(positive, negative).unwrap();
                keep(&mut all, "positive", pair.positive());
                keep(&mut all, "negative", pair.negative());
            }
        }
        all
    }
}

fn keep(all: &mut BTreeMap<String, Tensor>, name: &str, made: &Conditioning) {
    all.insert(format!("{name}.context"), made.context().clone());
    if let Some(pooled) = made.pooled() {
        all.insert(format!("{name}.pooled"), pooled.clone());
    }
}

/// How far our values are from a sample.
fn distance(ours: &Tensor, theirs: &Sample) -> f64 {
    if ours.dims() != theirs.shape {
        return f64::INFINITY;
    }
    let ours = values(ours);
    let pairs = ours.iter().step_by(theirs.every).zip(&theirs.values);
    let largest = pairs.map(|(ours, theirs)| (ours - theirs).abs());
    let scale = theirs
        .values
        .iter()
        .fold(0.0, |most: f64, one| most.max(one.abs()));
    largest.fold(0.0, f64::max) / if scale > 0.0 { scale } else { 1.0 }
}

fn family(name: &str) -> Family {
    let mut all = Family::ALL.into_iter();
    all.find(|family| family.name() == name).unwrap()
}

#[test]
fn single_cases_equal_the_reference_programs() {
    let cases = include_str!("../golden/conditioning/corners.json");
    let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
    let folder = tempfile::tempdir().unwrap();
    embeddings::write(folder.path(), Stored::F32);
    let (set, none) = (
        Embeddings::folder(folder.path()).unwrap(),
        Embeddings::default(),
    );
    let mut loaded: BTreeMap<String, Conditioner> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let text = loaded.entry(case.family.clone()).or_insert_with(|| {
            let builder = Conditioner::builder();
            let made = builder.random_weights(family(&case.family), SyntheticSize::Tiny, 73);
            made.unwrap()
        });
        let ours = case.run(text, if case.embeddings { &set } else { &none });
        for (name, theirs) in &case.results {
            let found = ours
                .get(name)
                .map_or(f64::INFINITY, |ours| distance(ours, theirs));
            if found > BAR {
                wrong.push(format!("{}, {}: {name}: {found:e}", case.tool, case.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "of {}:\n{}",
        cases.len(),
        wrong.join("\n")
    );
}

fn tiny(family: Family) -> Conditioner {
    let made = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
    made.unwrap()
}

#[track_caller]
fn same(ours: &Conditioning, theirs: &Conditioning) {
    let all = |one: &Conditioning| [Some(one.context()), one.pooled()].map(|one| one.map(bits));
    assert!(all(ours) == all(theirs), "they differ");
}

/// `InvokeAI`'s style prompt: blank means the prompt, and an empty encoder's text is zeros.
#[test]
fn a_blank_style_is_the_prompt() {
    let text = tiny(Family::Sdxl);
    let encode = |first, second| {
        let request = Request::per_encoder(first, second).profile(Profile::InvokeAi);
        text.encode(request).unwrap()
    };
    let one = text.encode(Request::new("a cat").profile(Profile::InvokeAi));
    let one = one.unwrap();
    for blank in ["", " \n\t", "\u{1c}"] {
        same(&encode("a cat", blank), &one);
    }
    let zeros = encode("", " ");
    assert!(values(zeros.context()).iter().all(|value| *value == 0.0));
}

/// A1111 and stable-diffusion.cpp run sides of different lengths apart: each side's rows are its own,
/// repeated.
#[test]
fn sides_that_run_apart_are_repeated() {
    let (text, long) = (tiny(Family::Sd1), "a red barn, ".repeat(30));
    for profile in [Profile::A1111, Profile::Forge, Profile::SdCpp] {
        let of = |prompt| Request::new(prompt).profile(profile);
        let pair = text.encode_pair(of(&long), of("fog")).unwrap();
        let alone = text.encode(of("fog").as_negative()).unwrap();
        let rows = pair.negative().tokens();
        assert_eq!(rows, 154, "{profile:?}");
        for start in (0..rows).step_by(77) {
            let window = pair.negative().context().narrow(1, start, 77).unwrap();
            assert_eq!(bits(&window), bits(alone.context()), "{profile:?}");
        }
    }
}

/// `pad_cond_uncond_v0`: the last row again, or as many rows as the prompt has.
#[test]
fn a_negative_may_repeat_its_last_row() {
    let (text, long) = (tiny(Family::Sd1), "a red barn, ".repeat(30));
    let of = |prompt| {
        let request = Request::new(prompt).profile(Profile::A1111);
        request.equal_lengths(EqualLengths::LastRow)
    };
    let pair = text.encode_pair(of(&long), of("fog")).unwrap();
    let alone = text.encode(of("fog").as_negative()).unwrap();
    let rows = |from, n| pair.negative().context().narrow(1, from, n).unwrap();
    assert_eq!(bits(&rows(0, 77)), bits(alone.context()));
    let last = alone.context().narrow(1, 76, 1).unwrap();
    for row in 77..154 {
        assert_eq!(bits(&rows(row, 1)), bits(&last));
    }
    let pair = text.encode_pair(of("fog"), of(&long)).unwrap();
    let alone = text.encode(of(&long).as_negative()).unwrap();
    let cut = alone.context().narrow(1, 0, 77).unwrap();
    assert_eq!(bits(pair.negative().context()), bits(&cut));
}

#[test]
fn a1111_moves_sd1_only_and_forge_all() {
    for family in Family::ALL {
        let text = tiny(family);
        let encode = |profile, skip| {
            let request = Request::new("a cat").profile(profile);
            text.encode(request.clip_skip(skip)).unwrap()
        };
        let usual = encode(Profile::A1111, 1);
        let moved = encode(Profile::A1111, 3);
        let forge = encode(Profile::Forge, 3);
        assert!(bits(forge.context()) != bits(usual.context()), "{family}");
        let like = if family == Family::Sd1 {
            &forge
        } else {
            &usual
        };
        same(&moved, like);
        let told = moved
            .notes()
            .iter()
            .any(|note| note.kind == NoteKind::Unused);
        assert_eq!(told, family != Family::Sd1);
    }
}

/// Clip skip takes layers away there, so the pooled vector moves with the state.
#[test]
fn invokeai_pools_the_shortened_tower() {
    let text = tiny(Family::Sdxl);
    let encode = |profile, skip| {
        let request = Request::new("a cat").profile(profile);
        text.encode(request.clip_skip(skip)).unwrap()
    };
    let (usual, moved) = (encode(Profile::InvokeAi, 0), encode(Profile::InvokeAi, 1));
    assert_ne!(moved.pooled().map(bits), usual.pooled().map(bits));
    same(&usual, &encode(Profile::Compel, 0));
    let compel = encode(Profile::Compel, 1);
    assert_eq!(bits(moved.context()), bits(compel.context()));
    assert_eq!(compel.pooled().map(bits), usual.pooled().map(bits));
}

/// On numpy 1 the words are masked, on numpy 2 the first row: the text behind them shows it.
#[test]
fn masks_are_numpy_1s_where_that_is_asked_for() {
    let text = tiny(Family::Sd1);
    let encode = |prompt: &str, method: &str| {
        let request = Request::new(prompt).profile(Profile::ComfyUi);
        let request = request.emphasis(Emphasis::named(method).unwrap());
        text.encode(request).unwrap()
    };
    let one = encode("a (red:0.5) barn", "adv:none:down_weight:numpy1");
    let plain = encode("a red barn", "ignore");
    // The mask token of the node is `+`.
    let masked = encode("a + barn", "ignore");
    let half = ((plain.context() * 0.5).unwrap() + (masked.context() * 0.5).unwrap()).unwrap();
    assert_close("numpy 1", one.context(), &half, 1e-6);
    let two = encode("a (red:0.5) barn", "adv:none:down_weight");
    assert!(bits(two.context()) != bits(one.context()));
}

/// A LoRA is no text for stable-diffusion.cpp; its negative prompts and other words in such brackets are.
#[test]
fn stable_diffusion_cpp_takes_loras_out() {
    let text = tiny(Family::Sd1);
    let of = |prompt| Request::new(prompt).profile(Profile::SdCpp);
    let encode = |prompt| text.encode(of(prompt)).unwrap();
    let named = encode("a <lora:x:0.8>cat");
    same(&named, &encode("a cat"));
    assert_eq!(named.notes()[0].span, 2..14);
    for kept in ["a <lora:x>cat", "a <hypernet:x:1>cat", "a # cat"] {
        let bare = text.encode(of(kept).profile(Profile::SdCpp)).unwrap();
        assert!(
            bits(bare.context()) != bits(encode("a cat").context()),
            "{kept}"
        );
    }
    let negative = |prompt| text.encode(of(prompt).as_negative()).unwrap();
    let stays = negative("a <lora:x:0.8>cat");
    assert!(bits(stays.context()) != bits(negative("a cat").context()));
    assert_eq!(stays.notes()[0].span, 2..14);
}

/// Where compel raises an error, that is told.
#[test]
fn what_compel_refuses_is_told() {
    let refused = |family, prompt: &str, emphasis| {
        let request = Request::new(prompt)
            .profile(Profile::Compel)
            .emphasis(emphasis);
        let made = tiny(family).encode(request).unwrap();
        let mut notes = made.notes().iter();
        notes.any(|note| note.kind == NoteKind::ReferenceError)
    };
    let parts = r#"("a", "b").and(0.5, 1)"#;
    assert!(refused(Family::Sdxl, parts, Emphasis::Compel));
    assert!(!refused(Family::Sd1, parts, Emphasis::Compel));
    let equal = r#"("a", "b").and(1, 1)"#;
    assert!(!refused(Family::Sdxl, equal, Emphasis::Compel));
    let long = |n| format!("(cat)0.5 {}", "dog ".repeat(n));
    assert!(refused(Family::Sd1, &long(75), Emphasis::CompelRemove));
    assert!(!refused(Family::Sd1, &long(74), Emphasis::CompelRemove));
    assert!(!refused(Family::Sd1, &long(75), Emphasis::Compel));
}

//! The whole flow against the reference programs, on tiny synthetic encoders in f32.

mod batches;
mod cases;
mod open_clip;
mod precision;

use std::collections::BTreeMap;
use std::path::Path;

use sd_conditioner::candle_core::Tensor;
use sd_conditioner::weights::{Checkpoint, EncoderId};
use sd_conditioner::{Conditioner, Conditioning, Family};

use self::cases::{Side, is_plain, request};
use crate::support::checkpoints::{self, Layout};
use crate::support::close::{bits, distance};
use crate::support::entries::Stored;
use crate::support::golden::{Case, Goldens};

/// The manifest's names of layouts.
fn layout(name: &str) -> Layout {
    match name {
        "diffusers" => Layout::Diffusers,
        "single-file" => Layout::SingleFile,
        "standalone" => Layout::Standalone,
        "open-clip" => Layout::OpenClip,
        other => panic!("no layout {other}"),
    }
}

/// Conditioners over checkpoint files, each written and loaded once.
struct Loaded {
    folder: tempfile::TempDir,
    seed: u64,
    done: BTreeMap<(Family, String), Conditioner>,
}

impl Loaded {
    fn new(seed: u64) -> Loaded {
        Loaded {
            folder: tempfile::tempdir().unwrap(),
            seed,
            done: BTreeMap::new(),
        }
    }

    fn get(&mut self, family: Family, name: &str) -> &Conditioner {
        let folder = self.folder.path().join(format!("{family}-{name}"));
        let seed = self.seed;
        self.done
            .entry((family, name.to_owned()))
            .or_insert_with(|| open(&folder, family, layout(name), seed))
    }
}

/// Writes a checkpoint and loads it.
fn open(folder: &Path, family: Family, layout: Layout, seed: u64) -> Conditioner {
    let files = checkpoints::write(folder, family, layout, Stored::F32, seed);
    let parts: Vec<Checkpoint> = files
        .iter()
        .map(|file| Checkpoint::open(file).unwrap())
        .collect();
    Conditioner::builder().family(family).load(&parts).unwrap()
}

/// Every tensor of one side under the manifest's names.
fn tensors(name: &str, conditioning: &Conditioning, out: &mut BTreeMap<String, Tensor>) {
    out.insert(
        format!("{name}.hidden_states"),
        conditioning.context().clone(),
    );
    if let Some(pooled) = conditioning.pooled() {
        out.insert(format!("{name}.pooled"), pooled.clone());
    }
    if let Some(vector) = conditioning.vector().unwrap() {
        out.insert(format!("{name}.adm"), vector);
    }
}

/// Runs one case; both sides apart, as the reference programs do.
fn run(conditioner: &Conditioner, case: &Case) -> Option<BTreeMap<String, Tensor>> {
    let zero_out = case.negative.get("zero_out").cloned();
    let negative_value = zero_out.clone().unwrap_or_else(|| case.negative.clone());
    let (positive, negative) = (Side::of(&case.positive)?, Side::of(&negative_value)?);
    let requests = [
        request(case, &positive, &case.positive),
        request(case, &negative, &case.negative).as_negative(),
    ];
    let mut both = conditioner.encode_batch(&requests).unwrap();
    if zero_out.is_some() {
        both[1] = both[1].zeroed().unwrap();
    }
    let mut out = BTreeMap::new();
    tensors("positive", &both[0], &mut out);
    tensors("negative", &both[1], &mut out);
    Some(out)
}

/// How far a set of cases went.
#[derive(Default)]
struct Tally {
    n_cases: usize,
    largest: f64,
    wrong: Vec<String>,
}

impl Tally {
    /// Checks a case read from its first layout against the golden, and its other layouts against
    /// the first, bit for bit.
    fn check(&mut self, goldens: &Goldens, loaded: &mut Loaded, case: &Case) {
        let first = loaded.get(case.family(), &case.layouts[0]);
        let Some(ours) = run(first, case) else {
            return;
        };
        self.n_cases += 1;
        self.compare(goldens, case, &ours);
        self.compare_ids(first, case);
        for name in &case.layouts[1..] {
            let other = run(loaded.get(case.family(), name), case).unwrap();
            for (key, tensor) in &other {
                if bits(tensor) != bits(&ours[key]) {
                    self.wrong
                        .push(format!("{}: {key} differs in layout {name}", case.id));
                }
            }
        }
    }

    fn compare(&mut self, goldens: &Goldens, case: &Case, ours: &BTreeMap<String, Tensor>) {
        for (name, stored) in &case.tensors {
            let Some(ours) = ours.get(name) else {
                self.wrong.push(format!("{}: {name} is missing", case.id));
                continue;
            };
            let (theirs, ours) = goldens.rows(stored, ours);
            let found = distance(&ours, &theirs);
            self.largest = self.largest.max(found.relative);
            if found.relative > case.tolerance.rel_f32 || found.cosine < 0.999_999 {
                self.wrong.push(format!("{}: {name}: {found:?}", case.id));
            }
        }
    }

    /// The ids of every window, by encoder.
    fn compare_ids(&mut self, conditioner: &Conditioner, case: &Case) {
        for (name, value) in [("positive", &case.positive), ("negative", &case.negative)] {
            let value = value.get("zero_out").unwrap_or(value);
            let (Some(side), Some(theirs)) = (Side::of(value), case.tokens.get(name)) else {
                continue;
            };
            let chunks = conditioner.chunks(request(case, &side, value)).unwrap();
            for (encoder, chunks) in chunks {
                let ours: Vec<Vec<u32>> = chunks.iter().map(|chunk| chunk.ids().to_vec()).collect();
                let theirs = theirs.get(manifest_name(encoder));
                if theirs.is_some_and(|theirs| theirs["ids"] != serde_json::json!(ours)) {
                    self.wrong
                        .push(format!("{}: {name}: ids of {encoder}", case.id));
                }
            }
        }
    }
}

/// The manifest's names of encoders.
fn manifest_name(encoder: EncoderId) -> &'static str {
    match encoder {
        EncoderId::ClipL => "clip_l",
        EncoderId::OpenClipH => "clip_h",
        EncoderId::OpenClipG => "clip_g",
    }
}

/// Checks all plain cases of one implementation; the largest relative error is printed.
fn check(implementation: &str, at_least: usize) {
    let goldens = Goldens::load(&[implementation]);
    let mut loaded = Loaded::new(goldens.manifest.seed);
    let mut tally = Tally::default();
    for case in goldens.manifest.cases.iter().filter(|case| is_plain(case)) {
        tally.check(&goldens, &mut loaded, case);
    }
    let Tally {
        n_cases,
        largest,
        wrong,
    } = tally;
    println!("{implementation}: {n_cases} cases, largest relative error {largest:e}");
    assert!(wrong.is_empty(), "of {n_cases}:\n{}", wrong.join("\n"));
    assert!(n_cases >= at_least, "only {n_cases} cases were run");
}

#[test]
fn diffusers_plain() {
    check("diffusers", 30);
}

#[test]
fn comfyui_plain() {
    check("comfyui", 20);
}

#[test]
fn a1111_plain() {
    check("a1111", 15);
}

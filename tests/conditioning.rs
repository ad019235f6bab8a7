//! The whole flow against the reference programs, on tiny synthetic encoders in f32.

mod batches;
mod building;
mod cache;
mod cases;
mod corners;
mod devices;
mod emphasis;
mod entries;
mod finite;
mod forms;
mod gelu;
mod least_windows;
mod mapped;
mod negatives;
mod nested;
mod open_clip;
mod parts;
mod planned;
mod precision;
mod schedules;
mod stopped;
mod tiny16;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sd_conditioner::candle_core::{Device, Tensor};
use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::kernels::{self, Cpu, Kernels};
use sd_conditioner::tokens::{Chunk, Chunks, Splice};
use sd_conditioner::weights::{Checkpoint, EncoderId};
use sd_conditioner::{Conditioner, Conditioning, Family};
use serde_json::{Value, json};

use self::cases::{Side, request};
use crate::support::checkpoints::{self, Layout};
use crate::support::close::{bits, distance};
use crate::support::embeddings;
use crate::support::entries::Stored;
use crate::support::golden::{Case, Goldens};
use crate::support::loras;

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
    /// The CPU's unit, in place of the best.
    unit: Option<String>,
    device: Device,
    done: BTreeMap<(Family, String), Conditioner>,
}

impl Loaded {
    fn new(seed: u64) -> Loaded {
        Loaded {
            folder: tempfile::tempdir().unwrap(),
            seed,
            unit: None,
            device: Device::Cpu,
            done: BTreeMap::new(),
        }
    }

    /// One for each of this machine's units but the best, and one for the card of a build with `cuda`.
    fn others(seed: u64) -> Vec<Loaded> {
        let units = Cpu::all().unwrap();
        let names = units.iter().skip(1).map(Kernels::name);
        let on = |unit: &str| Loaded {
            unit: Some(unit.to_owned()),
            ..Loaded::new(seed)
        };
        let card = devices::card().map(|device| Loaded {
            device,
            ..Loaded::new(seed)
        });
        names.map(on).chain(card).collect()
    }

    /// The folder of the embeddings that the reference programs had.
    fn embeddings(&self) -> PathBuf {
        let folder = self.folder.path().join("embeddings");
        if !folder.exists() {
            embeddings::write(&folder, Stored::F32);
        }
        folder
    }

    /// The folder of the `LoRA`s that they had.
    fn loras(&self) -> PathBuf {
        let folder = self.folder.path().join("loras");
        if !folder.exists() {
            loras::write(&folder, self.seed, Stored::F32);
        }
        folder
    }

    /// The encoders of a case, in one of its layouts.
    fn of_case(&mut self, case: &Case, name: &str) -> Conditioner {
        let lora = cases::lora(case, &self.loras());
        let loaded = self.get(case.family(), name);
        loaded.with_loras(lora.as_slice()).unwrap()
    }

    fn get(&mut self, family: Family, name: &str) -> &Conditioner {
        let folder = self.folder.path().join(format!("{family}-{name}"));
        let (seed, on) = (self.seed, (self.unit.clone(), &self.device));
        self.done
            .entry((family, name.to_owned()))
            .or_insert_with(|| open(&folder, family, layout(name), seed, on))
    }
}

/// Writes a checkpoint and loads it.
fn open(
    folder: &Path,
    family: Family,
    layout: Layout,
    seed: u64,
    (unit, device): (Option<String>, &Device),
) -> Conditioner {
    let files = checkpoints::write(folder, family, layout, Stored::F32, seed);
    let parts: Vec<Checkpoint> = files
        .iter()
        .map(|file| Checkpoint::open(file).unwrap())
        .collect();
    let options = kernels::Options {
        unit,
        ..kernels::Options::default()
    };
    let builder = Conditioner::builder()
        .kernel_options(options)
        .device(device.clone());
    builder.family(family).load(&parts).unwrap()
}

/// Every tensor of one side under the manifest's names.
fn tensors(name: &str, conditioning: &Conditioning, out: &mut BTreeMap<String, Tensor>) {
    let conditioning = conditioning.to_device(&Device::Cpu).unwrap();
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

/// One side of a case, as `ComfyUI`'s nodes would make it.
fn evaluate(
    conditioner: &Conditioner,
    case: &Case,
    value: &Value,
    set: &Embeddings,
) -> Conditioning {
    let pair = |name: &str| {
        let two = value.get(name)?.as_array()?;
        let one = |index: usize| evaluate(conditioner, case, &two[index], set);
        Some((one(0), one(1), two.get(2).and_then(Value::as_f64)))
    };
    if let Some((to, from, share)) = pair("average") {
        return to.average(&from, share.unwrap()).unwrap();
    }
    if let Some((to, from, _)) = pair("concat") {
        return to.concat(&from).unwrap();
    }
    if let Some(inner) = value.get("zero_out") {
        return evaluate(conditioner, case, inner, set).zeroed().unwrap();
    }
    let side = Side::of(value).unwrap();
    let request = request(case, &side, value, set);
    conditioner.encode(request).unwrap()
}

/// Runs one case; both sides apart, except for compel, which pads them to each other.
fn run(conditioner: &Conditioner, case: &Case, set: &Embeddings) -> BTreeMap<String, Tensor> {
    let mut out = BTreeMap::new();
    let sides = [&case.positive, &case.negative].map(Side::of);
    if let [Some(positive), Some(negative)] = &sides {
        let requests = [
            request(case, positive, &case.positive, set),
            request(case, negative, &case.negative, set).as_negative(),
        ];
        let both = if case.implementation == "compel" {
            let [positive, negative] = requests;
            let pair = conditioner.encode_pair(positive, negative).unwrap();
            vec![pair.positive().clone(), pair.negative().clone()]
        } else {
            conditioner.encode_batch(&requests).unwrap()
        };
        tensors("positive", &both[0], &mut out);
        tensors("negative", &both[1], &mut out);
        return out;
    }
    for (name, value) in [("positive", &case.positive), ("negative", &case.negative)] {
        if let Some(parts) = value.get("combine").and_then(Value::as_array) {
            for (index, part) in parts.iter().enumerate() {
                let one = evaluate(conditioner, case, part, set);
                tensors(&format!("{name}.{index}"), &one, &mut out);
            }
        } else {
            let one = evaluate(conditioner, case, value, set);
            tensors(name, &one, &mut out);
        }
    }
    out
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
        let set = cases::embeddings(case, &loaded.embeddings());
        let first = loaded.of_case(case, &case.layouts[0]);
        let ours = run(&first, case, &set);
        self.n_cases += 1;
        self.compare(goldens, case, &ours);
        self.compare_ids(&first, case, &set);
        // The custom node works on the same encoders; one layout will do.
        let others = match case.implementation.as_str() {
            "adv_clip_emb" => &[],
            _ => &case.layouts[1..],
        };
        for name in others {
            let other = run(&loaded.of_case(case, name), case, &set);
            for (key, tensor) in &other {
                if bits(tensor) != bits(&ours[key]) {
                    self.wrong
                        .push(format!("{}: {key} differs in layout {name}", case.id));
                }
            }
        }
    }

    /// Checks a case on another of the CPU's units.
    fn check_on(&mut self, goldens: &Goldens, loaded: &mut Loaded, case: &Case) {
        let set = cases::embeddings(case, &loaded.embeddings());
        let ours = run(&loaded.of_case(case, &case.layouts[0]), case, &set);
        self.compare(goldens, case, &ours);
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
    fn compare_ids(&mut self, conditioner: &Conditioner, case: &Case, set: &Embeddings) {
        for (name, value) in [("positive", &case.positive), ("negative", &case.negative)] {
            let (Some(side), Some(theirs)) = (Side::of(value), case.tokens.get(name)) else {
                continue;
            };
            let chunks = conditioner
                .chunks(request(case, &side, value, set))
                .unwrap();
            for (encoder, chunks) in chunks {
                let theirs = theirs.get(manifest_name(encoder));
                if theirs.is_some_and(|theirs| !same_windows(&chunks, theirs)) {
                    self.wrong
                        .push(format!("{}: {name}: ids of {encoder}", case.id));
                }
            }
        }
    }
}

/// Compares ids and strengths. compel's records have parts; those of removed fragments come last.
fn same_windows(ours: &Chunks, theirs: &Value) -> bool {
    let parts = theirs.get("parts").and_then(Value::as_array).cloned();
    let parts = parts.unwrap_or_else(|| vec![theirs.clone()]);
    let windows = parts.iter().flat_map(|part| {
        let ids = part["ids"].as_array().unwrap();
        let window = |index: usize| (ids[index].clone(), part["weights"].get(index).cloned());
        (0..ids.len()).map(window).collect::<Vec<_>>()
    });
    ours.iter().zip(windows).all(|(chunk, (ids, strengths))| {
        let row = |id: fn(&Splice) -> i64| {
            let mut row: Vec<i64> = chunk.ids().iter().map(|id| i64::from(*id)).collect();
            for splice in chunk.splices() {
                row[splice.row] = id(splice);
            }
            json!(row)
        };
        let same_ids = ids == row(|_| -1) || ids == row(|splice| i64::from(splice.id));
        same_ids && strengths.is_none_or(|theirs| same_strengths(chunk, &theirs))
    })
}

fn same_strengths(chunk: &Chunk, theirs: &Value) -> bool {
    let mut pairs = chunk.strengths().iter().zip(theirs.as_array().unwrap());
    pairs.all(|(ours, theirs)| (ours - theirs.as_f64().unwrap()).abs() <= 1e-6)
}

/// The manifest's names of encoders.
fn manifest_name(encoder: EncoderId) -> &'static str {
    match encoder {
        EncoderId::ClipL => "clip_l",
        EncoderId::OpenClipH => "clip_h",
        EncoderId::OpenClipG => "clip_g",
        other => panic!("{other}"),
    }
}

/// Checks all cases of one implementation; the largest relative error is printed.
fn check(implementation: &str, expected: usize) {
    let goldens = Goldens::load(&[implementation]);
    let mut loaded = Loaded::new(goldens.manifest.seed);
    let mut others = Loaded::others(goldens.manifest.seed);
    let mut tally = Tally::default();
    for case in &goldens.manifest.cases {
        // Schedules have a test of their own.
        if case.option("steps").is_some() {
            continue;
        }
        tally.check(&goldens, &mut loaded, case);
        // What differs by unit is the encoder; a part of the cases will do.
        if tally.n_cases % 4 == 1 {
            for other in &mut others {
                tally.check_on(&goldens, other, case);
            }
        }
    }
    let Tally {
        n_cases,
        largest,
        wrong,
    } = tally;
    println!("{implementation}: {n_cases} cases, largest relative error {largest:e}");
    assert!(wrong.is_empty(), "of {n_cases}:\n{}", wrong.join("\n"));
    assert_eq!(n_cases, expected, "another number of cases was run");
}

#[test]
fn diffusers() {
    check("diffusers", 40);
}

#[test]
fn comfyui() {
    check("comfyui", 62);
}

#[test]
fn a1111() {
    check("a1111", 45);
}

#[test]
fn compel() {
    check("compel", 32);
}

#[test]
fn adv_clip_emb() {
    check("adv_clip_emb", 48);
}

//! The reference program's own results.

use std::collections::{BTreeMap, HashMap};

use sd_conditioner::candle_core::{Device, Tensor, safetensors};
use sd_conditioner::conditioning::Entry;
use sd_conditioner::graph::{Session, Socket, Workflow, entries_json};
use sd_conditioner::{ConditioningList, ErrorKind};
use serde_json::Value;

use super::support::{folder, golden, read};
use crate::support::close::{bits, distance};

/// The largest relative error, as for the other results of this program.
const BAR: f64 = 2e-5;

/// Workflows with LoRAs.
const NOT_YET: [&str; 2] = [
    "02_sd1_lora_clip_skip.json",
    "12_sdxl_dual_clip_lora_ui.json",
];

fn load(file: &str) -> Workflow {
    Workflow::from_bytes(&std::fs::read(golden().join(file)).unwrap()).unwrap()
}

/// Everything that reaches the samplers of a workflow.
fn run(workflow: &Workflow) -> BTreeMap<Socket, ConditioningList> {
    let plan = workflow.plan(&workflow.conditionings()).unwrap();
    let lists = Session::new(folder()).run(&plan).unwrap();
    plan.sockets().cloned().zip(lists).collect()
}

struct Goldens {
    tensors: HashMap<String, Tensor>,
    worst: f64,
}

impl Goldens {
    fn compare(&mut self, what: &str, stored: &Value, ours: &Tensor) {
        let shape: Vec<usize> = serde_json::from_value(stored["shape"].clone()).unwrap();
        assert_eq!(ours.dims(), shape, "{what}");
        let theirs = &self.tensors[stored["key"].as_str().unwrap()];
        let rows: Option<Vec<u32>> = serde_json::from_value(stored["rows"].clone()).unwrap();
        let ours = match rows {
            Some(rows) => {
                let rows = Tensor::new(rows, &Device::Cpu).unwrap();
                ours.index_select(&rows, 1).unwrap()
            }
            None => ours.clone(),
        };
        let found = distance(&ours, theirs);
        assert!(found.relative <= BAR, "{what}: {found:?}");
        self.worst = self.worst.max(found.relative);
    }

    fn compare_entry(&mut self, what: &str, stored: &Value, ours: &Entry) {
        let conditioning = ours.conditioning();
        self.compare(what, &stored["hidden_states"], conditioning.context());
        let pooled = stored.get("pooled");
        assert_eq!(conditioning.pooled().is_some(), pooled.is_some(), "{what}");
        if let Some((pooled, ours)) = pooled.zip(conditioning.pooled()) {
            self.compare(&format!("{what} pooled"), pooled, ours);
        }
    }
}

#[test]
fn every_workflow_gives_the_results_of_the_reference() {
    let tensors = safetensors::load(golden().join("goldens.safetensors"), &Device::Cpu).unwrap();
    let mut goldens = Goldens {
        tensors,
        worst: 0.0,
    };
    let manifest = read("manifest.json");
    let mut compared = 0;
    for case in manifest["workflows"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        if NOT_YET.contains(&file) {
            continue;
        }
        let lists = run(&load(file));
        let samplers = case["ksamplers"].as_object().unwrap();
        assert_eq!(lists.len(), 2 * samplers.len(), "{file}");
        for (node, sides) in samplers {
            for (side, stored) in sides.as_object().unwrap() {
                let list = &lists[&Socket::input(node, side)];
                let stored = stored.as_array().unwrap();
                let attributes: Vec<&Value> =
                    stored.iter().map(|entry| &entry["attributes"]).collect();
                let ours: Vec<Value> = serde_json::from_str(&entries_json(list)).unwrap();
                assert_eq!(ours.iter().collect::<Vec<_>>(), attributes, "{file} {node}");
                for (place, stored) in stored.iter().enumerate() {
                    let what = format!("{file} {node}.{side} {place}");
                    goldens.compare_entry(&what, stored, &list.entries()[place]);
                    compared += 1;
                }
            }
        }
    }
    println!(
        "{compared} entries, largest relative error {:.1e}",
        goldens.worst
    );
    assert_eq!(compared, 31);
}

#[test]
fn the_editors_format_gives_what_the_api_format_gives() {
    let manifest = read("manifest.json");
    let mut compared = 0;
    for case in manifest["workflows"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let Some(api) = case.get("api").filter(|_| !NOT_YET.contains(&file)) else {
            continue;
        };
        let one = run(&load(file));
        let two = run(&Workflow::from_json(&api.to_string()).unwrap());
        assert_eq!(one.len(), two.len(), "{file}");
        for (socket, list) in &one {
            let other = &two[socket];
            assert_eq!(entries_json(list), entries_json(other), "{file} {socket}");
            for (one, two) in list.entries().iter().zip(other.entries()) {
                let context = |entry: &Entry| bits(entry.conditioning().context());
                assert_eq!(context(one), context(two), "{file} {socket}");
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 4);
}

#[test]
fn loras_are_told_apart_from_other_mistakes() {
    let models = tempfile::tempdir().unwrap();
    for folder in ["checkpoints", "text_encoders"] {
        let from = super::support::models().join(folder);
        std::os::unix::fs::symlink(from, models.path().join(folder)).unwrap();
    }
    std::fs::create_dir(models.path().join("loras")).unwrap();
    for (file, node, name) in [
        (NOT_YET[0], "2", "ink_sketch"),
        (NOT_YET[1], "3", "xl_linocut"),
    ] {
        let workflow = load(file);
        let plan = workflow.plan(&workflow.conditionings()).unwrap();
        assert_eq!(plan.loras(), [format!("{name}.safetensors")]);
        let library = sd_conditioner::graph::Folder::new(models.path());
        let missing = plan.run(&library).unwrap_err();
        assert_eq!(
            (missing.kind(), missing.node()),
            (ErrorKind::Io, Some(node))
        );
        let lora = models.path().join(format!("loras/{name}.safetensors"));
        std::fs::write(lora, "").unwrap();
        let error = plan.run(&library).unwrap_err();
        assert_eq!(
            (error.kind(), error.node()),
            (ErrorKind::Unsupported, Some(node))
        );
        assert!(error.message().contains("LoRA"), "{error}");
    }
}

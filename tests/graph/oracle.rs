//! The reference program's own results.

use std::collections::{BTreeMap, HashMap};

use sd_conditioner::ConditioningList;
use sd_conditioner::candle_core::{Device, Tensor, safetensors};
use sd_conditioner::conditioning::Entry;
use sd_conditioner::graph::{Session, Socket, Workflow, entries_json};
use serde_json::Value;

use super::support::{folder, golden, read};
use crate::support::close::{bits, distance};

/// The largest relative error, as for the other results of this program.
const BAR: f64 = 2e-5;

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
    assert_eq!(compared, 35);
}

#[test]
fn the_editors_format_gives_what_the_api_format_gives() {
    let manifest = read("manifest.json");
    let mut compared = 0;
    for case in manifest["workflows"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let Some(api) = case.get("api") else {
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
    assert_eq!(compared, 6);
}

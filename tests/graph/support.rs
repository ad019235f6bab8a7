//! Models folders and workflows for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sd_conditioner::Family;
use sd_conditioner::graph::{Folder, Workflow};
use serde_json::{Value, json};

use crate::support::checkpoints::{Layout, write};
use crate::support::embeddings::{self, SEED};
use crate::support::entries::Stored;
use crate::support::kept::Kept;
use crate::support::loras;

pub(super) fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/graph")
}

pub(super) fn read(name: &str) -> Value {
    let text = fs::read_to_string(golden().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(super) fn family(name: &str) -> Family {
    let mut all = Family::ALL.into_iter();
    all.find(|family| family.name() == name).unwrap()
}

/// The models folder that `files.json` describes; made once.
pub(super) fn models() -> &'static Path {
    static MADE: OnceLock<(Kept, PathBuf)> = OnceLock::new();
    let (_, made) = MADE.get_or_init(|| {
        let kept = Kept::new("models");
        let folder = kept.path();
        for (name, origin) in read("files.json").as_object().unwrap() {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let workshop = tempfile::tempdir().unwrap();
            fs::copy(make(workshop.path(), origin), path).unwrap();
        }
        (kept, folder)
    });
    made
}

fn make(workshop: &Path, origin: &Value) -> PathBuf {
    let file = origin["file"].as_str();
    let Some(family_name) = origin["family"].as_str() else {
        embeddings::write(workshop, Stored::F32);
        return workshop.join(file.unwrap());
    };
    if let Some(naming) = origin["naming"].as_str() {
        loras::write(workshop, SEED, Stored::F32);
        return workshop.join(format!("{family_name}.{naming}.safetensors"));
    }
    let layout = match origin["layout"].as_str().unwrap() {
        "single-file" => Layout::SingleFile,
        "standalone" => Layout::Standalone,
        other => panic!("layout {other}"),
    };
    let made = write(workshop, family(family_name), layout, Stored::F32, SEED);
    match file {
        Some(file) => workshop.join(file),
        None => made[0].clone(),
    }
}

pub(super) fn folder() -> Folder {
    Folder::new(models())
}

pub(super) fn workflow(json: &Value) -> Workflow {
    Workflow::from_json(&json.to_string()).unwrap()
}

/// A loader, one prompt, and a sampler that has it on both sides: nodes 1, 2 and 9.
pub(super) fn simple(text: &str) -> Value {
    json!({
        "1": node("CheckpointLoaderSimple", json!({"ckpt_name": "v1-5-pruned-emaonly.safetensors"})),
        "2": node("CLIPTextEncode", json!({"clip": ["1", 1], "text": text})),
        "9": node("KSampler", json!({"positive": ["2", 0], "negative": ["2", 0]})),
    })
}

/// The same with more nodes, and what the sampler has as its positive.
pub(super) fn with(nodes: Value, positive: &str) -> Value {
    let mut all = simple("a cat");
    let Value::Object(nodes) = nodes else {
        panic!("an object")
    };
    all.as_object_mut().unwrap().extend(nodes);
    all["9"]["inputs"]["positive"] = json!([positive, 0]);
    all
}

pub(super) fn node(class: &str, inputs: Value) -> Value {
    let mut node = json!({"class_type": class});
    node["inputs"] = inputs;
    node
}

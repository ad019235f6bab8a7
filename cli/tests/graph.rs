//! `graph`: workflows in, a file for each conditioning out.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use sd_conditioner::weights::EncoderId;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::files;
use crate::support::{command, read, run};

/// A models folder with one encoder, and a workflow.
struct Place {
    folder: TempDir,
    workflow: PathBuf,
}

impl Place {
    fn new(workflow: &Value) -> Place {
        let folder = tempdir().unwrap();
        let encoders = folder.path().join("models/clip");
        fs::create_dir_all(&encoders).unwrap();
        files::write(&encoders, "l.safetensors", EncoderId::ClipL, "", &[]);
        let path = folder.path().join("workflow.json");
        fs::write(&path, workflow.to_string()).unwrap();
        Place {
            folder,
            workflow: path,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command's arguments, with models and an out folder.
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut arguments = vec!["graph".to_owned(), text(&self.workflow)];
        arguments.extend(["--models".to_owned(), text(&self.path("models"))]);
        arguments.extend(["--out-dir".to_owned(), text(&self.path("out/deep"))]);
        arguments.extend(more.iter().map(|one| (*one).to_owned()));
        arguments
    }

    fn run(&self, more: &[&str]) -> crate::support::Ran {
        let arguments = self.arguments(more);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn written(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out/deep")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

fn workflow(text: &str) -> Value {
    let node = |class: &str, inputs: Value| json!({"class_type": class, "inputs": inputs});
    json!({
        "1": node("CLIPLoader", json!({"clip_name": "l.safetensors", "type": "stable_diffusion"})),
        "2": node("CLIPTextEncode", json!({"clip": ["1", 0], "text": text})),
        "3": node("ConditioningSetTimestepRange",
            json!({"conditioning": ["2", 0], "start": 0.25, "end": 1})),
        "4": node("ConditioningCombine",
            json!({"conditioning_1": ["2", 0], "conditioning_2": ["3", 0]})),
        "5": node("ConditioningZeroOut", json!({"conditioning": ["2", 0]})),
        "9": node("KSampler", json!({"positive": ["4", 0], "negative": ["5", 0]})),
    })
}

#[test]
fn a_file_for_each_conditioning_of_a_sampler() {
    let place = Place::new(&workflow("a cat, embedding:none"));
    let ran = place.run(&[]).expect(0);
    assert_eq!(
        place.written(),
        ["9.negative.safetensors", "9.positive.safetensors"]
    );
    let positive = read(&place.path("out/deep/9.positive.safetensors"));
    let names = ["0.hidden_states", "0.pooled", "1.hidden_states", "1.pooled"];
    assert_eq!(positive.names(), names);
    assert_eq!(positive.shape("1.hidden_states"), [1, 77, 128]);
    let entries: Value = serde_json::from_str(&positive.metadata["entries"]).unwrap();
    assert_eq!(
        entries,
        json!([{}, {"start_percent": 0.25, "end_percent": 1.0}])
    );
    assert_eq!(positive.metadata["generator"], "sd-conditioner");
    let negative = read(&place.path("out/deep/9.negative.safetensors"));
    assert!(negative.is_zero("0.hidden_states") && negative.is_zero("0.pooled"));
    assert!(!positive.is_zero("0.hidden_states"));
    let table: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(table.len(), 4, "{}", ran.stdout);
    assert!(table[0].starts_with("socket"), "{}", ran.stdout);
    for part in ["9.positive  1", "sd1 1x77x128", r#""start_percent":0.25"#] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("warning: node 2:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 prompts encoded"), "{}", ran.stderr);
    let quiet = place.run(&["--quiet", "--out-dtype", "f16"]).expect(0);
    assert!(!quiet.stderr.contains("wrote"), "{}", quiet.stderr);
    let half = read(&place.path("out/deep/9.positive.safetensors"));
    assert_eq!(half.tensors["0.hidden_states"].0, "F16");
}

#[test]
fn one_node_of_a_picture() {
    let place = Place::new(&json!({}));
    let text = format!("prompt\0{}", workflow("a cat"));
    let mut picture = b"\x89PNG\r\n\x1a\n".to_vec();
    picture.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    picture.extend(b"tEXt");
    picture.extend(text.as_bytes());
    picture.extend([0; 4]);
    fs::write(&place.workflow, picture).unwrap();
    place.run(&["--node", "5"]).expect(0);
    assert_eq!(place.written(), ["5.0.safetensors"]);
    let error = place.run(&["--node", "77"]).expect(1);
    assert!(error.error().contains("node 77"), "{}", error.stderr);
}

#[test]
fn a_plan_reads_no_weights() {
    let place = Place::new(&workflow("a (red:1.2) cat"));
    let path = place.workflow.to_str().unwrap();
    let ran = run(&["graph", path, "--plan"]).expect(0);
    let want = "needs\n  text_encoders/l.safetensors\ngives\n  9.positive\n  9.negative\n\
                encodes 1 prompts in 2 distinct windows\n";
    assert_eq!(ran.stdout, want);
    let models = place.path("models");
    let models = models.to_str().unwrap();
    let ran = run(&["graph", path, "--plan", "--models", models]).expect(0);
    assert!(
        ran.stdout.contains("l.safetensors  (there)"),
        "{}",
        ran.stdout
    );
    let ran = run(&["graph", path, "--plan", "--models", "/nonexistent"]).expect(0);
    assert!(
        ran.stdout.contains("l.safetensors  (missing)"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_is_wrong_is_said() {
    let mut unknown = workflow("a");
    unknown["4"]["class_type"] = json!("Sharpen");
    unknown["5"]["class_type"] = json!("Soften");
    let mut missing = workflow("a");
    missing["1"]["inputs"]["clip_name"] = json!("other.safetensors");
    let mut evil = workflow("a");
    let sampler = evil["9"].clone();
    evil["../../9"] = sampler;
    let cases = [
        (unknown, "4 (Sharpen), 5 (Soften)"),
        (
            missing,
            "node 1: no text_encoders/other.safetensors (there is l.safetensors)",
        ),
        (evil, "no file can be named"),
        (json!({"1": {"class_type": "Note"}}), "no sampler in it"),
        (json!([]), "no workflow"),
    ];
    for (json, part) in cases {
        let place = Place::new(&json);
        let ran = place.run(&[]).expect(1);
        assert!(ran.error().contains(part), "{part}: {}", ran.stderr);
        let file = place.workflow.to_str().unwrap();
        assert!(ran.error().contains(file), "{}", ran.stderr);
        assert!(place.written().is_empty() && ran.stdout.is_empty());
    }
    let place = Place::new(&workflow("a"));
    let path = place.workflow.to_str().unwrap();
    let gone = run(&["graph", "/nonexistent.json", "--plan"]).expect(1);
    assert!(
        gone.error().contains("/nonexistent.json"),
        "{}",
        gone.stderr
    );
    let nowhere = run(&[
        "graph",
        path,
        "--models",
        "/nonexistent",
        "--out-dir",
        "never",
    ]);
    assert!(
        nowhere
            .expect(1)
            .error()
            .contains("no such folder of models")
    );
    run(&["graph", path]).expect(2);
    run(&["graph"]).expect(2);
    run(&["graph", path, "--plan", "--watch"]).expect(2);
}

#[test]
fn a_workflow_that_changes_is_run_again() {
    let place = Place::new(&workflow("a cat"));
    let arguments = place.arguments(&["--watch"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = command(&arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let out = place.path("out/deep/9.positive.safetensors");
    let changed = |before: Option<&[u8]>| {
        let started = Instant::now();
        loop {
            match fs::read(&out) {
                Ok(bytes) if Some(&bytes[..]) != before => return Some(bytes),
                _ if started.elapsed() > Duration::from_secs(100) => return None,
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    };
    let first = changed(None);
    fs::write(&place.workflow, "broken for a moment").unwrap();
    thread::sleep(Duration::from_millis(700));
    fs::write(&place.workflow, workflow("a dog").to_string()).unwrap();
    let second = changed(first.as_deref());
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.is_some() && second.is_some() && running);
}

#[test]
fn values_that_are_not_finite_are_not_written() {
    let cases: [(&str, &[&str]); 2] = [
        ("a (cat:1e39)", &[]),
        ("a (cat:1e7)", &["--out-dtype", "f16"]),
    ];
    for (text, more) in cases {
        let place = Place::new(&workflow(text));
        let ran = place.run(more).expect(1);
        assert!(ran.error().contains("9.positive"), "{ran:#?}");
        assert!(ran.error().contains("`0.hidden_states`"), "{ran:#?}");
        assert!(
            !place
                .written()
                .contains(&"9.positive.safetensors".to_owned())
        );
    }
}

/// A node of a class that is not known, with a picture: what enters it is made, as its error says.
#[test]
fn what_enters_an_unknown_node() {
    let mut json = workflow("a cat");
    json["6"] = json!({"class_type": "LoadImage", "inputs": {"image": "x.png"}});
    json["7"] = json!({"class_type": "ControlNetApplyAdvanced", "inputs": {
        "positive": ["4", 0], "negative": ["5", 0], "image": ["6", 0], "clip": ["1", 0], "strength": 1}});
    json["9"]["inputs"]["positive"] = json!(["7", 0]);
    let place = Place::new(&json);
    let ran = place.run(&[]).expect(1);
    assert!(
        ran.error().contains("ask for what enters"),
        "{}",
        ran.stderr
    );
    place.run(&["--node", "7"]).expect(0);
    assert_eq!(
        place.written(),
        ["7.negative.safetensors", "7.positive.safetensors"]
    );
    // A conditioning that is missing is not passed over.
    json["7"]["inputs"]["negative"] = json!(["77", 0]);
    let ran = Place::new(&json).run(&["--node", "7"]).expect(1);
    assert!(ran.error().contains("node 77"), "{}", ran.stderr);
}

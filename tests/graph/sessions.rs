//! What a session keeps from run to run.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sd_conditioner::graph::{
    Call, Classes, Folder, Inlet, Kind, NodeClass, Plan, Session, Socket, Summary, Value as Given,
};
use sd_conditioner::{Conditioner, ConditioningList, ErrorKind, Profile, Request, Result};
use serde_json::{Value, json};

use super::support::{folder, models, node, simple, with, workflow};
use crate::support::close::{bits, values};
use crate::support::embeddings;
use crate::support::entries::Stored;

pub(super) fn plan(json: &Value) -> Plan {
    let workflow = workflow(json);
    workflow.plan(&workflow.conditionings()).unwrap()
}

pub(super) fn positive(json: &Value) -> ConditioningList {
    let plan = workflow(json)
        .plan(&[Socket::input("9", "positive")])
        .unwrap();
    plan.run(folder()).unwrap().remove(0)
}

fn counts(summary: &Summary) -> (usize, usize, usize) {
    (summary.loaded, summary.encoded, summary.reused)
}

fn again(session: &mut Session<Folder>, json: &Value) -> (usize, usize, usize) {
    counts(&session.run_each(&plan(json), &mut |_, _| Ok(())).unwrap())
}

#[test]
fn only_what_changed_is_encoded_again() {
    let mut session = Session::new(folder());
    let mut json = simple("a cat, (red:1.2)");
    assert_eq!(again(&mut session, &json), (1, 1, 0));
    assert_eq!(again(&mut session, &json), (0, 0, 1));
    // Other white space, the same tokens.
    json["2"]["inputs"]["text"] = json!("a  cat, (red:1.2)");
    assert_eq!(again(&mut session, &json), (0, 0, 1));
    json["2"]["inputs"]["text"] = json!("a cat, (red:1.3)");
    assert_eq!(again(&mut session, &json), (0, 1, 0));
    let skip = json!({"clip": ["1", 1], "stop_at_clip_layer": -2});
    let mut skipped = with(json!({"3": node("CLIPSetLastLayer", skip)}), "2");
    skipped["2"]["inputs"] = json!({"clip": ["3", 0], "text": "a cat, (red:1.3)"});
    assert_eq!(again(&mut session, &skipped), (0, 1, 0));
    assert_eq!(again(&mut session, &json), (0, 0, 1));
    json["1"]["inputs"]["ckpt_name"] = json!("v2-1_768-ema-pruned.safetensors");
    assert_eq!(again(&mut session, &json), (1, 1, 0));
    // The first checkpoint was let go in between; what it made is still there.
    json["1"]["inputs"]["ckpt_name"] = json!("v1-5-pruned-emaonly.safetensors");
    assert_eq!(again(&mut session, &json), (1, 0, 1));
    let mut forgetful = Session::new(folder()).keeping(0);
    assert_eq!(again(&mut forgetful, &json), (1, 1, 0));
    assert_eq!(again(&mut forgetful, &json), (0, 1, 0));
}

#[test]
fn files_that_change_are_read_again() {
    let own = tempfile::tempdir().unwrap();
    let checkpoint = own
        .path()
        .join("checkpoints/v1-5-pruned-emaonly.safetensors");
    fs::create_dir(checkpoint.parent().unwrap()).unwrap();
    let whole = fs::read(models().join("checkpoints/v1-5-pruned-emaonly.safetensors")).unwrap();
    fs::write(&checkpoint, &whole).unwrap();
    let embedding = own.path().join("embeddings/synth-one.safetensors");
    embeddings::write(embedding.parent().unwrap(), Stored::F32);
    let mut session = Session::new(Folder::new(own.path()));
    let json = simple("a embedding:synth-one cat");
    assert_eq!(again(&mut session, &json), (1, 1, 0));
    assert_eq!(again(&mut session, &json), (0, 0, 1));
    fs::copy(
        own.path().join("embeddings/synth-three.safetensors"),
        &embedding,
    )
    .unwrap();
    assert_eq!(again(&mut session, &json), (0, 1, 0));
    // Other weights, other results.
    let mut other = whole;
    let last = other.len() - 4;
    other[last..].copy_from_slice(&0.5_f32.to_le_bytes());
    fs::write(&checkpoint, &other).unwrap();
    assert_eq!(again(&mut session, &json).0, 1);
}

#[test]
fn many_prompts_go_through_in_groups_and_give_what_each_alone_gives() {
    let mut all = simple("start");
    let texts: Vec<String> = (0..40)
        .map(|id| format!("prompt number {id}, (red:1.{id})"))
        .collect();
    let mut wanted = Vec::new();
    for (id, text) in texts.iter().enumerate() {
        all[format!("t{id}")] = node("CLIPTextEncode", json!({"clip": ["1", 1], "text": text}));
        wanted.push(Socket::output(format!("t{id}"), 0));
    }
    let lists = workflow(&all).plan(&wanted).unwrap().run(folder()).unwrap();
    let checkpoint = models().join("checkpoints/v1-5-pruned-emaonly.safetensors");
    let text = Conditioner::open(checkpoint).unwrap();
    for (prompt, list) in texts.iter().zip(&lists) {
        let alone = text
            .encode(Request::new(prompt).profile(Profile::ComfyUi))
            .unwrap();
        let distance = values(list.entries()[0].conditioning().context())
            .iter()
            .zip(values(alone.context()))
            .map(|(one, two)| (one - two).abs())
            .fold(0.0, f64::max);
        assert!(distance < 1e-5, "{prompt}: {distance}");
    }
}

#[test]
fn notes_say_which_node_has_the_prompt() {
    let json = simple("a embedding:not_there cat");
    let summary = Session::new(folder())
        .run_each(&plan(&json), &mut |_, _| Ok(()))
        .unwrap();
    let (node, note) = &summary.notes[0];
    assert_eq!(node, "2");
    assert!(note.contains("not_there"), "{note}");
}

#[test]
fn an_error_of_the_caller_ends_a_run() {
    let plan = plan(&simple("a"));
    let mut seen = 0;
    let ended = Session::new(folder()).run_each(&plan, &mut |_, _| {
        seen += 1;
        Err(sd_conditioner::Error::new(
            sd_conditioner::ErrorKind::Io,
            "no space",
        ))
    });
    assert_eq!((seen, ended.unwrap_err().message()), (1, "no space"));
}

/// The encoders that were loaded stay for the next run.
#[test]
fn encoding_stops_when_the_caller_asks() {
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let folder = folder().stop_when(move || seen.load(Ordering::SeqCst));
    let mut session = Session::new(folder);
    assert_eq!(again(&mut session, &simple("a cat")).0, 1);
    asked.store(true, Ordering::SeqCst);
    let stopped = session.run(&plan(&simple("a dog")));
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
    asked.store(false, Ordering::SeqCst);
    assert_eq!(again(&mut session, &simple("a dog")).0, 0);
}

/// A class of a caller's own that makes something of tensors.
#[derive(Debug)]
struct Reverse;

impl NodeClass for Reverse {
    fn name(&self) -> &'static str {
        "ConditioningReverse"
    }

    fn inlets(&self) -> &[Inlet] {
        const { &[Inlet::required("conditioning", Kind::Conditioning)] }
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Vec<Given>> {
        let of = call.conditioning("conditioning")?;
        let reversed = call.custom("reverse", &[of], |lists| {
            Ok(lists[0].entries().iter().rev().cloned().collect())
        })?;
        Ok(vec![Given::Conditioning(reversed)])
    }
}

#[test]
fn classes_of_a_callers_own_make_what_they_want() {
    let json = with(
        json!({
            "3": node("ConditioningZeroOut", json!({"conditioning": ["2", 0]})),
            "4": node("ConditioningCombine",
                json!({"conditioning_1": ["3", 0], "conditioning_2": ["2", 0]})),
            "5": node("ConditioningReverse", json!({"conditioning": ["4", 0]})),
        }),
        "5",
    );
    let workflow = workflow(&json);
    let wanted = [Socket::input("9", "positive")];
    assert!(workflow.plan(&wanted).is_err());
    let workflow = workflow.with_classes(Classes::comfy_ui().with(Reverse));
    let list = workflow
        .plan(&wanted)
        .unwrap()
        .run(folder())
        .unwrap()
        .remove(0);
    let is_zero = |place: usize| {
        let values = values(list.entries()[place].conditioning().context());
        values.iter().all(|value| *value == 0.0)
    };
    assert!(!is_zero(0) && is_zero(1));
}

/// `a cat` with a LoRA, at a strength.
fn with_lora(name: &str, strength: f64) -> Value {
    let lora = json!({"model": ["1", 0], "clip": ["1", 1], "lora_name": name,
        "strength_model": 1.0, "strength_clip": strength});
    let mut all = with(json!({"3": node("LoraLoader", lora)}), "2");
    all["2"]["inputs"]["clip"] = json!(["3", 1]);
    all
}

#[test]
fn loras_are_part_of_what_encodings_are_known_by() {
    let mut session = Session::new(folder());
    let plain = simple("a cat");
    assert_eq!(again(&mut session, &plain), (1, 1, 0));
    let weak = with_lora("ink_sketch.safetensors", 0.3);
    assert_eq!(again(&mut session, &weak), (1, 1, 0));
    let strong = with_lora("ink_sketch.safetensors", 0.9);
    assert_eq!(again(&mut session, &strong), (1, 1, 0));
    assert_eq!(again(&mut session, &weak), (1, 0, 1));
    assert_eq!(again(&mut session, &plain), (0, 0, 1));
    assert_eq!(again(&mut session, &with_lora("nothing", 0.0)), (0, 0, 1));
    let context = |json: &Value| bits(positive(json).entries()[0].conditioning().context());
    assert!(context(&plain) != context(&weak) && context(&weak) != context(&strong));
}

#[test]
fn loras_that_cannot_be_used_are_named_with_their_node() {
    use sd_conditioner::ErrorKind;
    let run = |name: &str| plan(&with_lora(name, 1.0)).run(folder());
    let missing = run("other.safetensors").unwrap_err();
    assert_eq!((missing.kind(), missing.node()), (ErrorKind::Io, Some("3")));
    assert!(
        missing
            .to_string()
            .contains("there is ink_sketch.safetensors"),
        "{missing}"
    );
}

/// `ComfyUI` puts on what it finds a place for: the modules of SDXL's first encoder fit SD 1.x's.
#[test]
fn loras_of_other_families_are_put_on_as_far_as_they_fit() {
    let context = |json: &Value| bits(positive(json).entries()[0].conditioning().context());
    assert!(context(&with_lora("xl_linocut.safetensors", 1.0)) != context(&simple("a cat")));
}

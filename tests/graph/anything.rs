//! What must hold for any file.

use proptest::prelude::*;
use sd_conditioner::graph::{Socket, Workflow};
use serde_json::{Value, json};

use super::support::{golden, read};

const CLASSES: [&str; 14] = [
    "CheckpointLoaderSimple",
    "LoraLoader",
    "CLIPSetLastLayer",
    "CLIPTextEncode",
    "ConditioningCombine",
    "ConditioningConcat",
    "ConditioningAverage",
    "ConditioningSetArea",
    "ConditioningSetMask",
    "SolidMask",
    "StringConcatenate",
    "KSampler",
    "Reroute",
    "Nonsense",
];

const NAMES: [&str; 16] = [
    "ckpt_name",
    "lora_name",
    "strength_clip",
    "clip",
    "text",
    "conditioning_1",
    "conditioning_2",
    "conditioning_to",
    "conditioning_from",
    "conditioning",
    "stop_at_clip_layer",
    "width",
    "strength",
    "string_a",
    "positive",
    "negative",
];

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0..12_u32, 0..3_u32).prop_map(|(node, slot)| json!([node.to_string(), slot])),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => "[a-z( ):1.2]{0,20}".prop_map(Value::from),
        1 => Just(json!([null, -1])),
        1 => Just(json!({"a": []})),
    ]
}

fn node() -> impl Strategy<Value = Value> {
    let inputs = prop::collection::hash_map(prop::sample::select(NAMES.to_vec()), value(), 0..8);
    (prop::sample::select(CLASSES.to_vec()), inputs)
        .prop_map(|(class, inputs)| json!({"class_type": class, "inputs": inputs}))
}

/// Whatever a plan is asked for, it is one, or an error.
fn plan_everything(workflow: &Workflow) {
    let all = workflow.conditionings();
    let whole = workflow.plan(&all);
    let each: Vec<bool> = all
        .iter()
        .map(|socket| workflow.plan(std::slice::from_ref(socket)).is_ok())
        .collect();
    assert_eq!(whole.is_ok(), each.iter().all(|ok| *ok));
    if let Ok(plan) = whole {
        assert_eq!(plan.n_encodings() == 0, plan.n_windows() == 0);
        assert_eq!(plan.sockets().count(), all.len());
    }
    for id in 0..12 {
        let _ = workflow.plan(&[Socket::output(id.to_string(), 0)]);
        let _ = workflow.sockets_of(&id.to_string());
    }
}

proptest! {
    #[test]
    fn any_graph_has_a_plan_or_an_error(nodes in prop::collection::vec(node(), 1..12)) {
        let nodes = nodes.into_iter().enumerate();
        let json: Value = nodes.map(|(id, node)| (id.to_string(), node)).collect();
        plan_everything(&Workflow::from_json(&json.to_string()).unwrap());
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        if let Ok(workflow) = Workflow::from_json(&text) {
            plan_everything(&workflow);
        }
    }

    #[test]
    fn any_bytes_behind_a_pngs_signature_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let picture = [b"\x89PNG\r\n\x1a\n", &bytes[..]].concat();
        prop_assert!(Workflow::from_bytes(&picture).is_err());
    }

    #[test]
    fn stored_files_with_a_byte_changed(place in 0..13_000_usize, byte in any::<u8>()) {
        let name = "12_sdxl_dual_clip_lora_ui.json";
        let mut bytes = std::fs::read(golden().join(name)).unwrap();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(workflow) = Workflow::from_bytes(&bytes) {
            plan_everything(&workflow);
        }
    }

    #[test]
    fn stored_files_with_a_part_removed(place in 0..400_usize) {
        for name in ["12_sdxl_dual_clip_lora_ui", "03_sd1_areas_combine"] {
            let mut json = read(&format!("{name}.json"));
            let mut left = place;
            remove(&mut json, &mut left);
            if let Ok(workflow) = Workflow::from_json(&json.to_string()) {
                plan_everything(&workflow);
            }
        }
    }
}

/// Replaces the value of this number by `null`.
fn remove(json: &mut Value, left: &mut usize) {
    let values: Vec<&mut Value> = match json {
        Value::Array(values) => values.iter_mut().collect(),
        Value::Object(values) => values.values_mut().collect(),
        _ => return,
    };
    for value in values {
        if *left == 0 {
            *value = Value::Null;
        }
        *left = left.wrapping_sub(1);
        remove(value, left);
    }
}

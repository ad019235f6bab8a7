//! Workflows with mistakes: each a clear error that names the node.

use sd_conditioner::ErrorKind;
use sd_conditioner::graph::{Folder, Socket, Workflow};
use serde_json::{Value, json};

use super::support::{folder, models, node, simple, with, workflow};

/// What is no workflow at all.
#[test]
fn files_that_are_no_workflow() {
    let deep = "[".repeat(100_000);
    for (json, part) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("null", "no workflow"),
        ("[1, 2]", "no workflow"),
        ("{}", "no workflow"),
        (r#"{"a": 1}"#, "no workflow"),
        (r#"{"prompt": {}}"#, "no workflow"),
        (r#"{"nodes": 5}"#, "`nodes` is not a list"),
        (r#"{"nodes": [], "links": {}}"#, "`links` is not a list"),
        (r#"{"nodes": [{"type": "KSampler"}]}"#, "without an id"),
        (r#"{"nodes": [{"id": 1}]}"#, "no `type`"),
        (
            r#"{"nodes": [{"id": 1, "type": "X", "inputs": 3}]}"#,
            "`inputs` is not a list",
        ),
        (
            r#"{"nodes": [], "links": [[1, 2]]}"#,
            "a link of another form",
        ),
        (r#"{"nodes": [], "links": [7]}"#, "a link of another form"),
        (
            r#"{"nodes": [], "links": [[-1, 2, 0, 3, 0, "X"]]}"#,
            "a link of another form",
        ),
        (
            r#"{"nodes": [{"id": 1, "type": "X"}, {"id": "1", "type": "Y"}]}"#,
            "another node has this id",
        ),
        (r#"{"1": {"class_type": "X"}, "2": {}}"#, "no `class_type`"),
        (
            r#"{"1": {"class_type": "X", "inputs": []}}"#,
            "`inputs` is not an object",
        ),
        (&deep, "nested too deep"),
        (
            r#"{"1": {"class_type": "X", "inputs": {"a": 1e999}}}"#,
            "not JSON",
        ),
    ] {
        let error = Workflow::from_json(json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Workflow, "{error}");
        assert!(error.message().contains(part), "{json:.60}: {error}");
    }
    assert!(Workflow::from_bytes(b"\xff\xfe\x00").is_err());
    let marked = format!("\u{feff}{}", simple("a"));
    assert_eq!(Workflow::from_bytes(marked.as_bytes()).unwrap().len(), 3);
    assert_eq!(Workflow::from_json(&marked).unwrap().len(), 3);
}

/// A workflow with a mistake, the node that is named, and a part of the message.
type Mistake = (Value, &'static str, &'static str);

/// `a cat` with one input changed.
fn change(node: &str, input: &str, value: Value) -> Value {
    let mut all = simple("a cat");
    all[node]["inputs"][input] = value;
    all
}

fn without(node: &str, input: &str) -> Value {
    let mut all = simple("a cat");
    all[node]["inputs"].as_object_mut().unwrap().remove(input);
    all
}

/// One more node, whose output is the sampler's positive.
fn one(class: &str, inputs: Value) -> Value {
    with(json!({"3": node(class, inputs)}), "3")
}

fn area(width: &Value) -> Value {
    let inputs = json!({
        "conditioning": ["2", 0], "width": width, "height": 64, "x": 0, "y": 0, "strength": 1,
    });
    one("ConditioningSetArea", inputs)
}

fn inputs_and_links() -> Vec<Mistake> {
    let positive = |value: Value| change("9", "positive", value);
    vec![
        (
            without("9", "positive"),
            "9",
            "input `positive` of KSampler has no value",
        ),
        (
            without("2", "clip"),
            "2",
            "input `clip` of CLIPTextEncode has no value",
        ),
        (without("2", "text"), "2", "input `text`"),
        (without("1", "ckpt_name"), "1", "input `ckpt_name`"),
        (
            positive(json!("text")),
            "9",
            "`positive` of KSampler is a value",
        ),
        (
            positive(json!(["1", 0])),
            "9",
            "9.positive: MODEL where CONDITIONING",
        ),
        (
            positive(json!(["7", 0])),
            "9",
            "linked to node 7, which is not there",
        ),
        (positive(json!(["2", 5])), "2", "no output 5"),
        (positive(json!(["9", 0])), "9", "LATENT where CONDITIONING"),
        (
            change("2", "clip", json!(["1", 0])),
            "2",
            "MODEL where CLIP is needed (from output 0",
        ),
        (
            change("2", "clip", json!(["2", 0])),
            "2",
            "CLIPTextEncode needs itself",
        ),
        (
            change("1", "ckpt_name", json!(["2", 0])),
            "2",
            "needs itself",
        ),
    ]
}

fn values_of_the_wrong_kind() -> Vec<Mistake> {
    let text = |value: Value| change("2", "text", value);
    vec![
        (
            change("2", "clip", json!(3)),
            "2",
            "INT where CLIP is needed",
        ),
        (text(json!(["1", 1])), "2", "CLIP where STRING is needed"),
        (text(json!([1, 2, 3])), "2", "a list where STRING is needed"),
        (
            text(json!({"x": 1})),
            "2",
            "an object where STRING is needed",
        ),
        (text(Value::Null), "2", "null where STRING is needed"),
        (
            text(json!("x".repeat(2 << 20))),
            "2",
            "a text of 2097152 bytes",
        ),
        (
            text(json!("cat ".repeat(200_000))),
            "2",
            "windows are the most",
        ),
        (area(&json!(-64)), "3", "input `width` is -64"),
        (
            area(&json!("wide")),
            "3",
            "STRING \"wide\" where INT is needed",
        ),
        (area(&json!(1e12)), "3", "input `width` is 1000000000000"),
    ]
}

fn values_that_a_class_refuses() -> Vec<Mistake> {
    let solid = |width: u32, height: u32| {
        one(
            "SolidMask",
            json!({"value": 1, "width": width, "height": height}),
        )
    };
    let skip = json!({"clip": ["1", 1], "stop_at_clip_layer": 1});
    let dual = json!({"clip_name1": "a", "clip_name2": "b", "type": "flux"});
    let config = json!({"config_name": "my.yaml", "ckpt_name": "a"});
    let method = json!({
        "clip": ["1", 1], "text": "a", "token_normalization": "max", "weight_interpretation": "comfy",
    });
    vec![
        (
            one("CLIPSetLastLayer", skip),
            "3",
            "`stop_at_clip_layer` is 1",
        ),
        (one("DualCLIPLoader", dual), "3", "of type \"flux\""),
        (
            one("CLIPLoader", json!({"clip_name": "a", "type": "sd3"})),
            "3",
            "of type \"sd3\"",
        ),
        (
            one("CheckpointLoader", config),
            "3",
            "none of ComfyUI's own",
        ),
        (
            one("BNK_CLIPTextEncodeAdvanced", method),
            "3",
            "no method with normalization \"max\"",
        ),
        (solid(0, 8), "3", "a mask of 0x8"),
        (solid(16384, 16384), "3", "a mask of 16384x16384"),
    ]
}

#[test]
fn mistakes_are_named_with_their_node() {
    let all = [
        inputs_and_links(),
        values_of_the_wrong_kind(),
        values_that_a_class_refuses(),
    ];
    for (json, node, part) in all.concat() {
        let workflow = workflow(&json);
        let error = workflow
            .plan(&[Socket::input("9", "positive")])
            .unwrap_err();
        assert!(error.message().contains(part), "{part}: {error}");
        assert_eq!(error.node(), Some(node), "{error}");
    }
    let workflow = workflow(&simple("a"));
    for socket in [Socket::input("8", "positive"), Socket::output("8", 0)] {
        let error = workflow.plan(&[socket]).unwrap_err();
        assert_eq!(
            (error.node(), error.message()),
            (Some("8"), "there is no such node")
        );
    }
    let error = workflow.plan(&[Socket::input("9", "other")]).unwrap_err();
    assert!(error.message().contains("`other`"), "{error}");
}

#[test]
fn missing_files_are_named_all_at_once() {
    let mut all = with(
        json!({
            "3": node("CheckpointLoaderSimple", json!({"ckpt_name": "sub\\other.safetensors"})),
            "4": node("CLIPTextEncode", json!({"clip": ["3", 1], "text": "a"})),
            "5": node("CLIPLoader", json!({"clip_name": "nothing.safetensors"})),
            "6": node("CLIPTextEncode", json!({"clip": ["5", 0], "text": "a"})),
            "7": node("ConditioningCombine",
                json!({"conditioning_1": ["4", 0], "conditioning_2": ["6", 0]})),
        }),
        "7",
    );
    let workflow_of = |json: &Value| workflow(json);
    let workflow = workflow_of(&all);
    let plan = workflow.plan(&workflow.conditionings()).unwrap();
    let error = plan.run(folder()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    for part in [
        "no text_encoders/nothing.safetensors",
        "node 3: no checkpoints/sub\\other.safetensors",
        models().to_str().unwrap(),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(error.node(), Some("5"));
    // One alone says what there is instead.
    let one = plan_of(&workflow, "4").run(folder()).unwrap_err();
    assert!(
        one.to_string()
            .contains("there is sd_xl_base_1.0.safetensors"),
        "{one}"
    );
    let none = plan_of(&workflow, "4")
        .run(Folder::new("/nonexistent"))
        .unwrap_err();
    assert!(
        none.to_string().contains("there is nothing in checkpoints"),
        "{none}"
    );
    all["3"]["inputs"]["ckpt_name"] = json!("../loras/x.safetensors");
    let out = plan_of(&workflow_of(&all), "4").run(folder()).unwrap_err();
    assert!(out.message().contains("leads out of its folder"), "{out}");
}

fn plan_of(workflow: &Workflow, node: &str) -> sd_conditioner::graph::Plan {
    workflow.plan(&[Socket::output(node, 0)]).unwrap()
}

#[test]
fn what_only_the_files_tell_is_named_with_its_node() {
    let wrong = tempfile::tempdir().unwrap();
    std::fs::create_dir(wrong.path().join("checkpoints")).unwrap();
    let path = wrong
        .path()
        .join("checkpoints/v1-5-pruned-emaonly.safetensors");
    std::fs::write(path, "no checkpoint").unwrap();
    let error = plan_of(&workflow(&simple("a")), "2")
        .run(Folder::new(wrong.path()))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.node()),
        (ErrorKind::FileFormat, Some("1"))
    );
    let sizes = json!({
        "clip": ["1", 1], "text_l": "a", "text_g": "b", "width": 8, "height": 8, "crop_w": 0,
        "crop_h": 0, "target_width": 8, "target_height": 8,
    });
    let two_texts = with(json!({"3": node("CLIPTextEncodeSDXL", sizes)}), "3");
    let error = plan_of(&workflow(&two_texts), "3")
        .run(folder())
        .unwrap_err();
    assert!(error.message().contains("two texts for sd1"), "{error}");
    assert_eq!(error.node(), Some("3"));
    let mixed = with(
        json!({
            "3": node("CheckpointLoaderSimple", json!({"ckpt_name": "sd_xl_base_1.0.safetensors"})),
            "4": node("CLIPTextEncode", json!({"clip": ["3", 1], "text": "a"})),
            "5": node("ConditioningConcat",
                json!({"conditioning_to": ["4", 0], "conditioning_from": ["2", 0]})),
        }),
        "5",
    );
    let error = plan_of(&workflow(&mixed), "5").run(folder()).unwrap_err();
    assert_eq!(
        (error.kind(), error.node()),
        (ErrorKind::Mismatch, Some("5"))
    );
}

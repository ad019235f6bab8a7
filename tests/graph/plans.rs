//! What plans say before anything is read.

use sd_conditioner::ErrorKind;
use sd_conditioner::graph::{Need, Place, Session, Socket, Subfolder, Workflow};
use serde_json::json;

use super::support::{folder, node, read, simple, with, workflow};

#[test]
fn plans_name_what_they_need() {
    let cases = [
        (
            "01_sd1_text_to_image",
            2,
            2,
            "checkpoints/v1-5-pruned-emaonly.safetensors",
        ),
        (
            "03_sd1_areas_combine",
            4,
            5,
            "checkpoints/v1-5-pruned-emaonly.safetensors",
        ),
        (
            "02_sd1_lora_clip_skip",
            2,
            3,
            "checkpoints/v1-5-pruned-emaonly.safetensors loras/ink_sketch.safetensors",
        ),
        // The checkpoint's CLIP is not used.
        (
            "09_sd2_clip_loader",
            3,
            4,
            "text_encoders/clip_h.safetensors",
        ),
        (
            "06_sd1_embeddings_long_prompt",
            2,
            4,
            "checkpoints/v1-5-pruned-emaonly.safetensors embeddings/grainy_film \
             embeddings/missing_one embeddings/old_poster embeddings/old_poster.safetensors",
        ),
        (
            "10_sdxl_size_conditioning",
            2,
            4,
            "checkpoints/sd_xl_base_1.0.safetensors",
        ),
        (
            "12_sdxl_dual_clip_lora_ui",
            2,
            2,
            "text_encoders/clip_g.safetensors text_encoders/clip_l.safetensors \
             loras/xl_linocut.safetensors",
        ),
    ];
    for (name, encodings, windows, needs) in cases {
        let workflow = workflow(&read(&format!("{name}.json")));
        let plan = workflow.plan(&workflow.conditionings()).unwrap();
        let found: Vec<String> = plan.needs().map(Need::to_string).collect();
        assert_eq!(found.join(" "), needs, "{name}");
        let counted = (plan.n_encodings(), plan.n_windows());
        assert_eq!(counted, (encodings, windows), "{name}");
    }
}

#[test]
fn equal_parts_of_a_graph_are_one() {
    let mut all = simple("a cat");
    let nodes = all.as_object_mut().unwrap();
    for id in 10..60 {
        let loader = json!({"ckpt_name": "v1-5-pruned-emaonly.safetensors"});
        nodes.insert(format!("{id}0"), node("CheckpointLoaderSimple", loader));
        let encode = json!({"clip": [format!("{id}0"), 1], "text": "a cat"});
        nodes.insert(format!("{id}1"), node("CLIPTextEncode", encode));
        let sampler = json!({"positive": [format!("{id}1"), 0], "negative": ["2", 0]});
        nodes.insert(format!("{id}2"), node("KSampler", sampler));
    }
    let workflow = workflow(&all);
    let wanted = workflow.conditionings();
    assert_eq!(wanted.len(), 102);
    let plan = workflow.plan(&wanted).unwrap();
    assert_eq!((plan.n_encodings(), plan.n_windows()), (1, 1));
    let mut session = Session::new(folder());
    let summary = session.run_each(&plan, &mut |_, _| Ok(())).unwrap();
    assert_eq!((summary.loaded, summary.encoded, summary.reused), (1, 1, 0));
}

#[test]
fn unknown_nodes_are_named_all_at_once_before_anything_is_read() {
    let all = with(
        json!({
            "3": node("Sharpen", json!({"conditioning": ["4", 0]})),
            "4": node("ConditioningZeroOut", json!({"conditioning": ["5", 0]})),
            "5": node("Soften", json!({"conditioning": ["2", 0], "text": ["6", 0]})),
            "6": node("Wildcards", json!({"text": "x"})),
            "7": node("Elsewhere", json!({"conditioning": ["2", 0]})),
        }),
        "3",
    );
    let workflow = workflow(&all);
    let error = workflow.plan(&workflow.conditionings()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedNode);
    for part in ["3 (Sharpen)", "5 (Soften)", "6 (Wildcards)"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert!(!error.message().contains("Elsewhere"), "{error}");
    // What does not come through them can be had, and so can what enters them.
    let negative = [Socket::input("9", "negative")];
    assert!(workflow.plan(&negative).is_ok());
    let into = workflow.sockets_of("7").unwrap();
    assert_eq!(into, [Socket::input("7", "conditioning")]);
    assert_eq!(workflow.plan(&into).unwrap().n_encodings(), 1);
}

#[test]
fn unknown_nodes_that_text_does_not_come_through_do_not_matter() {
    let all = with(
        json!({
            "3": node("ModelPatcher", json!({"model": ["1", 0]})),
            "4": node("LoraLoader", json!({
                "model": ["3", 0], "clip": ["1", 1],
                "lora_name": "x", "strength_model": 1.0, "strength_clip": 0,
            })),
            "5": node("CLIPTextEncode", json!({"clip": ["4", 1], "text": "a cat"})),
        }),
        "5",
    );
    let workflow = workflow(&all);
    let plan = workflow.plan(&workflow.conditionings()).unwrap();
    // A LoRA of strength 0 is none.
    assert_eq!((plan.n_encodings(), plan.loras().len()), (1, 0));
}

#[test]
fn sockets_of_samplers_and_others() {
    let all = with(
        json!({
            "3": node("BasicGuider", json!({"conditioning": ["2", 0], "model": ["1", 0]})),
            "4": node("CFGGuider", json!({"positive": ["2", 0], "negative": ["2", 0]})),
            "5": node("SamplerCustom", json!({"positive": ["2", 0], "negative": ["2", 0]})),
            "6": node("KSamplerAdvanced", json!({"positive": ["2", 0], "negative": ["2", 0]})),
            "10": node("Unknown", json!({"seed": 1})),
        }),
        "2",
    );
    let workflow = workflow(&all);
    let names: Vec<String> = workflow
        .conditionings()
        .iter()
        .map(Socket::to_string)
        .collect();
    let want = "3.conditioning 4.positive 4.negative 5.positive 5.negative 6.positive 6.negative \
                9.positive 9.negative";
    assert_eq!(names.join(" "), want);
    let encode = workflow.sockets_of("2").unwrap();
    assert_eq!(encode, [Socket::output("2", 0)]);
    assert_eq!(encode[0].place, Place::Output(0));
    assert_eq!(workflow.plan(&encode).unwrap().n_encodings(), 1);
    for (node, part) in [("77", "no such node"), ("10", "no input that is linked")] {
        let error = workflow.sockets_of(node).unwrap_err();
        assert!(error.message().contains(part), "{error}");
        assert_eq!(error.node(), Some(node));
    }
    let model = workflow.sockets_of("1").unwrap();
    let error = workflow.plan(&model).unwrap_err();
    assert!(error.message().contains("MODEL"), "{error}");
}

#[test]
fn texts_and_numbers_are_worked_out() {
    let all = with(
        json!({
            "3": node("PrimitiveString", json!({"value": " \u{1c}a cat\u{1f} "})),
            "4": node("StringTrim", json!({"string": ["3", 0], "mode": "Both"})),
            "5": node("StringReplace", json!({"string": ["4", 0], "find": "cat", "replace": "dog"})),
            "6": node("StringSubstring", json!({"string": "with a hat", "start": 5, "end": -1})),
            "7": node("StringConcatenate",
                json!({"string_a": ["5", 0], "string_b": ["6", 0], "delimiter": ", "})),
            "8": node("CLIPTextEncode", json!({"clip": ["1", 1], "text": ["7", 0]})),
            "20": node("CLIPTextEncode", json!({"clip": ["1", 1], "text": "a dog, a ha"})),
            "21": node("PrimitiveInt", json!({"value": "64"})),
            "22": node("PrimitiveFloat", json!({"value": 1})),
            "23": node("ConditioningSetArea", json!({
                "conditioning": ["8", 0], "width": ["21", 0], "height": 64.7, "x": 0, "y": 0,
                "strength": ["22", 0],
            })),
            "24": node("ConditioningSetArea", json!({
                "conditioning": ["20", 0], "width": 64, "height": 64, "x": 0, "y": 0,
                "strength": 1.0,
            })),
            "25": node("ConditioningCombine",
                json!({"conditioning_1": ["23", 0], "conditioning_2": ["24", 0]})),
        }),
        "25",
    );
    let workflow = workflow(&all);
    let plan = workflow.plan(&[Socket::input("9", "positive")]).unwrap();
    assert_eq!(plan.n_encodings(), 1);
    let list = plan.run(folder()).unwrap().remove(0);
    assert_eq!(list.len(), 2);
    assert_eq!(list.entries()[0].area(), list.entries()[1].area());
}

#[test]
fn needs_are_shown_with_their_folder() {
    let need = |subfolder, name: &str| Need {
        subfolder,
        name: name.to_owned(),
    };
    let shown = need(Subfolder::TextEncoders, "sub/clip_l.safetensors").to_string();
    assert_eq!(shown, "text_encoders/sub/clip_l.safetensors");
    assert_eq!(need(Subfolder::Diffusers, "x").to_string(), "diffusers/x");
}

#[test]
fn what_is_sent_to_the_server_is_read_too() {
    let sent = json!({"client_id": "x", "prompt": simple("a cat"), "extra_data": {}});
    let plan = |workflow: &Workflow| {
        workflow
            .plan(&workflow.conditionings())
            .unwrap()
            .n_encodings()
    };
    assert_eq!(plan(&workflow(&sent)), 1);
    let mut rerouted = simple("a cat");
    rerouted["5"] = node("Reroute", json!({"": ["2", 0]}));
    rerouted["9"]["inputs"]["positive"] = json!(["5", 0]);
    assert_eq!(plan(&workflow(&rerouted)), 1);
}

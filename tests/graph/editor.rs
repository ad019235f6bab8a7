//! The editor's format: what is drawn, and what it means.

use sd_conditioner::graph::{Classes, Session, Socket, Value as Given, Workflow};
use serde_json::{Value, json};

use super::support::{folder, read, simple, workflow};
use crate::support::close::bits;

const CHECKPOINT: &str = "v1-5-pruned-emaonly.safetensors";

fn drawn(id: u32, class: &str, inputs: Value, outputs: &[&str], widgets: Value) -> Value {
    let outputs = outputs.iter();
    let outputs: Vec<Value> = outputs
        .map(|kind| json!({"name": kind, "type": kind}))
        .collect();
    let mut node = json!({"id": id, "type": class, "outputs": outputs});
    node["inputs"] = inputs;
    node["widgets_values"] = widgets;
    node
}

fn input(name: &str, kind: &str, link: u32) -> Value {
    json!({"name": name, "type": kind, "link": link})
}

/// Loader 1, prompt 2 and sampler 9, linked by 1 to 3; more nodes, and more links that may replace
/// these.
fn file(nodes: Vec<Value>, links: Vec<Value>) -> Value {
    let mut all = vec![
        drawn(
            1,
            "CheckpointLoaderSimple",
            json!([]),
            &["MODEL", "CLIP", "VAE"],
            json!([CHECKPOINT]),
        ),
        drawn(
            2,
            "CLIPTextEncode",
            json!([input("clip", "CLIP", 1)]),
            &["CONDITIONING"],
            json!(["a cat"]),
        ),
        drawn(
            9,
            "KSampler",
            json!([
                input("positive", "CONDITIONING", 2),
                input("negative", "CONDITIONING", 3)
            ]),
            &["LATENT"],
            json!([1, "fixed", 20, 7.5, "euler", "normal", 1.0]),
        ),
    ];
    for node in nodes {
        all.retain(|other| other["id"] != node["id"]);
        all.push(node);
    }
    let mut joined = vec![
        json!([1, 1, 1, 2, 0, "CLIP"]),
        json!([2, 2, 0, 9, 0, "CONDITIONING"]),
        json!([3, 2, 0, 9, 1, "CONDITIONING"]),
    ];
    for link in links {
        joined.retain(|other| other[0] != link[0]);
        joined.push(link);
    }
    json!({"nodes": all, "links": joined, "groups": [{"title": "a group"}], "version": 0.4})
}

fn positive(workflow: &Workflow) -> Vec<u32> {
    let plan = workflow.plan(&[Socket::input("9", "positive")]).unwrap();
    let list = plan.run(folder()).unwrap().remove(0);
    bits(list.entries()[0].conditioning().context())
}

/// The positive of an editor's file is that of one prompt.
#[track_caller]
fn means(file: &Value, text: &str) {
    let want = positive(&workflow(&simple(text)));
    assert!(positive(&workflow(file)) == want, "not {text:?}");
}

fn wrong(file: &Value) -> String {
    let workflow = workflow(file);
    let error = workflow
        .plan(&[Socket::input("9", "positive")])
        .unwrap_err();
    error.to_string()
}

#[test]
fn a_plain_file() {
    means(&file(vec![], vec![]), "a cat");
    means(&file(vec![], vec![Value::Null]), "a cat");
}

#[test]
fn reroutes_notes_and_links_as_objects() {
    let reroute = |id, link| {
        drawn(
            id,
            "Reroute",
            json!([input("", "*", link)]),
            &["CONDITIONING"],
            json!([]),
        )
    };
    let note = drawn(5, "Note", json!([]), &[], json!(["a note"]));
    let links = vec![
        json!([2, 4, 0, 9, 0, "*"]),
        json!({"id": 4, "origin_id": 3, "origin_slot": 0, "target_id": 4, "target_slot": 0, "type": "*"}),
        json!([5, 2, 0, 3, 0, "*"]),
    ];
    means(
        &file(vec![reroute(3, 5), reroute(4, 4), note], links),
        "a cat",
    );
}

#[test]
fn primitives_and_widgets_as_inputs() {
    let mut encode = drawn(
        2,
        "CLIPTextEncode",
        json!([input("clip", "CLIP", 1), input("text", "STRING", 4)]),
        &["CONDITIONING"],
        json!(["not this"]),
    );
    encode["inputs"][1]["widget"] = json!({"name": "text"});
    let primitive = drawn(
        3,
        "PrimitiveNode",
        json!([]),
        &["STRING"],
        json!(["a dog", "fixed"]),
    );
    let link = json!([4, 3, 0, 2, 1, "STRING"]);
    means(&file(vec![encode.clone(), primitive], vec![link]), "a dog");
    encode["inputs"][1]["link"] = Value::Null;
    means(&file(vec![encode.clone()], vec![]), "not this");
    encode["widgets_values"] = json!({"text": "by name"});
    means(&file(vec![encode], vec![]), "by name");
}

#[test]
fn bypassed_nodes_hand_on_the_input_of_their_type() {
    let mut set = drawn(
        3,
        "ConditioningConcat",
        json!([
            input("other", "STRING", 77),
            input("conditioning_to", "CONDITIONING", 4),
            input("conditioning_from", "CONDITIONING", 5)
        ]),
        &["CONDITIONING"],
        json!([]),
    );
    let second = drawn(
        4,
        "CLIPTextEncode",
        json!([input("clip", "CLIP", 6)]),
        &["CONDITIONING"],
        json!(["a dog"]),
    );
    let links = vec![
        json!([2, 3, 0, 9, 0, "CONDITIONING"]),
        json!([4, 2, 0, 3, 1, "CONDITIONING"]),
        json!([5, 4, 0, 3, 2, "CONDITIONING"]),
        json!([6, 1, 1, 4, 0, "CLIP"]),
    ];
    set["mode"] = json!(4);
    means(
        &file(vec![set.clone(), second.clone()], links.clone()),
        "a cat",
    );
    // An input at the output's own place goes before the others.
    set["inputs"].as_array_mut().unwrap().remove(0);
    set["inputs"].as_array_mut().unwrap().reverse();
    means(
        &file(vec![set.clone(), second.clone()], links.clone()),
        "a dog",
    );
    set["outputs"][0]["type"] = json!("MASK");
    let error = wrong(&file(vec![set.clone(), second.clone()], links.clone()));
    assert!(
        error.contains("node 3") && error.contains("bypassed"),
        "{error}"
    );
    set["mode"] = json!(2);
    let error = wrong(&file(vec![set, second], links));
    assert!(error.contains("node 3, which is muted"), "{error}");
}

#[test]
fn values_are_set_and_fetched_by_name() {
    let set = drawn(
        3,
        "SetNode",
        json!([input("CONDITIONING", "*", 4)]),
        &["*"],
        json!(["my text"]),
    );
    let get = drawn(4, "GetNode", json!([]), &["*"], json!(["my text"]));
    let links = vec![
        json!([2, 4, 0, 9, 0, "CONDITIONING"]),
        json!([4, 2, 0, 3, 0, "CONDITIONING"]),
    ];
    means(&file(vec![set, get.clone()], links.clone()), "a cat");
    let error = wrong(&file(vec![get], links));
    assert!(error.contains("no SetNode \"my text\""), "{error}");
}

/// A subgraph that encodes a text with the CLIP that enters it.
fn with_subgraph(text: Value, widgets: Value) -> Value {
    let mut inner = drawn(
        5,
        "CLIPTextEncode",
        json!([input("clip", "CLIP", 1), input("text", "STRING", 2)]),
        &["CONDITIONING"],
        json!(["the inner text"]),
    );
    inner["inputs"][1]["widget"] = json!({"name": "text"});
    let instance = drawn(
        2,
        "3c5e4a10-uuid",
        Value::from(vec![input("clip", "CLIP", 1), text]),
        &["CONDITIONING"],
        widgets,
    );
    let mut whole = file(vec![instance], vec![]);
    let slot = |name: &str, kind: &str| json!({"id": name, "name": name, "type": kind});
    let link = |id: u32, from: Value, from_slot: u32, to: Value, to_slot: u32| {
        json!({"id": id, "origin_id": from, "origin_slot": from_slot, "target_id": to,
            "target_slot": to_slot, "type": "*"})
    };
    whole["definitions"] = json!({"subgraphs": [{
        "id": "3c5e4a10-uuid",
        "name": "Encode",
        "inputs": [slot("clip", "CLIP"), slot("text", "STRING")],
        "outputs": [slot("CONDITIONING", "CONDITIONING")],
        "nodes": [inner],
        "links": [
            link(1, json!(-10), 0, json!(5), 0),
            link(2, json!(-10), 1, json!(5), 1),
            link(3, json!(5), 0, json!(-20), 0),
        ],
    }]});
    whole
}

#[test]
fn subgraphs_are_unfolded() {
    let unlinked =
        json!({"name": "text", "type": "STRING", "link": null, "widget": {"name": "text"}});
    means(
        &with_subgraph(unlinked.clone(), json!(["promoted"])),
        "promoted",
    );
    means(&with_subgraph(unlinked, json!([])), "the inner text");
    let mut linked = with_subgraph(input("text", "STRING", 8), json!([]));
    let primitive = drawn(
        7,
        "PrimitiveNode",
        json!([]),
        &["STRING"],
        json!(["from outside"]),
    );
    linked["nodes"].as_array_mut().unwrap().push(primitive);
    linked["links"]
        .as_array_mut()
        .unwrap()
        .push(json!([8, 7, 0, 2, 1, "STRING"]));
    means(&linked, "from outside");
    let workflow = workflow(&linked);
    let inner = workflow.sockets_of("2:5").unwrap();
    assert_eq!(inner, [Socket::output("2:5", 0)]);
    assert_eq!(workflow.plan(&inner).unwrap().n_encodings(), 1);
    for (mode, part) in [(2, "muted"), (4, "bypassed")] {
        linked["nodes"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(|node| {
                if node["id"] == 2 {
                    node["mode"] = json!(mode);
                }
            });
        let error = wrong(&linked);
        assert!(error.contains(part), "{error}");
    }
}

/// The stored editor files become the reference's own API files, as far as plans tell.
#[test]
fn stored_files_need_what_their_api_form_needs() {
    let manifest = read("manifest.json");
    let mut compared = 0;
    for case in manifest["workflows"].as_array().unwrap() {
        let Some(api) = case.get("api") else {
            continue;
        };
        let [one, two] = [&read(case["file"].as_str().unwrap()), api].map(|file| {
            let workflow = workflow(file);
            let mut sockets = workflow.conditionings();
            sockets.sort();
            let plan = workflow.plan(&sockets).unwrap();
            let needs: Vec<String> = plan.needs().map(ToString::to_string).collect();
            (sockets, needs, plan.n_encodings(), plan.n_windows())
        });
        assert_eq!(one, two);
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn classes_of_a_callers_own_may_have_widgets() {
    use sd_conditioner::Result;
    use sd_conditioner::graph::{Call, Inlet, Kind, NodeClass};

    #[derive(Debug)]
    struct Shout;

    impl NodeClass for Shout {
        fn name(&self) -> &'static str {
            "Shout"
        }
        fn inlets(&self) -> &[Inlet] {
            const { &[Inlet::required("text", Kind::Text)] }
        }
        fn widgets(&self) -> &[&str] {
            &["", "text"]
        }
        fn evaluate(&self, call: &mut Call<'_>) -> Result<Vec<Given>> {
            Ok(vec![Given::text(format!("{}!", call.text("text")?))])
        }
    }

    let mut encode = drawn(
        2,
        "CLIPTextEncode",
        json!([input("clip", "CLIP", 1), input("text", "STRING", 4)]),
        &["CONDITIONING"],
        json!([""]),
    );
    encode["inputs"][1]["widget"] = json!({"name": "text"});
    let shout = drawn(3, "Shout", json!([]), &["STRING"], json!([17, "a cat"]));
    let json = file(vec![encode, shout], vec![json!([4, 3, 0, 2, 1, "STRING"])]);
    let workflow = workflow(&json).with_classes(Classes::comfy_ui().with(Shout));
    let want = positive(&super::support::workflow(&simple("a cat!")));
    assert!(positive(&workflow) == want);
    assert!(Classes::comfy_ui().names().count() >= 35);
}

/// Prompts are sent without comments and with one of each `{one|other}`, whether typed in the node or in a
/// primitive; made texts and the API format are as they are.
#[test]
fn typed_prompts_are_read_as_they_are_sent() {
    let typed = |text: &str| {
        let encode = drawn(
            2,
            "CLIPTextEncode",
            json!([input("clip", "CLIP", 1)]),
            &["CONDITIONING"],
            json!([text]),
        );
        file(vec![encode], vec![])
    };
    means(&typed("a {{cat}} // no dog\n/* none */"), "a cat \n");
    means(&typed("a {red|blue} cat"), "a red cat");
    means(&typed("a \\{cat\\}"), "a {cat}");
    let of = |class: &str| {
        let mut encode = drawn(
            2,
            "CLIPTextEncode",
            json!([input("clip", "CLIP", 1), input("text", "STRING", 4)]),
            &["CONDITIONING"],
            json!(["not this"]),
        );
        encode["inputs"][1]["widget"] = json!({"name": "text"});
        let giver = drawn(3, class, json!([]), &["STRING"], json!(["a {cat}"]));
        file(vec![encode, giver], vec![json!([4, 3, 0, 2, 1, "STRING"])])
    };
    means(&of("PrimitiveNode"), "a cat");
    means(&of("PrimitiveString"), "a {cat}");
    let workflow = workflow(&typed("a {red|blue} cat"));
    let plan = workflow.plan(&[Socket::input("9", "positive")]).unwrap();
    let mut session = Session::new(folder());
    let summary = session.run_each(&plan, &mut |_, _| Ok(())).unwrap();
    let (node, note) = &summary.notes[0];
    assert!(node == "2" && note.contains("draws lots"), "{note}");
}

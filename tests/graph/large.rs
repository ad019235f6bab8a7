//! Large files, files that want too much, and circles.

use std::time::{Duration, Instant};

use sd_conditioner::graph::{Session, Socket};
use serde_json::{Map, Value, json};

use super::support::{folder, node, with, workflow};
use crate::support::close::values;

#[test]
fn circles_are_named() {
    let ring = |length: u32| {
        let mut nodes = Map::new();
        for id in 0..length {
            let from = format!("r{}", (id + 1) % length);
            let inputs = json!({"conditioning": [from, 0]});
            nodes.insert(format!("r{id}"), node("ConditioningZeroOut", inputs));
        }
        with(Value::Object(nodes), "r0")
    };
    let workflow_of = |json: &Value| workflow(json);
    for (length, part) in [(1, "r0"), (3, "r0, r1, r2"), (90_000, ", …")] {
        let workflow = workflow_of(&ring(length));
        let error = workflow
            .plan(&[Socket::input("9", "positive")])
            .unwrap_err();
        assert!(error.message().contains("needs itself"), "{error}");
        assert!(error.message().contains(part), "{error}");
        assert_eq!(error.node(), Some("r0"));
    }
    let around = |from: u32| json!({"id": from, "type": "Reroute", "inputs": [{"link": from}]});
    let json = json!({
        "nodes": [
            around(1), around(2),
            {"id": 9, "type": "KSampler", "inputs": [{"name": "positive", "link": 1}]},
        ],
        "links": [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"]],
    });
    let error = workflow_of(&json)
        .plan(&[Socket::input("9", "positive")])
        .unwrap_err();
    assert!(error.message().contains("Reroute needs itself"), "{error}");
}

/// A chain of 100,000 nodes, and as many nodes beside each other.
#[test]
fn large_files_are_no_trouble() {
    const MANY: u32 = 100_000;
    let started = Instant::now();
    let mut chain = Map::new();
    let mut wide = Map::new();
    for id in 0..MANY {
        let from = match id {
            0 => "2".to_owned(),
            _ => format!("c{}", id - 1),
        };
        let class = ["ConditioningZeroOut", "Reroute"][(id % 2) as usize];
        chain.insert(
            format!("c{id}"),
            node(class, json!({"conditioning": [from, 0]})),
        );
        let strength = json!({"conditioning": ["2", 0], "strength": f64::from(id)});
        wide.insert(
            format!("w{id}"),
            node("ConditioningSetAreaStrength", strength),
        );
    }
    let last = format!("c{}", MANY - 1);
    let workflow_of = |json: &Value| workflow(json);
    let long = workflow_of(&with(Value::Object(chain), &last));
    let wanted = [Socket::input("9", "positive")];
    let plan = long.plan(&wanted).unwrap();
    let list = plan.run(folder()).unwrap().remove(0);
    let zeros = values(list.entries()[0].conditioning().context());
    assert!(zeros.iter().all(|value| value.abs() < f64::MIN_POSITIVE));
    let wide = workflow_of(&with(Value::Object(wide), "w7"));
    assert_eq!(wide.len(), MANY as usize + 3);
    assert_eq!(wide.plan(&wanted).unwrap().n_encodings(), 1);
    let many: Vec<Socket> = (0..MANY)
        .map(|id| Socket::output(format!("w{id}"), 0))
        .collect();
    let plan = wide.plan(&many).unwrap();
    let mut seen = 0;
    let mut session = Session::new(folder());
    session
        .run_each(&plan, &mut |_, list| {
            seen += list.len();
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, MANY as usize);
    assert!(
        started.elapsed() < Duration::from_secs(120),
        "{:?}",
        started.elapsed()
    );
}

/// Each doubles what the one before gives: 2^60 of it would be wanted.
#[test]
fn small_files_that_want_too_much_are_refused() {
    let doubling = |class: &str, names: [&str; 2], from: &str| {
        let mut nodes = Map::new();
        for id in 0..60 {
            let from = match id {
                0 => from.to_owned(),
                _ => format!("d{}", id - 1),
            };
            let mut inputs = Map::new();
            for name in names {
                inputs.insert(name.to_owned(), json!([from, 0]));
            }
            nodes.insert(format!("d{id}"), node(class, Value::Object(inputs)));
        }
        nodes
    };
    let combine = doubling(
        "ConditioningCombine",
        ["conditioning_1", "conditioning_2"],
        "2",
    );
    let concat = doubling(
        "ConditioningConcat",
        ["conditioning_to", "conditioning_from"],
        "2",
    );
    for (nodes, part) in [
        (combine, "2048 windows are the most"),
        (concat, "windows are the most"),
    ] {
        let workflow = workflow(&with(Value::Object(nodes), "d59"));
        let error = workflow
            .plan(&[Socket::input("9", "positive")])
            .unwrap_err();
        assert!(error.message().contains(part), "{error}");
        assert_eq!(error.node(), Some("d11"), "{error}");
    }
    let mut text = doubling("StringConcatenate", ["string_a", "string_b"], "s");
    text.insert(
        "s".to_owned(),
        node("PrimitiveString", json!({"value": "0123456789abcdef"})),
    );
    let mut all = with(Value::Object(text), "2");
    all["2"]["inputs"]["text"] = json!(["d59", 0]);
    let error = workflow(&all)
        .plan(&[Socket::input("9", "positive")])
        .unwrap_err();
    assert!(error.message().contains("bytes"), "{error}");
    assert_eq!(error.node(), Some("d16"), "{error}");
}

//! `--steps` and `--hires-steps`: one numbered entry for each step range.

use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family, Profile, Request, Timeline};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::{Written, encode, floats, read};

const POSITIVE: &str = "a [cat:dog:0.5] AND [fog|rain]:0.6";
const NEGATIVE: &str = "[[sun]::1.5]";

const FLAGS: [&str; 8] = [
    "--positive",
    POSITIVE,
    "--negative",
    NEGATIVE,
    "--profile",
    "a1111",
    "--steps",
    "4",
];

fn timelines(family: Family, pass: Pass) -> [Timeline; 2] {
    let text = Conditioner::builder()
        .random_weights(family, SyntheticSize::Tiny, 73)
        .unwrap();
    let positive = Request::new(POSITIVE).profile(Profile::A1111);
    let negative = Request::new(NEGATIVE).profile(Profile::A1111).as_negative();
    [positive, negative].map(|request| text.encode_schedule(&request, pass).unwrap())
}

fn schedule(written: &Written, key: &str) -> Value {
    serde_json::from_str(&written.metadata[key]).unwrap()
}

#[test]
fn each_step_range_has_its_numbered_entry() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    for family in [Family::Sd1, Family::Sdxl] {
        encode(
            family.name(),
            &[&FLAGS[..], &["--hires-steps", "8"]].concat(),
            &out,
        )
        .expect(0);
        let file = read(&out);
        let passes = [
            ("", Pass::First { steps: 4 }),
            ("hires.", Pass::Hires { base: 4, steps: 8 }),
        ];
        let mut n_tensors = 0;
        for (pass, timelines) in passes.map(|(name, pass)| (name, timelines(family, pass))) {
            for (side, timeline) in ["", "negative_"].iter().zip(timelines) {
                for (index, entry) in timeline.entries().enumerate() {
                    let made = &entry.conditioning;
                    let name = format!("{pass}{side}prompt_embeds.{index}");
                    assert!(file.floats(&name) == floats(made.context()), "{name}");
                    n_tensors += 1;
                    let Some(vector) = made.vector().unwrap() else {
                        continue;
                    };
                    let name = format!("{pass}{side}vector.{index}");
                    assert!(file.floats(&name) == floats(&vector), "{name}");
                    let name = format!("{pass}{side}pooled_prompt_embeds.{index}");
                    assert!(
                        file.floats(&name) == floats(made.pooled().unwrap()),
                        "{name}"
                    );
                    n_tensors += 2;
                }
                if family == Family::Sdxl {
                    assert_eq!(file.shape(&format!("{pass}{side}time_ids")), [1, 6]);
                    n_tensors += 1;
                }
            }
        }
        assert_eq!(file.tensors.len(), n_tensors);
    }
}

#[test]
fn metadata_say_which_entry_is_meant_when() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    encode("sd1", &[&FLAGS[..], &["--hires-steps", "2"]].concat(), &out).expect(0);
    let file = read(&out);
    let entry = |index: u32, until_step: u32, text: &str| json!({ "index": index, "until_step": until_step, "text": text });
    let fog_and_rain = (1..=4).map(|step| {
        let text = if step % 2 == 1 { " fog" } else { " rain" };
        entry(step + 1, step, text)
    });
    let want = json!({
        "steps": 4,
        "positive": [
            { "weight": 1.0, "entries": [entry(0, 2, "a cat"), entry(1, 4, "a dog")] },
            { "weight": 0.6, "entries": fog_and_rain.collect::<Vec<_>>() },
        ],
        "negative": [{ "weight": 1.0, "entries": [entry(0, 4, "[sun]")] }],
    });
    assert_eq!(schedule(&file, "schedule"), want);
    let want = json!({
        "steps": 2,
        "positive": [
            { "weight": 1.0, "entries": [entry(0, 2, "a dog")] },
            { "weight": 0.6, "entries": [entry(1, 1, " fog"), entry(2, 2, " rain")] },
        ],
        "negative": [{ "weight": 1.0, "entries": [entry(0, 1, "[sun]"), entry(1, 2, "")] }],
    });
    assert_eq!(schedule(&file, "hires_schedule"), want);
    assert_eq!(file.metadata["positive"], POSITIVE);
}

#[test]
fn lines_are_scheduled_like_commands_and_without_steps_nothing_is() {
    let folder = tempdir().unwrap();
    let lines = [
        r#"{"id":"steps","steps":4}"#,
        r#"{"id":"both","steps":4,"hires_steps":2}"#,
        r#"{"id":"none","steps":null}"#,
    ];
    let more = [&FLAGS[..6], &["--steps", "9", "--hires-steps", "9"]].concat();
    requests(folder.path(), "sd1", &lines.join("\n"), &more).expect(0);
    let names = ["both", "none", "steps"].map(|id| format!("{id}.safetensors"));
    assert_eq!(written(folder.path()), names);
    let bytes = |id: &str| std::fs::read(folder.path().join(format!("out/{id}.safetensors")));
    let out = folder.path().join("single");
    let single = |more: &[&str]| {
        encode("sd1", &[&FLAGS[..6], more].concat(), &out).expect(0);
        std::fs::read(&out).unwrap()
    };
    assert_eq!(bytes("none").unwrap(), single(&[]));
    assert_eq!(
        read(&out).names(),
        ["negative_prompt_embeds", "prompt_embeds"]
    );
    let both = ["--steps", "4", "--hires-steps", "2"];
    assert_eq!(bytes("both").unwrap(), single(&both));
    // The command line's hires steps stay where the line only says `steps`.
    let mixed = ["--steps", "4", "--hires-steps", "9"];
    assert_eq!(bytes("steps").unwrap(), single(&mixed));
}

#[test]
fn an_absent_negative_stays_absent() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("a");
    let more = ["--positive", "a [cat:dog:0.5]", "--steps", "4"];
    for (profile, dialect, zeros) in [("diffusers", "plain", true), ("comfyui", "comfyui", false)] {
        let ran = encode("sdxl", &[&more[..], &["--profile", profile]].concat(), &out).expect(0);
        let file = read(&out);
        let told = format!("the dialect {dialect} has no prompt editing");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        assert_eq!(file.is_zero("negative_prompt_embeds.0"), zeros, "{profile}");
        assert_eq!(
            schedule(&file, "schedule")["negative"][0]["entries"][0]["until_step"],
            4
        );
    }
}

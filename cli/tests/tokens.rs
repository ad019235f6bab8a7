//! `tokens`: windows, ids, pieces, cuts.

use serde_json::Value;

use crate::support::run;

fn json(arguments: &[&str]) -> Value {
    let ran = run(&[&["tokens", "--json"], arguments].concat()).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1, "one object on one line");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn one_window_of_sd1_unless_told_otherwise() {
    let shown = json(&["--positive", "a photo of a cat"]);
    assert_eq!(shown["family"], "sd1");
    assert_eq!(shown["profile"], "diffusers");
    assert!(shown["negative"].is_null());
    let encoders = shown["positive"].as_array().unwrap();
    assert_eq!(
        (encoders.len(), &encoders[0]["encoder"]),
        (1, &Value::from("clip_l"))
    );
    let windows = encoders[0]["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1);
    let window = &windows[0];
    let ids: Vec<u64> = window["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    assert_eq!(ids[..7], [49406, 320, 1125, 539, 320, 2368, 49407]);
    assert_eq!(ids.len(), 77);
    assert!(ids[7..].iter().all(|id| *id == 49407));
    assert_eq!(window["pieces"][5], "cat</w>");
    assert_eq!(
        (&window["tokens"], &window["end"]),
        (&Value::from(5), &Value::from(6))
    );
    assert_eq!(encoders[0]["notes"], Value::Array(Vec::new()));
}

#[test]
fn encoders_profiles_and_cuts_show() {
    let long = "cat ".repeat(100);
    let shown = json(&["--family", "sdxl", "--positive", &long, "--negative", ""]);
    for (encoder, name) in [(0, "clip_l"), (1, "clip_g")] {
        let encoder = &shown["positive"][encoder];
        assert_eq!(encoder["encoder"], name);
        assert_eq!(encoder["windows"].as_array().unwrap().len(), 1);
        assert_eq!(encoder["notes"][0]["kind"], "cut");
        assert!(
            encoder["notes"][0]["message"]
                .as_str()
                .unwrap()
                .contains("25 of 100")
        );
    }
    assert_eq!(shown["negative"][1]["windows"][0]["tokens"], 0);
    // ViT-bigG is padded with 0.
    assert_eq!(shown["negative"][1]["windows"][0]["ids"][2], 0);
    let shown = json(&["--profile", "a1111", "--positive", &long]);
    assert_eq!(shown["positive"][0]["windows"].as_array().unwrap().len(), 2);
}

#[test]
fn people_read_one_id_a_line() {
    let ran = run(&[
        "tokens",
        "--positive",
        "a cat",
        "--negative",
        "dog",
        "--family",
        "sd2",
    ]);
    let want = "\
sd2, as diffusers does it
positive, clip_h: 1 window
  window 1: 2 of 75 ids
     0  49406  <|startoftext|>
     1    320  a</w>
     2   2368  cat</w>
     3  49407  <|endoftext|>
            0  padding × 73
negative, clip_h: 1 window
  window 1: 1 of 75 ids
     0  49406  <|startoftext|>
     1   1929  dog</w>
     2  49407  <|endoftext|>
            0  padding × 74
";
    assert_eq!(ran.expect(0).stdout, want);
}

#[test]
fn a_name_decides_the_family_without_any_file() {
    let shown = json(&["--weights", "sdxl-refiner", "--positive", "a"]);
    assert_eq!(shown["family"], "refiner");
    let ran = run(&["tokens", "--weights", "no-such", "--positive", "a"]).expect(1);
    assert!(ran.error().contains("known names"));
}

//! `tokens --explain`, `--html`, and what `--json` says of spans, embeddings and schedules.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{command, embedding, run};

fn json_of(arguments: &[&str]) -> Value {
    let ran = run(&[&["tokens", "--json"], arguments].concat()).expect(0);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn each_id_has_its_strength_and_its_place_in_the_text() {
    let text = "a ((cat)) [dog] <lora:x:1> (猫";
    let ran = run(&[
        "tokens",
        "--explain",
        "--profile",
        "a1111",
        "--positive",
        text,
    ])
    .expect(0);
    let want = "\
sd1, as a1111 does it

positive, clip_l: 1 window
  window 1: 6 of 75 ids
   row     id  piece            strength  bytes   text
    0   49406  <|startoftext|>
    1     320  a</w>            1         0..2    `a `
    2    2368  cat</w>          1.21      4..7    `cat`
    3    1929  dog</w>          0.909091  11..14  `dog`
    4     163  ç                1.1       28..31  `猫`
    5     234  Į                1.1       28..31  `猫`
    6     360  «</w>            1.1       28..31  `猫`
    7*  49407  <|endoftext|>
        49407  padding × 69
  note: <lora:…> is taken out of the text; load it into the model yourself (quirk at 16..26: `<lora:x:1>`)
  note: never closed; it reaches to the end of the prompt (unbalanced at 27..28: `(`)
";
    assert_eq!(ran.stdout, want);
}

#[test]
fn a_pipe_gets_no_colors_whatever_the_environment_says() {
    for value in ["", "1"] {
        let ran = command(&["tokens", "--explain", "--positive", "a (cat"])
            .env("NO_COLOR", value)
            .env("CLICOLOR_FORCE", "1")
            .output()
            .unwrap();
        assert!(ran.status.success() && !ran.stdout.contains(&0x1b));
    }
}

#[test]
fn spans_are_parts_of_each_encoders_own_text() {
    let more = ["--family", "sdxl", "--profile", "comfyui", "--positive"];
    let texts = ["a (red hat:1.3)", "--positive-2", "猫 (fog:0.5)"];
    let shown = json_of(&[&more[..], &texts].concat());
    let cases = [(0, "red hat", 1.3, 2), (1, "fog", 0.5, 1)];
    for (place, want, strength, n_ids) in cases {
        let encoder = &shown["positive"][place];
        let window = &encoder["windows"][0];
        let text = encoder["text"].as_str().unwrap();
        let strengths = window["strengths"].as_array().unwrap();
        let rows: Vec<usize> = (0..77).filter(|row| strengths[*row] == strength).collect();
        assert_eq!(rows.len(), n_ids, "{encoder}");
        for row in rows {
            let span = &window["spans"][row];
            let bound = |index: usize| usize::try_from(span[index].as_u64().unwrap()).unwrap();
            assert_eq!(&text[bound(0)..bound(1)], want);
        }
        assert!(window["spans"][0].is_null() && window["spans"][76].is_null());
        assert_eq!(encoder["pooled_from"], 0);
    }
}

#[test]
fn embeddings_stand_in_for_ids() {
    let folder = tempdir().unwrap();
    embedding(&folder.path().join("style.safetensors"), 768);
    let flags = ["--profile", "comfyui", "--embeddings"];
    let flags = [&flags[..], &[folder.path().to_str().unwrap()]].concat();
    let text = ["--positive", "a embedding:style hat"];
    let shown = json_of(&[&flags[..], &text].concat());
    let window = &shown["positive"][0]["windows"][0];
    assert_eq!(
        window["embeddings"],
        json!([{ "row": 2, "name": "style", "vector": 0 }])
    );
    assert_eq!(window["pieces"][2], "style[0]");
    let ran = run(&[&["tokens", "--explain"], &flags[..], &text].concat()).expect(0);
    let line = ran.stdout.lines().find(|line| line.contains("style[0]"));
    assert!(
        line.unwrap().starts_with("    2       –  style[0]"),
        "{}",
        ran.stdout
    );
}

#[test]
fn blends_show_each_text_and_the_window_of_the_pooled_vector() {
    let text = r#"("a cat", "a dog").blend(0.75, 0.25)"#;
    let flags = ["--profile", "compel", "--positive", text];
    let shown = json_of(&flags);
    let encoder = &shown["positive"][0];
    let parts: Vec<[&Value; 2]> = encoder["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|window| [&window["part"], &window["weight"]])
        .collect();
    assert_eq!(json!(parts), json!([[0, 0.75], [1, 0.25]]));
    assert!(encoder["pooled_from"].is_null());
    assert_eq!(encoder["raw_window"]["ids"][0], 49406);
    let ran = run(&[&["tokens", "--explain"], &flags[..]].concat()).expect(0);
    let lines = [
        "window 1 of text 2 × 0.25: 2 of 75 ids",
        "the text as typed, for the pooled vector:",
    ];
    for line in lines {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    // Only the row that is pooled is marked.
    assert_eq!(ran.stdout.matches("*  49407").count(), 1);
}

#[test]
fn schedules_are_shown_text_by_text() {
    let flags = ["--profile", "a1111", "--steps", "4", "--hires-steps", "2"];
    let texts = [
        "--positive",
        "a [cat:dog:0.5] AND hat:0.6",
        "--negative",
        "[fog",
    ];
    let flags = [&flags[..], &texts].concat();
    let shown = json_of(&flags);
    let entries = shown["entries"].as_array().unwrap();
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let keys = ["pass", "side", "part", "weight", "until_step"];
            let text = &entry["encoders"][0]["text"];
            json!([keys.map(|key| entry[key].clone()), text])
        })
        .collect();
    let want = json!([
        [["schedule", "positive", 0, 1.0, 2], "a cat"],
        [["schedule", "positive", 0, 1.0, 4], "a dog"],
        [["schedule", "positive", 1, 0.6, 4], " hat"],
        [["schedule", "negative", 0, 1.0, 4], "[fog"],
        [["hires_schedule", "positive", 0, 1.0, 2], "a dog"],
        [["hires_schedule", "positive", 1, 0.6, 2], " hat"],
        [["hires_schedule", "negative", 0, 1.0, 2], "[fog"],
    ]);
    assert_eq!(json!(entries), want);
    let plain = run(&[&["tokens"], &flags[..]].concat()).expect(0).stdout;
    assert!(
        plain.contains("positive × 0.6 until hires step 2, clip_l: 1 window"),
        "{plain}"
    );
}

#[test]
fn a_page_holds_everything_and_runs_nothing() {
    let folder = tempdir().unwrap();
    let page = folder.path().join("page.html");
    let text = "<script>alert('1')</script> \"&amp; (猫:1.3) <img src=x onerror=y> (";
    let flags = ["tokens", "--profile", "a1111", "--family", "sdxl", "--html"];
    let texts = ["--positive", text, "--negative", "</style><b>"];
    let ran = run(&[&flags[..], &[page.to_str().unwrap()], &texts].concat()).expect(0);
    assert!(
        ran.stdout.is_empty() && ran.stderr.contains("wrote "),
        "{ran:?}"
    );
    let page = std::fs::read_to_string(page).unwrap();
    for tag in [
        "<script", "<img", "<b>", "<link", "http:", "https:", "src=\"", "url(",
    ] {
        assert!(!page.contains(tag), "{tag}");
    }
    // One style sheet, and nothing ends it early.
    assert_eq!(
        (
            page.matches("<style>").count(),
            page.matches("</style>").count()
        ),
        (1, 1)
    );
    for part in [
        "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &quot;&amp;amp;",
        "<h2>positive, clip_g: 1 window</h2>",
        "<h2>negative, clip_l: 1 window</h2>",
        "rgba(230,60,40,",
        "<td><code>猫</code></td>",
        "class=\"note\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let open: usize = page.matches("<tr").count();
    assert_eq!(open, page.matches("</tr>").count());
}

#[test]
fn a_page_comes_with_what_else_was_asked_for_or_not_at_all() {
    let folder = tempdir().unwrap();
    let page = folder.path().join("page.html");
    let flags = ["tokens", "--json", "--quiet", "--positive", "a", "--html"];
    let ran = run(&[&flags[..], &[page.to_str().unwrap()]].concat()).expect(0);
    assert!(
        ran.stdout.starts_with('{') && ran.stderr.is_empty(),
        "{ran:?}"
    );
    assert!(page.exists());
    let nowhere = folder.path().join("none/page.html");
    let ran = run(&[&flags[..], &[nowhere.to_str().unwrap()]].concat()).expect(1);
    assert!(ran.error().contains("no such folder") && ran.stdout.is_empty());
}

#[test]
fn what_overrides_the_profile_is_said() {
    let flags = [
        "--profile",
        "a1111",
        "--emphasis",
        "ignore",
        "--equal-lengths",
        "zeros",
    ];
    let flags = [&flags[..], &["--positive", "a"]].concat();
    let overrides = json!({ "emphasis": "ignore", "equal_lengths": "zeros" });
    assert_eq!(json_of(&flags)["overrides"], overrides);
    let ran = run(&[&["tokens", "--explain"], &flags[..]].concat()).expect(0);
    let title = "sd1, as a1111 does it, with emphasis ignore, equal-lengths zeros\n";
    assert!(ran.stdout.starts_with(title), "{}", ran.stdout);
}

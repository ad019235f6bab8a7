//! `--lora`, `--loras` and the `loras` of request lines, against the library's own way.

mod files;
mod prompts;

use sd_conditioner::weights::Lora;
use sd_conditioner::{Family, Profile};
use serde_json::{Value, json};

use self::files::{files, made, same};
use crate::requests::{requests, written};
use crate::support::{embedding, encode, floats, read, run};

const PROMPT: [&str; 4] = ["--positive", "a cat", "--negative", "fog"];

#[test]
fn files_are_put_on_with_their_strengths() {
    let files = files();
    let film = format!("{}:0.5", files.film);
    let lora = ["--lora", &film, "--lora", &files.ink];
    let (ran, file) = files.encode("sd1", &[&PROMPT[..], &lora].concat());
    let both = [(&*files.film, 0.5, 0.5), (&*files.ink, 1.0, 1.0)];
    same(&file, &made(Family::Sd1, &both, Profile::default()));
    let said = [
        "film.safetensors: 1 module of clip_l at 0.5\n",
        "ink.safetensors: 1 module of clip_l at 1; left aside: 1 of unet\n",
        "warning: ink.safetensors: text modules not used (1): `lora_te_text_model_encoder_layers_99",
        "warning: ink.safetensors: unknown tensors (1): `what.is.this`\n",
    ];
    for words in said {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let named: Value = serde_json::from_str(&file.metadata["loras"]).unwrap();
    let film = Lora::open(&files.film).unwrap();
    let want = json!({"file": "film.safetensors", "hash": film.fingerprint(), "strengths": {"clip_l": 0.5}});
    assert_eq!((&named[0], named.as_array().unwrap().len()), (&want, 2));
    let (quiet, _) = files.encode("sd1", &[&PROMPT[..], &lora, &["--quiet"]].concat());
    assert!(!quiet.stderr.contains("1 module"), "{}", quiet.stderr);
    assert!(quiet.stderr.contains("not used (1)"), "{}", quiet.stderr);
    let (_, plain) = files.encode("sd1", &PROMPT);
    assert!(!plain.metadata.contains_key("loras"));
    assert_eq!(
        plain.metadata["checkpoint_hash"],
        file.metadata["checkpoint_hash"]
    );
    assert_ne!(plain.bytes("prompt_embeds"), file.bytes("prompt_embeds"));
}

#[test]
fn the_second_encoder_has_its_own_strength() {
    let files = files();
    let lora = format!("{}:0.5:-1", files.xl);
    let (ran, file) = files.encode("sdxl", &[&PROMPT[..], &["--lora", &lora]].concat());
    same(
        &file,
        &made(Family::Sdxl, &[(&files.xl, 0.5, -1.0)], Profile::default()),
    );
    let words = "1 module of clip_l at 0.5, 1 module of clip_g at -1";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    let out = files.folder.path().join("b");
    let wrong = [&PROMPT[..], &["--lora", &files.film]].concat();
    let ran = encode("sdxl", &wrong, &out).expect(1);
    assert!(ran.error().contains("film.safetensors") && ran.error().contains("sdxl"));
    assert!(!out.exists());
}

#[test]
fn lines_have_their_own() {
    let files = files();
    let lines = [
        r#"{"id":"default"}"#.to_owned(),
        r#"{"id":"half","loras":[{"file":"loras/film.safetensors","strength":0.5}]}"#.to_owned(),
        r#"{"id":"gone","loras":[{"file":"loras/none.safetensors"}]}"#.to_owned(),
        r#"{"id":"other","loras":[{"file":"loras/xl.safetensors"}]}"#.to_owned(),
        format!(r#"{{"id":"half-2","loras":[{{"file":{},"strength":0.5,"strength_2":null}}]}}"#, json!(files.film)),
        r#"{"id":"null","loras":null}"#.to_owned(),
        r#"{"id":"none","loras":[]}"#.to_owned(),
        r#"{"id":"typo","loras":[{"path":"loras/film.safetensors"}]}"#.to_owned(),
        r#"{"id":"again","negative":"rain","loras":[{"file":"loras/film.safetensors","strength":0.5}]}"#.to_owned(),
    ];
    let more = [&PROMPT[..], &["--lora", &files.ink]].concat();
    let ran = requests(files.folder.path(), "sd1", &lines.join("\n"), &more).expect(1);
    assert!(ran.stderr.contains("6 written, 3 failed"), "{}", ran.stderr);
    assert_eq!(written(files.folder.path()).len(), 6);
    for words in ["line 3: ", "line 4: ", "line 8: "] {
        let mut errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        assert!(
            errors.any(|line| line.contains(words)),
            "{words}: {}",
            ran.stderr
        );
    }
    // What is said of a file is said once, not for each line.
    assert_eq!(ran.stderr.matches("film.safetensors: 1 module").count(), 1);
    assert_eq!(ran.stderr.matches("what.is.this").count(), 1);
    let line = |id: &str| read(&files.folder.path().join(format!("out/{id}.safetensors")));
    let made = |loras: &[(&str, f64, f64)]| made(Family::Sd1, loras, Profile::default());
    same(&line("default"), &made(&[(&files.ink, 1.0, 1.0)]));
    let half = made(&[(&files.film, 0.5, 0.5)]);
    same(&line("half"), &half);
    same(&line("half-2"), &half);
    assert!(line("again").floats("prompt_embeds") == floats(half.positive().context()));
    same(&line("null"), &made(&[]));
    same(&line("none"), &made(&[]));
}

#[test]
fn compare_puts_them_on() {
    let files = files();
    let loras = files.loras();
    let compare = |text: &str, more: &[&str]| -> Value {
        let start = [
            "compare",
            text,
            "--json",
            "--random-weights",
            "--tiny",
            "--family",
            "sd1",
        ];
        let ran = run(&[&start[..], more].concat()).expect(0);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let plain = compare("a (cat:1.3)", &[]);
    let worn = compare("a (cat:1.3)", &["--lora", &files.film]);
    assert_ne!(plain["cosines"], worn["cosines"]);
    let named = "a cat<lora:film:1>";
    assert_ne!(
        compare(named, &[])["cosines"],
        compare(named, &["--loras", &loras])["cosines"]
    );
    let ran = run(&["compare", "a", "--lora", &files.film]).expect(2);
    assert!(ran.stderr.contains("--random-weights"), "{}", ran.stderr);
}

#[test]
fn wrong_strengths_are_usage() {
    let files = files();
    let out = files.folder.path().join("c");
    let with = |suffix: &str| {
        let lora = format!("{}{suffix}", files.film);
        encode("sd1", &[&PROMPT[..], &["--lora", &lora]].concat(), &out)
    };
    assert!(
        with(":half")
            .expect(2)
            .stderr
            .contains("`half` is not a strength")
    );
    assert!(with(":nan").expect(2).stderr.contains("a strength of NaN"));
    assert!(with("x:1").expect(1).error().contains("film.safetensorsx"));
    let folder = [&PROMPT[..], &["--loras", &files.film]].concat();
    assert!(
        encode("sd1", &folder, &out)
            .expect(1)
            .error()
            .contains("not a folder")
    );
}

#[test]
fn inspect_says_what_a_file_is() {
    let files = files();
    let shown = |path: &str| -> Value {
        serde_json::from_str(&run(&["inspect", path, "--json"]).expect(0).stdout).unwrap()
    };
    let ink = shown(&files.ink);
    assert_eq!(
        (&ink["what"], &ink["kinds"]),
        (&json!("lora"), &json!({"full difference": 2}))
    );
    assert_eq!(
        (&ink["skipped"]["unet"], &ink["embeddings"]),
        (&json!(1), &json!(["swirl"]))
    );
    assert_eq!(ink["modules"], json!({"lora_te_": 2}));
    let text = run(&["inspect", &files.xl]).expect(0).stdout;
    for words in ["a LoRA", "family     sdxl", "1 lora_te1_, 1 lora_te2_"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let style = files.folder.path().join("style.safetensors");
    embedding(&style, 768);
    let style = style.to_str().unwrap();
    let seen = shown(style);
    assert_eq!(
        (&seen["what"], &seen["vectors"]),
        (&json!("embedding"), &json!(1))
    );
    assert_eq!(
        (&seen["encoders"], &seen["families"]),
        (&json!(["clip_l"]), &json!(["sd1"]))
    );
    let text = run(&["inspect", style]).expect(0).stdout;
    assert!(text.contains("an embedding (textual inversion)") && text.contains("1 of width 768"));
    let (_, _) = files.encode("sd1", &PROMPT);
    let out = files.folder.path().join("a");
    let ran = run(&["inspect", out.to_str().unwrap()]).expect(0);
    assert!(ran.stdout.contains("a conditioning"), "{ran:#?}");
}

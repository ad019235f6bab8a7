//! `--lora`, `--loras` and the `loras` of request lines, against the library's own way.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use sd_conditioner::weights::{EncoderId, Lora, Synthetic, SyntheticSize, TensorSource as _};
use sd_conditioner::{Conditioner, Family, Guidance, Profile, Request};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::requests::{requests, written};
use crate::support::{Ran, Written, embedding, encode, floats, read, run};

const SD1: [(&str, EncoderId); 1] = [("lora_te", EncoderId::ClipL)];
const SDXL: [(&str, EncoderId); 2] = [
    ("lora_te1", EncoderId::ClipL),
    ("lora_te2", EncoderId::OpenClipG),
];

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// A change of one matrix of each encoder, all of `value`.
fn changes(encoders: &[(&str, EncoderId)], value: f32) -> Tensors {
    let changes = encoders.iter().map(|(prefix, encoder)| {
        let source = Synthetic::new(*encoder, SyntheticSize::Tiny, 73);
        let shape = source.info("layers.0.fc1.weight").unwrap().shape;
        let count = shape.iter().product();
        let name = format!("{prefix}_text_model_encoder_layers_0_mlp_fc1.diff");
        let ramp = (0_u8..=250).cycle().take(count);
        (
            name,
            shape,
            ramp.map(|step| f32::from(step) / 125.0 * value - value)
                .collect(),
        )
    });
    changes.collect()
}

fn save(path: &Path, tensors: &Tensors) -> PathBuf {
    let bytes = |values: &[f32]| -> Vec<u8> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        bytes.collect()
    };
    let stored: Vec<Vec<u8>> = tensors.iter().map(|(.., values)| bytes(values)).collect();
    let views = tensors
        .iter()
        .zip(&stored)
        .map(|((name, shape, _), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        });
    serialize_to_file(views, None, path).unwrap();
    path.to_owned()
}

/// `film`, `ink` (with what is not used, and an embedding) and, for another family, `xl`.
struct Files {
    folder: TempDir,
    film: String,
    ink: String,
    xl: String,
}

fn files() -> Files {
    let folder = tempdir().unwrap();
    std::fs::create_dir(folder.path().join("loras")).unwrap();
    let at = |name: &str| folder.path().join("loras").join(name);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let film = text(save(&at("film.safetensors"), &changes(&SD1, 0.2)));
    let xl = text(save(&at("xl.safetensors"), &changes(&SDXL, 0.2)));
    let mut ink = changes(&SD1, -0.1);
    let more: [(&str, Vec<usize>); 4] = [
        (
            "lora_te_text_model_encoder_layers_99_mlp_fc1.diff",
            vec![512, 128],
        ),
        ("lora_unet_x.lora_down.weight", vec![4, 8]),
        ("what.is.this", vec![2]),
        ("bundle_emb.swirl.string_to_param.*", vec![1, 128]),
    ];
    for (name, shape) in more {
        let values = vec![0.5; shape.iter().product()];
        ink.push((name.to_owned(), shape, values));
    }
    let ink = text(save(&at("ink.safetensors"), &ink));
    Files {
        folder,
        film,
        ink,
        xl,
    }
}

impl Files {
    fn encode(&self, family: &str, more: &[&str]) -> (Ran, Written) {
        let out = self.folder.path().join("a");
        let ran = encode(family, more, &out).expect(0);
        (ran, read(&out))
    }

    fn loras(&self) -> String {
        self.folder.path().join("loras").display().to_string()
    }
}

/// What the library makes of it.
fn made(family: Family, loras: &[(&str, f64, f64)], profile: Profile) -> Guidance {
    let text = Conditioner::builder()
        .random_weights(family, SyntheticSize::Tiny, 73)
        .unwrap();
    let loras = loras.iter().map(|(file, strength, strength_2)| {
        Lora::open(file.as_ref())
            .unwrap()
            .at_each(*strength, *strength_2)
    });
    let text = text.with_loras(&loras.collect::<Vec<_>>()).unwrap();
    let request = |text| Request::new(text).profile(profile);
    text.encode_pair(request("a cat"), request("fog")).unwrap()
}

#[track_caller]
fn same(file: &Written, made: &Guidance) {
    let positive = floats(made.positive().context());
    assert!(file.floats("prompt_embeds") == positive, "positive");
    let negative = floats(made.negative().context());
    assert!(
        file.floats("negative_prompt_embeds") == negative,
        "negative"
    );
}

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
    let film = Lora::open(files.film.as_ref()).unwrap();
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
fn prompts_name_those_of_a_folder() {
    let files = files();
    let (loras, half) = (files.loras(), [(&*files.film, 0.5, 0.5)]);
    let cases = [
        ("a1111", Profile::A1111, "a cat<lora:film:0.5>"),
        ("forge", Profile::Forge, "a cat<lora:film:0.5>"),
        ("compel", Profile::Compel, "a cat withLora(film, 0.5)"),
    ];
    for (name, profile, text) in cases {
        let more = [
            "--profile",
            name,
            "--loras",
            &loras,
            "--positive",
            text,
            "--negative",
            "fog",
        ];
        let (ran, file) = files.encode("sd1", &more);
        same(&file, &made(Family::Sd1, &half, profile));
        assert!(
            ran.stderr.contains("1 module of clip_l at 0.5"),
            "{name}: {}",
            ran.stderr
        );
        assert!(
            file.metadata["loras"].contains("film.safetensors"),
            "{name}"
        );
    }
    let nobody = [
        "--profile",
        "a1111",
        "--loras",
        &loras,
        "--positive",
        "a cat<lora:nobody:1>",
    ];
    let (ran, _) = files.encode("sd1", &nobody);
    assert!(
        ran.stderr.contains("unknown_lora at 5..20"),
        "{}",
        ran.stderr
    );
    // A line may leave out even the folder.
    let lines = [r#"{"id":"with"}"#, r#"{"id":"without","loras":null}"#];
    let more = [
        "--profile",
        "a1111",
        "--loras",
        &loras,
        "--positive",
        "a cat<lora:film:0.5>",
        "--negative",
        "fog",
    ];
    requests(files.folder.path(), "sd1", &lines.join("\n"), &more).expect(0);
    let line = |id: &str| read(&files.folder.path().join(format!("out/{id}.safetensors")));
    same(&line("with"), &made(Family::Sd1, &half, Profile::A1111));
    same(&line("without"), &made(Family::Sd1, &[], Profile::A1111));
}

#[test]
fn schedules_and_negatives() {
    let files = files();
    let loras = files.loras();
    let more = ["--profile", "a1111", "--steps", "4"];
    let prompt = ["--positive", "a cat<lora:film:0.5>", "--negative", "fog"];
    let (ran, file) = files.encode("sd1", &[&more[..], &prompt, &["--loras", &loras]].concat());
    let want = made(Family::Sd1, &[(&files.film, 0.5, 0.5)], Profile::A1111);
    assert!(file.floats("prompt_embeds.0") == floats(want.positive().context()));
    assert!(file.floats("negative_prompt_embeds.0") == floats(want.negative().context()));
    assert!(!ran.stderr.contains("taken out"), "{}", ran.stderr);
    // Without the folder it is taken out, and a negative prompt keeps it as text.
    let prompt = [
        "--positive",
        "a <hypernet:b:1> cat<lora:film:0.5>",
        "--negative",
        "fog <lora:film:1>",
    ];
    let (ran, _) = files.encode("sd1", &[&more[..], &prompt].concat());
    let told = [
        "positive: <hypernet:…> is taken out of the text; load it into the model yourself (quirk at 2..16: ",
        "positive: <lora:…> is taken out of the text; load it into the model yourself (quirk at 20..35: ",
        "negative: <lora:…> is text in a negative prompt",
    ];
    for words in told {
        assert_eq!(
            ran.stderr.matches(words).count(),
            1,
            "{words}: {}",
            ran.stderr
        );
    }
    assert!(
        !ran.stderr.contains("negative: <lora:…> is taken out"),
        "{}",
        ran.stderr
    );
}

#[test]
fn embeddings_come_with_their_lora() {
    let files = files();
    let prompt = |text| ["--positive", text, "--profile", "a1111"];
    let lora = ["--lora", &files.ink];
    let (_, word) = files.encode(
        "sd1",
        &[&prompt("a swirl")[..], &["--lora", &files.film]].concat(),
    );
    let (_, bundled) = files.encode("sd1", &[&prompt("a swirl")[..], &lora].concat());
    assert_eq!(word.shape("prompt_embeds"), bundled.shape("prompt_embeds"));
    let styles = files.folder.path().join("styles");
    std::fs::create_dir(&styles).unwrap();
    // An embedding of the same vector under another name gives the same.
    let vector = vec![("emb_params".to_owned(), vec![1, 128], vec![0.5; 128])];
    save(&styles.join("twist.safetensors"), &vector);
    let styles = ["--embeddings", styles.to_str().unwrap()];
    let (_, own) = files.encode("sd1", &[&prompt("a twist")[..], &lora, &styles].concat());
    assert!(own.floats("prompt_embeds") == bundled.floats("prompt_embeds"));
    let tokens = |more: &[&str]| {
        let start = [
            "tokens",
            "--profile",
            "a1111",
            "--positive",
            "a swirl<lora:ink:1>",
        ];
        run(&[&start[..], more].concat()).expect(0).stdout
    };
    assert!(tokens(&[]).contains("load it into the model yourself"));
    assert!(!tokens(&["--loras", &files.loras()]).contains("load it into the model yourself"));
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

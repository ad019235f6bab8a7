//! Prompts that name `LoRA`s of a folder, schedules of them, and embeddings that come along.

use sd_conditioner::{Family, Profile};

use super::files::{files, made, same, save};
use crate::requests::requests;
use crate::support::{floats, read, run};

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

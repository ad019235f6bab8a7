//! Folders of `LoRA`s, prompts that name them, and embeddings that come along.

use std::path::Path;

use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::prompt::NoteKind;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::{EncoderId, Lora, LoraFolder};
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request};

use super::{entry, tiny};
use crate::support::close::bits;
use crate::support::entries::{Entry, save_with};

const MODULE: &str = "lora_te_text_model_encoder_layers_0_mlp_fc1";

fn diff(scale: f64) -> Vec<Entry> {
    vec![entry(&format!("{MODULE}.diff"), &[512, 128], scale)]
}

/// `film`, `styles/ink` (which calls itself `comic`), `styles/film`, and one that is broken.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, scale: f64, alias: &[(&str, &str)]| {
        save_with(&folder.path().join(name), &diff(scale), alias);
    };
    save("film.safetensors", 0.1, &[]);
    save(
        "styles/ink.safetensors",
        0.2,
        &[("ss_output_name", "comic")],
    );
    save("styles/film.safetensors", 0.3, &[]);
    std::fs::write(folder.path().join("broken.safetensors"), b"nothing").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"nothing").unwrap();
    folder
}

fn opened(folder: &Path) -> LoraFolder {
    LoraFolder::open(folder).unwrap()
}

#[test]
fn names_are_paths_stems_and_aliases() {
    let folder = folder();
    let loras = opened(folder.path());
    let names: Vec<&str> = loras.names().collect();
    assert_eq!(names, ["broken", "film", "styles/film", "styles/ink"]);
    let check = |name: &str, want: Option<&str>| {
        let found = loras.get(name).unwrap();
        let found = found.map(|lora| lora.path().to_owned());
        assert_eq!(found, want.map(|file| folder.path().join(file)), "{name}");
    };
    check("film", Some("film.safetensors"));
    check("film.safetensors", Some("film.safetensors"));
    check("styles/film", Some("styles/film.safetensors"));
    check("ink", Some("styles/ink.safetensors"));
    check("comic", Some("styles/ink.safetensors"));
    check("Film", None);
    check("../film", None);
    check("", None);
    assert!(loras.get("broken").is_err());
    assert!(LoraFolder::open(folder.path().join("film.safetensors")).is_err());
}

fn same(one: &Conditioning, other: &Conditioning) -> bool {
    bits(one.context()) == bits(other.context())
}

/// Strengths as A1111 reads them, and the same by hand.
#[test]
fn prompts_put_loras_on() {
    let folder = folder();
    let loras = opened(folder.path());
    let base = tiny(Family::Sd1);
    let worn = |list: &[(&str, f64)]| -> Conditioner {
        let list = list
            .iter()
            .map(|(name, strength)| loras.get(name).unwrap().unwrap().at(*strength));
        base.with_loras(&list.collect::<Vec<_>>()).unwrap()
    };
    let of = |text: &str, profile: Profile| {
        let request = Request::new(text).profile(profile).loras(&loras);
        base.encode(request).unwrap()
    };
    let plain = |text: &Conditioner, prompt: &str, profile: Profile| {
        text.encode(Request::new(prompt).profile(profile)).unwrap()
    };
    let a1111 = Profile::A1111;
    for (prompt, list) in [
        ("a cat<lora:film>", &[("film", 1.0)][..]),
        ("a cat<lora:film:0.5:0.9>", &[("film", 0.5)]),
        ("a cat<lora:film:0.5:te=-0.25>", &[("film", -0.25)]),
        ("a cat<lyco:comic:0.5>", &[("ink", 0.5)]),
        (
            "<lora:film:0.5>a cat<lora:ink:0.5>",
            &[("film", 0.5), ("ink", 0.5)],
        ),
        ("a cat<lora:film:half>", &[]),
        ("a cat<hypernet:film:1>", &[]),
    ] {
        let want = plain(&worn(list), "a cat", a1111);
        assert!(same(&of(prompt, a1111), &want), "{prompt}");
    }
    let want = plain(&worn(&[("film", 0.5)]), "a cat", Profile::Compel);
    assert!(
        same(&of("a cat withLora(film, 0.5)", Profile::Compel), &want),
        "compel"
    );
    // The handle itself stays as it is, and ComfyUI knows no such words.
    let text = "a cat<lora:film>";
    let comfy = plain(&base, text, Profile::ComfyUi);
    assert!(same(&of(text, Profile::ComfyUi), &comfy));
}

#[test]
fn what_is_not_there_is_noted() {
    let folder = folder();
    let loras = opened(folder.path());
    let base = tiny(Family::Sd1);
    let notes = |text: &str, profile: Profile, with: bool| {
        let mut request = Request::new(text).profile(profile);
        if with {
            request = request.loras(&loras);
        }
        base.chunks(request).unwrap()[0].1.notes().to_vec()
    };
    let check = |text: &str, profile: Profile, kind: NoteKind, word: &str| {
        let notes = notes(text, profile, true);
        let found = notes
            .iter()
            .any(|note| note.kind == kind && note.message.contains(word));
        assert!(found, "{text}: {notes:?}");
    };
    check(
        "a <lora:nobody:1>",
        Profile::A1111,
        NoteKind::UnknownLora,
        "\"nobody\"",
    );
    check(
        "a withLora(nobody)",
        Profile::Compel,
        NoteKind::UnknownLora,
        "\"nobody\"",
    );
    check(
        "a <lora:film:half>",
        Profile::A1111,
        NoteKind::ReferenceError,
        "no number",
    );
    check(
        "a <hypernet:film:1>",
        Profile::A1111,
        NoteKind::Quirk,
        "hypernet",
    );
    assert!(notes("a <lora:film:1>", Profile::A1111, true).is_empty());
    let without = notes("a <lora:film:1>", Profile::A1111, false);
    assert!(
        without
            .iter()
            .any(|note| note.message.contains("load it into the model")),
        "{without:?}"
    );
    let broken = Request::new("a <lora:broken:1>")
        .profile(Profile::A1111)
        .loras(&loras);
    assert!(base.encode(broken).is_err());
}

/// The prompt's `LoRA`s are on for both sides; a negative names none, and keeps the words.
#[test]
fn negatives_name_none() {
    let folder = folder();
    let loras = opened(folder.path());
    let base = tiny(Family::Sd1);
    let film = loras.get("film").unwrap().unwrap();
    let worn = base.with_loras(&[film.at(0.5)]).unwrap();
    let request = |text| Request::new(text).profile(Profile::A1111);
    let pair = base
        .encode_pair(
            request("a cat<lora:film:0.5>").loras(&loras),
            request("<lora:ink:1>").loras(&loras),
        )
        .unwrap();
    let want = worn
        .encode_pair(request("a cat"), request("<lora:ink:1>"))
        .unwrap();
    assert!(same(pair.positive(), want.positive()) && same(pair.negative(), want.negative()));
    let empty = worn.encode(request("").as_negative()).unwrap();
    assert!(!same(pair.negative(), &empty), "the words were dropped");
}

/// Batches and schedules: each request has its own, and each result is what it is alone.
#[test]
fn every_way_in_knows_them() {
    let folder = folder();
    let loras = opened(folder.path());
    let base = tiny(Family::Sd1);
    let texts = [
        "a cat<lora:film:0.5>",
        "a cat",
        "a dog<lora:film:0.5>",
        "a cat<lora:ink:0.5>",
    ];
    let request = |text| Request::new(text).profile(Profile::A1111).loras(&loras);
    let batch = base.encode_batch(&texts.map(request)).unwrap();
    for (text, one) in texts.iter().zip(&batch) {
        assert!(same(one, &base.encode(request(text)).unwrap()), "{text}");
    }
    let distinct = |one: usize, other: usize| !same(&batch[one], &batch[other]);
    assert!(distinct(0, 1) && distinct(0, 3) && distinct(1, 3));
    let timeline = base
        .encode_schedule(&request(texts[0]), Pass::First { steps: 20 })
        .unwrap();
    assert!(same(&timeline.parts[0].entries[0].conditioning, &batch[0]));
    let together = base.encode_together(&[request(texts[0])]).unwrap();
    assert!(same(&together[0], &batch[0]));
    let handle = base.for_prompt(&request(texts[0])).unwrap();
    assert_eq!(handle.lora_reports()[0].applied[&EncoderId::ClipL], 1);
    // What a handle wears already stays on, and comes first.
    let ink = loras.get("ink").unwrap().unwrap();
    let worn = base.with_loras(&[ink.at(0.5)]).unwrap();
    let both = worn.for_prompt(&request(texts[0])).unwrap();
    assert_eq!(both.lora_reports().len(), 2);
    assert_eq!(
        both.with_loras(&[]).unwrap().fingerprint(),
        base.fingerprint()
    );
}

#[test]
fn embeddings_in_a_lora_can_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("face.safetensors");
    let mut entries = diff(0.1);
    entries.push(entry(
        "bundle_emb.my.token.string_to_param.*",
        &[2, 128],
        0.03,
    ));
    entries.push(entry("bundle_emb.other.emb_params", &[1, 128], 0.03));
    entries.push(entry("bundle_emb.other.emb_params_out", &[1, 128], 0.03));
    save_with(&path, &entries, &[]);
    let lora = Lora::open(&path).unwrap();
    let inside = lora.embeddings().unwrap();
    let inside: Vec<(&str, usize)> = inside
        .iter()
        .map(|one| (one.name(), one.n_vectors()))
        .collect();
    assert_eq!(inside, [("my.token", 2), ("other", 1)]);
    assert_eq!(lora.report().embeddings, ["my.token", "other"]);
    let set = Embeddings::default().with_lora(&lora).unwrap();
    assert_eq!(set.names(), ["my.token", "other"]);

    let base = tiny(Family::Sd1);
    let worn = base.with_loras(&[lora.at(1.0)]).unwrap();
    let request = |text| Request::new(text).profile(Profile::A1111);
    let want = worn
        .encode(request("a my.token cat").embeddings(&set))
        .unwrap();
    let without = worn.encode(request("a my.token cat")).unwrap();
    assert!(!same(&want, &without), "the embedding was not found");
    let loras = opened(folder.path());
    let by_prompt = base
        .encode(request("a my.token cat<lora:face:1>").loras(&loras))
        .unwrap();
    assert!(same(&by_prompt, &want));
}

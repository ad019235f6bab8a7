//! Embeddings in folders below the one that was named, as each tool finds them.

use std::path::Path;

use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::prompt::NoteKind;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request};

use crate::support::close::bits;
use crate::support::entries::{Entry, Stored, save};

/// A file with one vector of a width.
fn put(folder: &Path, name: &str, width: usize, value: f32) {
    let entry = Entry::filled("emb_params", Stored::F32, &[1, width], value);
    save(&folder.join(format!("{name}.safetensors")), &[entry]);
}

fn encode(text: &Conditioner, profile: Profile, prompt: &str, set: &Embeddings) -> Conditioning {
    let request = Request::new(prompt).profile(profile).embeddings(set);
    text.encode(request).unwrap()
}

fn tiny(family: Family) -> Conditioner {
    let made = Conditioner::builder().random_weights(family, SyntheticSize::Tiny, 73);
    made.unwrap()
}

#[track_caller]
fn check(text: &Conditioner, profile: Profile, (nested, set): (&str, &Embeddings), flat: &str) {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("top", 0.1), ("first", 0.2), ("last", 0.3)] {
        put(folder.path(), name, 128, value);
    }
    let own = Embeddings::folder(folder.path()).unwrap();
    let [ours, theirs] = [(nested, set), (flat, &own)].map(|(prompt, set)| {
        let made = encode(text, profile, prompt, set);
        let wrong = made.notes().iter().any(|note| note.kind != NoteKind::Quirk);
        assert!(!wrong, "{prompt}: {:?}", made.notes());
        bits(made.context())
    });
    assert!(ours == theirs, "{profile:?}: {nested} is not {flat}");
}

/// `ComfyUI` looks for a name in all folders below, and takes any that has it: here the first. A1111 and Forge know
/// files by their own names, and keep what `os.walk` comes to last.
#[test]
fn a_file_is_found_without_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "glow", 128, 0.1);
    put(folder.path(), "b/style/glow", 128, 0.2);
    put(folder.path(), "b/ember", 128, 0.2);
    put(folder.path(), "z/y/ember", 128, 0.3);
    put(folder.path(), "z/glow", 128, 0.3);
    put(folder.path(), "zz/glow", 192, 0.3);
    let set = Embeddings::folder(folder.path()).unwrap();
    let text = tiny(Family::Sd1);
    for (nested, flat) in [
        ("glow", "top"),
        ("ember", "first"),
        ("ember.safetensors", "first"),
        ("style/glow", "first"),
        ("y/ember", "last"),
        ("z/y/ember", "last"),
    ] {
        let [nested, flat] = [nested, flat].map(|name| format!("a embedding:{name} cat"));
        check(&text, Profile::ComfyUi, (&nested, &set), &flat);
    }
    for profile in [Profile::A1111, Profile::Forge] {
        check(&text, profile, ("a glow cat", &set), "a last cat");
        check(
            &text,
            profile,
            ("an (Ember:1.2), cat", &set),
            "an (last:1.2), cat",
        );
        check(&text, profile, ("a z/glow cat", &set), "a z/last cat");
    }
}

#[test]
fn nothing_is_found_outside() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "one", 128, 0.1);
    put(folder.path(), "b/two", 128, 0.1);
    let set = Embeddings::folder(folder.path()).unwrap();
    for name in ["../one", "/two", "", ".", "b", "wo", "../b/../../one"] {
        assert!(set.find(name).unwrap().is_none(), "{name:?}");
    }
    let made = encode(
        &tiny(Family::Sd1),
        Profile::ComfyUi,
        "embedding:../one",
        &set,
    );
    assert_eq!(made.notes()[0].kind, NoteKind::UnknownEmbedding);
}

/// A name may lead out of a folder if it comes back.
#[test]
fn comfyui_finds_what_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("embeddings");
    std::fs::create_dir_all(&top).unwrap();
    put(&top, "glow", 128, 0.1);
    put(&top, "b/ember", 128, 0.2);
    put(folder.path(), "out", 128, 0.3);
    let set = Embeddings::folder(&top).unwrap();
    let text = tiny(Family::Sd1);
    for (name, flat) in [("../embeddings/glow", "top"), ("../b/ember", "first")] {
        let [nested, flat] = [name, flat].map(|name| format!("a embedding:{name} cat"));
        check(&text, Profile::ComfyUi, (&nested, &set), &flat);
    }
    assert!(set.find("../out").unwrap().is_none());
}

#[track_caller]
fn notes(text: &Conditioner, profile: Profile, (prompt, set): (&str, &Embeddings), want: &[&str]) {
    let made = encode(text, profile, prompt, set);
    let notes: Vec<&str> = made.notes().iter().map(|note| &*note.message).collect();
    let told = notes.len() == want.len()
        && notes
            .iter()
            .zip(want)
            .all(|(note, want)| note.contains(want));
    assert!(told, "{profile:?} {prompt:?}: {notes:?}");
}

/// Where the order of folders decides, it is said.
#[test]
fn which_of_several_files_is_taken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (name, width) in [
        ("glow", 128),
        ("b/glow", 128),
        ("b/ember", 128),
        ("z/ember", 128),
        ("zz/ember", 192),
    ] {
        put(folder.path(), name, width, 0.1);
    }
    let set = Embeddings::folder(folder.path()).unwrap();
    let text = tiny(Family::Sd1);
    let comfy = |prompt: &str, want: &[&str]| notes(&text, Profile::ComfyUi, (prompt, &set), want);
    comfy("embedding:glow", &[]);
    comfy("embedding:z/ember", &[]);
    let taken = "`b/ember.safetensors` is taken, not `z/ember.safetensors`, `zz/ember.safetensors`";
    comfy("embedding:ember a embedding:ember", &[taken]);
    for profile in [Profile::A1111, Profile::Forge] {
        notes(
            &text,
            profile,
            ("an ember, an Ember", &set),
            &["`z/ember` is taken, not `b/ember`"],
        );
        notes(
            &text,
            profile,
            ("a glow", &set),
            &["`b/glow` is taken, not `glow`"],
        );
    }
}

/// Of the refiner A1111 knows files with its encoder's vectors alone, Forge those with both of SDXL's.
#[test]
fn the_refiners_files() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "alone", 256, 0.1);
    let [l, g] = [("clip_l", 128), ("clip_g", 256)]
        .map(|(key, width)| Entry::filled(key, Stored::F32, &[1, width], 0.1));
    save(&folder.path().join("pair.safetensors"), &[l, g]);
    let set = Embeddings::folder(folder.path()).unwrap();
    let refiner = tiny(Family::Refiner);
    let sdxl = tiny(Family::Sdxl);
    let left = &["its name stays text"];
    for (profile, text, name, want) in [
        (Profile::A1111, &refiner, "alone", &[][..]),
        (Profile::A1111, &refiner, "pair", left),
        (Profile::Forge, &refiner, "alone", left),
        (Profile::Forge, &refiner, "pair", &[]),
        (Profile::A1111, &sdxl, "pair", &[]),
        (Profile::Forge, &sdxl, "pair", &[]),
        (Profile::Forge, &sdxl, "alone", left),
        (Profile::ComfyUi, &refiner, "embedding:pair", &[]),
        (Profile::ComfyUi, &refiner, "embedding:alone", &[]),
    ] {
        notes(text, profile, (name, &set), want);
    }
}

/// `InvokeAI` looks for names of letters, digits and `., _-`, and knows files by their own.
#[test]
fn names_that_invokeai_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a+b", "b/my glow_1.5", "c(d)", "é"] {
        put(folder.path(), name, 128, 0.1);
    }
    let set = Embeddings::folder(folder.path()).unwrap();
    let text = tiny(Family::Sd1);
    let plain = |prompt: &str| encode(&text, Profile::InvokeAi, prompt, &Embeddings::default());
    let changes = |prompt: &str| {
        let with = encode(&text, Profile::InvokeAi, prompt, &set);
        bits(with.context()) != bits(plain(prompt).context())
    };
    assert!(changes("a <my glow_1.5> cat"));
    for other in [
        "a <a+b> cat",
        "a <b/my glow_1.5>",
        "a <c(d)>",
        "a <é>",
        "a <My glow_1.5>",
    ] {
        assert!(!changes(other), "{other}");
    }
}

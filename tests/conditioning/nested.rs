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
        assert_eq!(made.notes().len(), 0, "{prompt}: {:?}", made.notes());
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
    for name in ["../one", "/two", "", ".", "b", "wo", "../b/two"] {
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

//! A LoRA that brings embeddings, beside those that each request has.

use sd_conditioner::conditioner::Embeddings;
use sd_conditioner::prompt::schedule::Pass;
use sd_conditioner::weights::LoraFolder;
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request};

use super::{entry, tiny};
use crate::support::close::bits;
use crate::support::entries::save_with;

/// What both requests have under the name `zork`, and a folder with `film`, which brings `glow`.
struct Files {
    _folder: tempfile::TempDir,
    loras: LoraFolder,
    mine: Embeddings,
    yours: Embeddings,
}

fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let set = |name: &str| {
        let vectors = [entry("emb_params", &[2, 128], 0.03)];
        let scaled = [entry("emb_params", &[2, 128], 0.05)];
        let vectors = if name == "mine" { vectors } else { scaled };
        let path = folder.path().join(format!("{name}.safetensors"));
        let path = save_with(&path, &vectors, &[]);
        Embeddings::default().with_file(path, Some("zork")).unwrap()
    };
    let (mine, yours) = (set("mine"), set("yours"));
    let below = folder.path().join("loras");
    std::fs::create_dir(&below).unwrap();
    let module = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let film = [
        entry(&format!("{module}.diff"), &[512, 128], 0.1),
        entry("bundle_emb.glow.string_to_param.*", &[2, 128], 0.04),
    ];
    save_with(&below.join("film.safetensors"), &film, &[]);
    std::fs::write(below.join("broken.safetensors"), b"nothing").unwrap();
    Files {
        loras: LoraFolder::open(&below).unwrap(),
        _folder: folder,
        mine,
        yours,
    }
}

const FILM: &str = "a zork, glow <lora:film:0.8>";

fn a1111<'a>(text: &'a str, embeddings: &'a Embeddings) -> Request<'a> {
    let request = Request::new(text).profile(Profile::A1111);
    request.embeddings(embeddings)
}

fn same(one: &Conditioning, other: &Conditioning) -> bool {
    bits(one.context()) == bits(other.context())
}

/// With the LoRA on, and what it brings by hand.
fn by_hand(
    base: &Conditioner,
    files: &Files,
    request: Request<'_>,
    own: &Embeddings,
) -> Conditioning {
    let film = files.loras.get("film").unwrap().unwrap();
    let all = own.clone().with_lora(&film).unwrap();
    let worn = base.with_loras(&[film.at(0.8)]).unwrap();
    worn.encode(request.embeddings(&all)).unwrap()
}

#[test]
fn each_request_keeps_its_own_embeddings() {
    let (base, files) = (tiny(Family::Sd1), files());
    let sets = [&files.mine, &files.yours];
    let requests = sets.map(|set| a1111(FILM, set).loras(&files.loras));
    let plain = Request::new("a zork, glow").profile(Profile::A1111);
    let want = sets.map(|set| by_hand(&base, &files, plain.clone(), set));
    assert!(!same(&want[0], &want[1]));
    let batch = base.encode_batch(&requests).unwrap();
    let together = base.encode_together(&requests).unwrap();
    for place in [0, 1] {
        let alone = base.encode(requests[place].clone()).unwrap();
        assert!(same(&alone, &want[place]), "alone, {place}");
        assert!(same(&batch[place], &want[place]), "batch, {place}");
        assert!(same(&together[place], &want[place]), "together, {place}");
        let timeline = base.encode_schedule(&requests[place], Pass::First { steps: 5 });
        let entry = &timeline.unwrap().parts[0].entries[0];
        assert!(same(&entry.conditioning, &want[place]), "schedule, {place}");
    }
}

/// Forge reads the LoRA's weights only.
#[test]
fn in_forge_no_embeddings_come_along() {
    let (base, files) = (tiny(Family::Sd1), files());
    let of = |text| {
        Request::new(text)
            .profile(Profile::Forge)
            .embeddings(&files.mine)
    };
    let film = files.loras.get("film").unwrap().unwrap();
    let worn = base.with_loras(&[film.at(0.8)]).unwrap();
    let want = worn.encode(of("a zork, glow")).unwrap();
    let found = base.encode(of(FILM).loras(&files.loras)).unwrap();
    assert!(same(&found, &want));
    assert!(!same(
        &found,
        &by_hand(&base, &files, of("a zork, glow"), &files.mine)
    ));
}

/// A negative's own go before what comes along, and it may name that, too.
#[test]
fn a_negative_keeps_its_own_embeddings() {
    let (base, files) = (tiny(Family::Sd1), files());
    let positive = a1111(FILM, &files.mine).loras(&files.loras);
    let of_negative = || Request::new("zork, glow").profile(Profile::A1111);
    let inherits = of_negative().as_negative();
    let want = by_hand(&base, &files, inherits.clone(), &files.yours);
    let inherited = by_hand(&base, &files, inherits, &files.mine);
    assert!(!same(&want, &inherited));
    for (negative, want) in [
        (of_negative().embeddings(&files.yours), want),
        (of_negative(), inherited),
    ] {
        let pair = base
            .encode_pair(positive.clone(), negative.clone())
            .unwrap();
        assert!(same(pair.negative(), &want), "pair");
        let pairs = [[positive.clone(), negative.clone()]];
        let pairs = base.encode_pairs(&pairs).unwrap();
        assert!(same(pairs[0].negative(), &want), "pairs");
        let pass = Pass::First { steps: 5 };
        let [_, side] = base
            .encode_schedule_pair(&positive, &negative, pass)
            .unwrap();
        let entry = &side.parts[0].entries[0];
        assert!(same(&entry.conditioning, &want), "schedules");
    }
}

/// A1111 skips an embedding of a LoRA where its folder has one of that name; unless that was skipped itself, for it is
/// not of the model's widths.
#[test]
fn a_file_of_the_folder_keeps_its_name() {
    let (base, files) = (tiny(Family::Sd1), files());
    let text = |worn: bool| {
        if worn {
            "glow <lora:film:0.8>"
        } else {
            "glow "
        }
    };
    let folder = |name: &str, key: &str, width: usize| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        save_with(&path, &[entry(key, &[1, width], 0.05)], &[]);
        folder
    };
    let film = files.loras.get("film").unwrap().unwrap();
    let worn = base.with_loras(&[film.at(0.8)]).unwrap();
    let none = Embeddings::default();
    let brought = by_hand(&base, &files, a1111(text(false), &none), &none);
    for (name, key, width, keeps) in [
        ("glow.safetensors", "emb_params", 128, true),
        ("styles/glow.safetensors", "emb_params", 128, true),
        ("glow.safetensors", "emb_params", 192, false),
        ("Glow.safetensors", "emb_params", 192, false),
    ] {
        let folder = folder(name, key, width);
        let set = Embeddings::folder(folder.path()).unwrap();
        let request = a1111(text(true), &set).loras(&files.loras);
        let made = base.encode(request.clone()).unwrap();
        let own = worn.encode(a1111(text(false), &set)).unwrap();
        assert!(!same(&own, &brought));
        assert!(same(&made, if keeps { &own } else { &brought }), "{name}");
        let [first, ..] = &base.readings(&request)[..] else {
            unreachable!()
        };
        let windows = first.texts[0].chunks.iter().next().unwrap();
        let n_vectors = if keeps { 1 } else { 2 };
        assert_eq!(windows.splices().len(), n_vectors, "{name}");
    }
}

#[test]
fn an_error_says_which_request_was_refused() {
    let (base, files) = (tiny(Family::Sd1), files());
    let request = |text| a1111(text, &files.mine).loras(&files.loras);
    let texts = ["a barn", FILM, "a <lora:broken:1>"];
    let batch = base.encode_batch(&texts.map(request)).unwrap_err();
    assert_eq!(batch.request(), Some(2));
    assert!(batch.to_string().starts_with("requests[2]: "), "{batch}");
    let pairs = texts.map(|text| [request(text), request("")]);
    assert_eq!(base.encode_pairs(&pairs).unwrap_err().request(), Some(2));
    assert_eq!(base.encode(request(texts[2])).unwrap_err().request(), None);
    let others = [texts[0], texts[1]].map(request);
    let of_others = tiny(Family::Sdxl).encode_batch(&others);
    assert_eq!(of_others.unwrap_err().request(), Some(1));
}

//! `--out` for other programs: kohya's caches and ComfyUI's files.

use sd_conditioner::Family;
use sd_conditioner::storage::{comfyui, diffusers, kohya};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{encode, floats, run};

const PROMPT: [&str; 2] = ["--positive", "a lighthouse at dusk"];

#[test]
fn other_kinds_hold_what_the_pair_holds() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let size = ["--size", "1216x832", "--crop", "8,16"];
    let more = [&PROMPT[..], &size].concat();
    encode("sdxl", &more, &path("a.safetensors")).expect(0);
    let pair = diffusers::load(path("a.safetensors")).unwrap().positive;
    let context = floats(pair.context());

    encode("sdxl", &more, &path("a_te_outputs.npz")).expect(0);
    let cached = kohya::load(path("a_te_outputs.npz")).unwrap();
    assert_eq!(floats(cached.context()), context);
    // As sd-scripts have it with --max_token_length 225.
    let long = [&more[..], &["--least-windows", "3"]].concat();
    encode("sdxl", &long, &path("b_te_outputs.npz")).expect(0);
    let cached = kohya::load(path("b_te_outputs.npz")).unwrap();
    assert_eq!(cached.context().dims()[1], 227);

    encode("sdxl", &more, &path("a.conditioning")).expect(0);
    let kept = comfyui::load(path("a.conditioning")).unwrap().entries;
    let entry = &kept.entries()[0];
    assert_eq!(entry.conditioning().family(), Family::Sdxl);
    assert_eq!(floats(entry.conditioning().context()), context);
    let sizes = entry.sizes();
    assert_eq!((sizes.width, sizes.height), (Some(1216), Some(832)));
    assert_eq!((sizes.crop_w, sizes.crop_h), (Some(8), Some(16)));
    assert_eq!(
        (sizes.target_width, sizes.target_height),
        (Some(1216), Some(832))
    );
}

#[test]
fn what_has_no_place_is_told() {
    let folder = tempdir().unwrap();
    let npz = folder.path().join("a_te_outputs.npz");
    let both = [&PROMPT[..], &["--negative", "fog"]].concat();
    let ran = encode("sdxl", &both, &npz).expect(0);
    assert!(ran.stderr.contains("the negative is not in it"), "{ran:#?}");
    let ran = encode("sd1", &PROMPT, &npz).expect(1);
    assert!(ran.error().contains("SDXL only"), "{ran:#?}");
    let steps = [&PROMPT[..], &["--profile", "a1111", "--steps", "20"]].concat();
    let ran = encode("sdxl", &steps, &npz).expect(1);
    assert!(ran.error().contains("step ranges"), "{ran:#?}");
}

/// A safetensors file was written under any name.
#[test]
fn endings_of_something_else_are_refused() {
    let folder = tempdir().unwrap();
    for (name, code) in [("a", 0), ("A.SafeTensors", 0), ("a.png", 1), ("a.pt", 1)] {
        let path = folder.path().join(name);
        let ran = encode("sd1", &PROMPT, &path).expect(code);
        assert_eq!(path.exists(), code == 0, "{name}");
        if code == 1 {
            let told = ran.error();
            assert!(
                told.contains(name) && told.contains(".conditioning"),
                "{told}"
            );
        }
    }
}

#[test]
fn inspect_knows_all_kinds() {
    let folder = tempdir().unwrap();
    for (name, layout) in [
        ("a.safetensors", "diffusers"),
        ("a_te_outputs.npz", "kohya"),
        ("a.conditioning", "comfyui"),
    ] {
        let path = folder.path().join(name);
        encode("sdxl", &PROMPT, &path).expect(0);
        let ran = run(&["inspect", "--json", path.to_str().unwrap()]).expect(0);
        let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(shown["what"], "conditioning");
        assert_eq!(shown["layout"], layout);
        assert_eq!(shown["family"], "sdxl");
        assert_eq!(shown["entries"][0]["rows"], 77);
        assert_eq!(shown["entries"][0]["pooled"], 256);
        let ran = run(&["inspect", path.to_str().unwrap()]).expect(0);
        assert!(ran.stdout.contains("77 × 384"), "{ran:#?}");
    }
    let other = folder.path().join("a.txt");
    std::fs::write(&other, "hello").unwrap();
    run(&["inspect", other.to_str().unwrap()]).expect(1);
}

//! Values that are not finite are not written, whatever the file is for.

use std::fs;

use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::encode;

const NOTHING: &str = r#"("cat", "dog").blend(1, -1)"#;
const COMPEL: [&str; 2] = ["--profile", "compel"];

#[test]
fn one_file_is_refused_and_side_and_tensor_are_named() {
    let folder = tempdir().unwrap();
    let large = ["--profile", "comfyui", "--positive", "a (cat:1e39)"];
    let narrow = [
        &["--profile", "comfyui", "--positive", "a cat"][..],
        &["--negative", "a (cat:1e7)", "--out-dtype", "f16"][..],
    ]
    .concat();
    let blend = [&COMPEL[..], &["--positive", "a", "--negative", NOTHING]].concat();
    let cases: [(&[&str], &str, &str); 5] = [
        (&large, "x.safetensors", "`prompt_embeds`: positive: "),
        (&large, "x_te_outputs.npz", "`hidden_state1`: positive: "),
        (&large, "x.conditioning", "`tensor_0`: positive: "),
        (
            &blend,
            "x.safetensors",
            "`negative_prompt_embeds`: negative: ",
        ),
        (&narrow, "x.safetensors", "`context`: negative: "),
    ];
    for (arguments, name, told) in cases {
        let ran = encode("sdxl", arguments, &folder.path().join(name)).expect(1);
        assert!(ran.error().contains(told), "{name}: {ran:#?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_schedule_with_such_a_step_is_refused() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("x.safetensors");
    // A1111 reads no exponents.
    let positive = format!("a [cat:(dog:1{}):0.5]", "0".repeat(39));
    let text = ["--positive", &positive, "--steps", "20"];
    let manner = ["--profile", "a1111", "--emphasis", "a1111-no-norm"];
    let ran = encode("sd1", &[&text[..], &manner].concat(), &out).expect(1);
    assert!(
        ran.error().contains("`prompt_embeds.1`: positive: "),
        "{ran:#?}"
    );
    assert!(!out.exists());
}

#[test]
fn such_lines_fail_alone() {
    let line = |id: &str, text: &str| serde_json::json!({"id": id, "positive": text});
    let lines = [
        line("one", "a cat"),
        line("two", NOTHING),
        line("three", "a"),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    let kinds: [&[&str]; 4] = [
        &["--format", "safetensors"],
        &["--format", "te-outputs"],
        &["--format", "conditioning"],
        &["--pack", "1MB"],
    ];
    for kind in kinds {
        let folder = tempdir().unwrap();
        let ran = requests(folder.path(), "sdxl", &lines, &[&COMPEL[..], kind].concat());
        assert_eq!(ran.code, 1, "{ran:#?}");
        assert!(ran.stderr.contains("2 written, 1 failed"), "{ran:#?}");
        assert!(ran.stderr.contains("line 2: tensor"), "{ran:#?}");
        assert!(ran.error().contains("NaN in f32"), "{ran:#?}");
        assert!(
            !written(folder.path())
                .iter()
                .any(|name| name.starts_with("two"))
        );
    }
}

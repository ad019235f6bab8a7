//! `encode --requests --resume` where a file has the name that it had, and holds something else.

use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use tempfile::tempdir;

use crate::requests::requests;

/// The width of the tiny encoder.
const WIDTH: usize = 128;

fn save(path: &Path, name: &str, shape: &[usize], value: f32) {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
    serialize_to_file([(name, view)], None, path).unwrap();
}

fn embedding(path: &Path, value: f32) {
    save(path, "emb_params", &[1, WIDTH], value);
}

fn lora(path: &Path, value: f32) {
    let name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj.diff";
    save(path, name, &[WIDTH, WIDTH], value);
}

const LINES: &str = concat!(
    r#"{"id":"plain","positive":"a cat"}"#,
    "\n",
    r#"{"id":"worn","positive":"a cat","loras":[{"file":"film.safetensors"}]}"#,
    "\n",
    r#"{"id":"named","positive":"a <s> cat","embeddings":[{"file":"style.safetensors","token":"<s>"}]}"#,
    "\n",
);

#[test]
fn another_content_is_another_request() {
    for pack in [&[][..], &["--pack", "2GB"]] {
        let folder = tempdir().unwrap();
        let [film, style] =
            ["film.safetensors", "style.safetensors"].map(|name| folder.path().join(name));
        lora(&film, 0.25);
        embedding(&style, 0.25);
        let more = [&["--profile", "diffusers", "--resume"], pack].concat();
        let run = || requests(folder.path(), "sd1", LINES, &more);
        run().expect(0);
        let again = run().expect(0);
        assert!(again.stderr.contains("3 done before"), "{}", again.stderr);
        for change in [&film, &style] {
            if change == &film {
                lora(change, 0.5);
            } else {
                embedding(change, 0.5);
            }
            let ran = run();
            if pack.is_empty() {
                let words = "1 written, 0 failed, 2 done before";
                assert!(ran.stderr.contains(words), "{}", ran.stderr);
                continue;
            }
            // What is packed cannot be taken out.
            assert_eq!(ran.code, 1);
            assert!(
                ran.stderr.contains("its files held something else"),
                "{}",
                ran.stderr
            );
        }
    }
}

/// A folder more makes those lines anew that name something in it.
#[test]
fn a_folder_that_was_added_or_changed_is_seen() {
    let folder = tempdir().unwrap();
    let set = folder.path().join("set");
    fs::create_dir(&set).unwrap();
    embedding(&set.join("style.safetensors"), 0.25);
    let lines = concat!(
        r#"{"id":"plain","positive":"a cat"}"#,
        "\n",
        r#"{"id":"named","positive":"a cat, embedding:style"}"#,
    );
    let run = |more: &[&str]| {
        let more = [&["--profile", "comfyui", "--resume"], more].concat();
        requests(folder.path(), "sd1", lines, &more)
            .expect(0)
            .stderr
    };
    let with = ["--embeddings", set.to_str().unwrap()];
    assert!(run(&[]).contains("2 written"));
    let one = "1 written, 0 failed, 1 done before";
    assert!(run(&with).contains(one));
    assert!(run(&with).contains("0 written, 0 failed, 2 done before"));
    embedding(&set.join("other.safetensors"), 0.25);
    assert!(run(&with).contains("0 written, 0 failed, 2 done before"));
    embedding(&set.join("style.safetensors"), 0.5);
    assert!(run(&with).contains(one));
    let file = crate::support::read(&folder.path().join("out/named.safetensors"));
    let named: serde_json::Value = serde_json::from_str(&file.metadata["embeddings"]).unwrap();
    assert_eq!(named[0]["name"], "style");
}

/// A file is named without the folder that it lies in, by ComfyUI and A1111.
#[test]
fn a_change_below_a_folder_is_seen() {
    let folder = tempdir().unwrap();
    let set = folder.path().join("set");
    fs::create_dir_all(set.join("below")).unwrap();
    let style = set.join("below/style.safetensors");
    let lines = concat!(
        r#"{"id":"one","profile":"comfyui","positive":"a cat, embedding:style"}"#,
        "\n",
        r#"{"id":"two","profile":"a1111","positive":"a style"}"#,
    );
    let run = || {
        let more = ["--resume", "--embeddings", set.to_str().unwrap()];
        let ran = requests(folder.path(), "sd1", lines, &more).expect(0);
        assert!(!ran.stderr.contains("unknown_embedding"), "{}", ran.stderr);
        ran.stderr
    };
    embedding(&style, 0.25);
    assert!(run().contains("2 written"));
    assert!(run().contains("0 written, 0 failed, 2 done before"));
    embedding(&style, 0.5);
    assert!(run().contains("2 written"));
}

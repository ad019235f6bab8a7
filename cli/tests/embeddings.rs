//! Textual-inversion embeddings: a folder's, and files that request lines give.

use tempfile::tempdir;

use crate::requests::{requests, written};
use crate::support::{Written, embedding, encode, read};

/// Channels of the tiny ViT-L.
const WIDTH: usize = 128;

#[test]
fn each_profile_names_them_its_own_way() {
    let folder = tempdir().unwrap();
    let files = folder.path().join("embeddings");
    std::fs::create_dir(&files).unwrap();
    embedding(&files.join("style.safetensors"), WIDTH);
    let out = folder.path().join("a");
    let state = |profile: &str, prompt: &str| -> Written {
        let more = [
            "--positive",
            prompt,
            "--profile",
            profile,
            "--embeddings",
            files.to_str().unwrap(),
        ];
        encode("sd1", &more, &out).expect(0);
        read(&out)
    };
    let cases = [
        ("comfyui", "a embedding:style"),
        ("a1111", "a style"),
        ("sd-cpp", "a style"),
        ("invokeai", "a <style>"),
    ];
    let rows: Vec<Vec<f32>> = cases
        .iter()
        .map(|(profile, prompt)| {
            state(profile, prompt).floats("prompt_embeds")[..4 * WIDTH].to_vec()
        })
        .collect();
    for (row, case) in rows.iter().zip(cases) {
        assert!(*row == rows[0], "{case:?}");
    }
    let word = state("comfyui", "a style").floats("prompt_embeds");
    assert_ne!(word[..4 * WIDTH], rows[0]);
}

#[test]
fn lines_give_files_and_tokens() {
    let folder = tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let file = folder.path().join("sub/style.safetensors");
    embedding(&file, WIDTH);
    let absolute = serde_json::json!(file);
    // Relative paths start at the requests file, wherever the command runs.
    let lines = [
        r#"{"id":"relative","embeddings":[{"file":"sub/style.safetensors","token":"<s>"}]}"#.to_owned(),
        format!(r#"{{"id":"absolute","embeddings":[{{"file":{absolute},"token":"<s>"}}]}}"#),
        r#"{"id":"bad","embeddings":[{"file":"sub/none.safetensors","token":"<s>"}]}"#.to_owned(),
        r#"{"id":"twice","embeddings":[{"file":"sub/style.safetensors","token":"<s>"},{"file":"sub/style.safetensors","token":"<s>"}]}"#.to_owned(),
        r#"{"id":"own","positive":"a style","embeddings":[{"file":"sub/style.safetensors"}]}"#.to_owned(),
        r#"{"id":"none"}"#.to_owned(),
    ];
    let more = ["--positive", "a <s>", "--profile", "diffusers"];
    let ran = requests(folder.path(), "sd1", &lines.join("\n"), &more).expect(1);
    let names = ["absolute", "none", "own", "relative"].map(|id| format!("{id}.safetensors"));
    assert_eq!(written(folder.path()), names);
    let error = |number: usize| {
        let place = format!("line {number}: ");
        let mut lines = ran.stderr.lines();
        lines
            .find(|line| line.starts_with("error: ") && line.contains(&place))
            .unwrap()
    };
    assert!(error(3).contains("none.safetensors"));
    assert!(error(4).contains("already taken"));
    let state = |id: &str| {
        let path = folder.path().join(format!("out/{id}.safetensors"));
        read(&path).floats("prompt_embeds")
    };
    assert_eq!(state("relative"), state("absolute"));
    assert_eq!(state("relative"), state("own"));
    assert_ne!(state("relative"), state("none"));
}

#[test]
fn lines_add_to_the_folder_and_null_leaves_it_out() {
    let folder = tempdir().unwrap();
    let files = folder.path().join("embeddings");
    std::fs::create_dir(&files).unwrap();
    embedding(&files.join("one.safetensors"), WIDTH);
    embedding(&folder.path().join("two.safetensors"), WIDTH);
    let lines = [
        r#"{"id":"folder"}"#,
        r#"{"id":"both","embeddings":[{"file":"two.safetensors","token":"two"}]}"#,
        r#"{"id":"null","embeddings":null}"#,
    ];
    let more = [
        "--positive",
        "embedding:one embedding:two",
        "--profile",
        "comfyui",
        "--embeddings",
        files.to_str().unwrap(),
    ];
    let ran = requests(folder.path(), "sd1", &lines.join("\n"), &more).expect(0);
    let told = |line: usize, name: &str| {
        let (place, name) = (format!("line {line}: "), format!("{name:?}"));
        let mut lines = ran.stderr.lines();
        lines.any(|line| {
            line.contains(&place) && line.contains(&name) && line.contains("unknown_embedding")
        })
    };
    let all = [
        (1, "one"),
        (1, "two"),
        (2, "one"),
        (2, "two"),
        (3, "one"),
        (3, "two"),
    ];
    let told: Vec<bool> = all.map(|(line, name)| told(line, name)).into();
    assert_eq!(
        told,
        [false, true, false, false, true, true],
        "{}",
        ran.stderr
    );
}

#[test]
fn wrong_widths_and_wrong_folders_are_said() {
    let folder = tempdir().unwrap();
    let files = folder.path().join("embeddings");
    std::fs::create_dir(&files).unwrap();
    embedding(&files.join("wide.safetensors"), 64);
    let out = folder.path().join("a");
    let flags = [
        "--positive",
        "a embedding:wide",
        "--profile",
        "comfyui",
        "--embeddings",
    ];
    let ran = encode(
        "sd1",
        &[&flags[..], &[files.to_str().unwrap()]].concat(),
        &out,
    )
    .expect(0);
    assert!(ran.stderr.contains("64"), "{}", ran.stderr);
    let ran = encode("sd1", &[&flags[..], &["/no/such/folder"]].concat(), &out).expect(1);
    assert!(ran.error().contains("/no/such/folder"));
}

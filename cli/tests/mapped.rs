//! `--map-files`: whether weights stay where the system has their file.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sd_conditioner::weights::EncoderId;
use tempfile::tempdir;

use crate::files::write;
use crate::support::{command, run};

/// A tiny ViT-L in f32.
fn checkpoint(folder: &Path) -> PathBuf {
    let (name, root) = ("tiny.safetensors", "cond_stage_model.transformer.");
    write(folder, name, EncoderId::ClipL, root, &[])
}

#[test]
fn a_single_prompt_maps_unless_told_not_to() {
    let folder = tempdir().unwrap();
    let path = checkpoint(folder.path());
    let path = path.to_str().unwrap();
    let start = ["--weights", path, "--family", "sd1"];
    let mut written = Vec::new();
    for (more, mapped) in [
        (&[][..], true),
        (&["--map-files", "auto"], true),
        (&["--map-files", "always"], true),
        (&["--map-files", "never"], false),
        (&["--map-files", "always", "--dtype", "bf16"], false),
    ] {
        let few = ["--runs", "1", "--batch", "1"];
        let table = run(&[&["bench"], &start[..], &few, more].concat()).expect(0);
        let head = table.stdout.lines().next().unwrap();
        assert_eq!(head.ends_with(", mapped"), mapped, "{more:?}: {head}");
        let out = folder.path().join("out.safetensors");
        let target = ["--positive", "a cat", "--out", out.to_str().unwrap()];
        run(&[&["encode"], &start[..], &target, more].concat()).expect(0);
        written.push(fs::read(&out).unwrap());
        fs::remove_file(&out).unwrap();
    }
    assert!(written[1..4].iter().all(|other| *other == written[0]));
}

/// A file of requests may take hours, in which somebody may change the weights.
#[cfg(target_os = "linux")]
#[test]
fn requests_map_only_where_they_are_told_to() {
    let folder = tempdir().unwrap();
    let path = checkpoint(folder.path());
    let path = path.to_str().unwrap();
    for (more, mapped) in [(&[][..], false), (&["--map-files", "always"], true)] {
        let out = folder.path().join(format!("out-{mapped}"));
        let start = ["encode", "--weights", path, "--family", "sd1"];
        let target = ["--requests", "-", "--out-dir", out.to_str().unwrap()];
        let mut child = command(&[&start[..], &target, more].concat())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, r#"{{"id":"a","positive":"a cat"}}"#).unwrap();
        let begun = Instant::now();
        while !out.join("a.safetensors").exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
        assert_eq!(maps.contains("tiny.safetensors"), mapped, "{more:?}");
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

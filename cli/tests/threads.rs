//! Systems that give fewer threads than there should be.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "a test says what it could not try")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Ran, command};

/// A user whom limits hold: root is above them.
const NOBODY: u32 = 65534;

/// Runs the command with a limit of processes; `None`, and a word, where that cannot be tried.
fn limited(processes: u32, arguments: &[&str], folder: &Path) -> Option<Ran> {
    let plain = command(arguments);
    let mut shell = Command::new("sh");
    let limit = format!("ulimit -u {processes} 2>/dev/null || ulimit -p {processes}");
    let script = format!("{{ {limit}; }} && exec \"$0\" \"$@\"");
    shell.arg("-c").arg(script);
    shell.arg(plain.get_program()).args(plain.get_args());
    shell.env("RAYON_NUM_THREADS", "4").current_dir(folder);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        shell.uid(NOBODY).gid(NOBODY);
    }
    let ran = Ran::of(shell.output().unwrap());
    // The shell could not start it: a limit it may not set, a folder that this user may not enter.
    if [2, 126, 127].contains(&ran.code) && !ran.stderr.contains("random weights") {
        println!("NOT RUN: it takes a user whom limits hold: {}", ran.stderr);
        return None;
    }
    Some(ran)
}

/// A folder that anybody may write to.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

const ENCODE: [&str; 9] = [
    "encode",
    "--random-weights",
    "--tiny",
    "--family",
    "sdxl",
    "--positive",
    "a barn",
    "--out",
    "pair.safetensors",
];

/// It ended in a panic of rayon's.
#[test]
fn fewer_threads_do() {
    let folder = folder();
    command(&ENCODE)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let made = folder.path().join("pair.safetensors");
    let expected = fs::read(&made).unwrap();
    fs::remove_file(&made).unwrap();
    for processes in [1, 2, 4] {
        let Some(ran) = limited(processes, &ENCODE, folder.path()) else {
            return;
        };
        let ran = ran.expect(0);
        assert!(
            ran.stderr.contains("refuses more threads"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("1 of 4"), "{}", ran.stderr);
        assert!(fs::read(&made).unwrap() == expected);
        fs::remove_file(&made).unwrap();
    }
}

/// What is measured with so many threads takes so many.
#[test]
fn a_bench_wants_all_of_its_threads() {
    let folder = folder();
    let bench = [
        "bench",
        "--random-weights",
        "7",
        "--tiny",
        "--family",
        "sd1",
        "--threads",
        "4",
        "--runs",
        "1",
    ];
    let Some(ran) = limited(2, &bench, folder.path()) else {
        return;
    };
    let ran = ran.expect(1);
    assert!(ran.stderr.contains("cannot be started"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

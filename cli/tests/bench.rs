//! `bench`: what its rows say. How long things take is not tested.

use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Family};
use serde_json::{Map, Value};

use crate::support::run;

const STAGES: [&str; 7] = [
    "load", "first", "tokens", "encode", "assemble", "pair", "batch",
];

const KEYS: [&str; 10] = [
    "family",
    "device",
    "dtype",
    "weights",
    "threads",
    "windows",
    "stage",
    "median_ms",
    "min_ms",
    "runs",
];

fn bench(family: &str, more: &[&str]) -> String {
    let start = ["bench", "--random-weights", "73", "--tiny", "--family"];
    run(&[&start[..], &[family], more].concat())
        .expect(0)
        .stdout
}

fn rows(out: &str) -> Vec<Map<String, Value>> {
    let rows = out.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

#[test]
fn every_line_of_json_has_the_same_keys() {
    let flags = "--windows|3|--threads|2|--runs|4|--batch|5|--dtype|bf16|--json";
    let flags: Vec<&str> = flags.split('|').collect();
    for family in ["sd1", "sd2", "sdxl", "refiner"] {
        let rows = rows(&bench(family, &flags));
        let stages: Vec<&str> = rows
            .iter()
            .map(|row| row["stage"].as_str().unwrap())
            .collect();
        assert_eq!(stages, STAGES);
        for (row, windows) in rows.iter().zip([0, 2, 3, 3, 2, 2, 5]) {
            let keys: Vec<&str> = row.keys().map(String::as_str).collect();
            let mut wanted = KEYS.to_vec();
            wanted.sort_unstable();
            assert_eq!(keys, wanted);
            assert_eq!(row["family"], family);
            assert_eq!(row["weights"], "random 73, tiny");
            assert_eq!(
                (&row["device"], &row["dtype"]),
                (&"cpu".into(), &"bf16".into())
            );
            assert_eq!(
                (&row["threads"], &row["windows"]),
                (&2.into(), &windows.into())
            );
            let once = matches!(row["stage"].as_str().unwrap(), "load" | "first");
            assert_eq!(row["runs"], if once { 1 } else { 4 });
            let [median, least] = ["median_ms", "min_ms"].map(|key| row[key].as_f64().unwrap());
            assert!(least > 0.0 && median >= least, "{row:?}");
        }
    }
}

#[test]
fn people_get_a_table() {
    let out = bench("sd1", &["--threads", "1", "--runs", "1"]);
    let mut lines = out.lines();
    let head = lines.next().unwrap();
    assert!(head.starts_with("sd1 on cpu, f32, 1 thread, "), "{head}");
    assert!(head.ends_with(", weights: random 73, tiny"), "{head}");
    assert_eq!(lines.next(), Some(""));
    let first = lines.map(|line| line.split_whitespace().next().unwrap());
    let first: Vec<&str> = first.collect();
    assert_eq!(first[0], "stage");
    assert_eq!(first[1..], STAGES);
}

/// A pair unless something else is asked for.
#[test]
fn windows_are_two_by_default() {
    let rows = rows(&bench("sd1", &["--runs", "1", "--json"]));
    let encode = rows.iter().find(|row| row["stage"] == "encode");
    assert_eq!(encode.unwrap()["windows"], 2);
}

#[test]
fn plain_operations_can_be_asked_for() {
    let head = |kernels: &str| {
        let out = bench(
            "sd1",
            &["--runs", "1", "--batch", "1", "--kernels", kernels],
        );
        out.lines().next().unwrap().to_owned()
    };
    assert!(head("plain").contains("kernels: reference"));
    let steady = head("steady");
    let fastest = Conditioner::builder()
        .random_weights(Family::Sd1, SyntheticSize::Tiny, 73)
        .unwrap();
    assert!(
        steady.contains(&format!("kernels: {}", fastest.kernels())),
        "{steady}"
    );
}

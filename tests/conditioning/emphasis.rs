//! Methods that no stored result covers, against their formulas in f64; and what holds for all.

use half::f16;
use sd_conditioner::candle_core::{Device, Tensor};
use sd_conditioner::conditioning::Emphasis;
use sd_conditioner::profile::{DIALECTS, EqualLengths};
use sd_conditioner::tokens::Split;
use sd_conditioner::weights::SyntheticSize;
use sd_conditioner::{Conditioner, Dialect, Family, Profile, Request};

use crate::support::close::{assert_close, bits, values};

/// The methods that take strengths from brackets.
const METHODS: [&str; 9] = [
    "comfyui",
    "a1111-original",
    "a1111-no-norm",
    "ignore",
    "compel",
    "compel-remove",
    "lpw",
    "sd-cpp",
    "adv:length:comfy++",
];

fn tiny(family: Family) -> Conditioner {
    Conditioner::builder()
        .random_weights(family, SyntheticSize::Tiny, 11)
        .unwrap()
}

fn long() -> String {
    let words = "a (red:1.25) barn, [old] trees, ";
    words.repeat(12)
}

/// Rows of the states before emphasis, and the strength of each.
struct Before {
    rows: Vec<Vec<f64>>,
    strengths: Vec<f64>,
}

fn before(conditioner: &Conditioner, request: Request<'_>) -> Before {
    let chunks = conditioner.chunks(request.clone()).unwrap();
    let plain = conditioner
        .encode(request.emphasis(Emphasis::Ignore))
        .unwrap();
    let rows = plain.context().get(0).unwrap();
    let width = rows.dim(1).unwrap();
    let rows = values(&rows).chunks(width).map(<[f64]>::to_vec).collect();
    let windows = chunks[0].1.iter();
    Before {
        rows,
        strengths: windows.flat_map(|chunk| *chunk.strengths()).collect(),
    }
}

fn check(what: &str, conditioner: &Conditioner, request: Request<'_>, expected: &[Vec<f64>]) {
    let ours = conditioner.encode(request).unwrap();
    let shape = ours.context().shape().clone();
    let flat: Vec<f64> = expected.concat();
    let expected = Tensor::from_vec(flat, shape, &Device::Cpu).unwrap();
    assert_close(what, ours.context(), &expected, 1e-6);
}

fn mean(rows: &[Vec<f64>]) -> f64 {
    let count: usize = rows.iter().map(Vec::len).sum();
    rows.iter().flatten().sum::<f64>() / count as f64
}

/// `z · w` with the mean of some rows restored.
fn restored(rows: &[Vec<f64>], strengths: &[f64]) -> Vec<Vec<f64>> {
    let scaled: Vec<Vec<f64>> = rows
        .iter()
        .zip(strengths)
        .map(|(row, w)| row.iter().map(|z| z * w).collect())
        .collect();
    let ratio = mean(rows) / mean(&scaled);
    let scale = |row: &Vec<f64>| row.iter().map(|z| z * ratio).collect();
    scaled.iter().map(scale).collect()
}

#[test]
fn stable_diffusion_cpp_restores_both_encoders_together() {
    for family in [Family::Sd1, Family::Sdxl] {
        let (conditioner, text) = (tiny(family), long());
        let request = Request::new(&text).profile(Profile::SdCpp);
        let before = before(&conditioner, request.clone());
        let windows = before.rows.chunks(77).zip(before.strengths.chunks(77));
        let expected = windows.flat_map(|(rows, strengths)| restored(rows, strengths));
        let expected: Vec<Vec<f64>> = expected.collect();
        check("sd-cpp", &conditioner, request, &expected);
    }
}

#[test]
fn lpw_restores_the_whole_prompt() {
    let (conditioner, text) = (tiny(Family::Sd2), long());
    let request = Request::new(&text)
        .dialect(Dialect::LpwSd)
        .split(Split::Lpw)
        .emphasis(Emphasis::Lpw);
    let before = before(&conditioner, request.clone());
    let expected = restored(&before.rows, &before.strengths);
    check("lpw", &conditioner, request, &expected);
}

#[test]
fn lpw_sdxl_moves_away_from_the_last_row() {
    let (conditioner, text) = (tiny(Family::Sdxl), long());
    let request = Request::new(&text)
        .dialect(Dialect::LpwSdxl)
        .split(Split::LpwSdxl)
        .emphasis(Emphasis::LpwSdxl);
    let before = before(&conditioner, request.clone());
    assert_ne!(before.rows.len() % 77, 0, "the last window is short");
    let mut expected = Vec::new();
    for (rows, strengths) in before.rows.chunks(77).zip(before.strengths.chunks(77)) {
        let last = rows.last().unwrap();
        for (row, strength) in rows.iter().zip(strengths) {
            let w = f16::from_f64(*strength).to_f64();
            let pairs = row.iter().zip(last);
            expected.push(pairs.map(|(z, e)| e + (z - e) * w).collect());
        }
    }
    check("lpw-sdxl", &conditioner, request, &expected);
}

#[test]
fn strength_one_is_plain_bit_for_bit() {
    let conditioner = tiny(Family::Sdxl);
    for (name, dialect) in DIALECTS {
        let text = match dialect {
            Dialect::Compel => "a (red)1.0 barn, old trees",
            _ => "a (red:1.0) barn, old trees",
        };
        if dialect == Dialect::Plain {
            continue;
        }
        for method in METHODS {
            let request = |method: &str| {
                let emphasis = Emphasis::named(method).unwrap();
                Request::new(text).dialect(dialect).emphasis(emphasis)
            };
            let ours = conditioner.encode(request(method)).unwrap();
            let plain = conditioner.encode(request("ignore")).unwrap();
            assert!(
                bits(ours.context()) == bits(plain.context()),
                "{name} {method}"
            );
        }
    }
}

#[test]
fn strengths_change_something() {
    let conditioner = tiny(Family::Sdxl);
    for method in METHODS.iter().filter(|method| **method != "ignore") {
        let encode = |text| {
            let emphasis = Emphasis::named(method).unwrap();
            let request = Request::new(text).dialect(Dialect::A1111);
            conditioner.encode(request.emphasis(emphasis)).unwrap()
        };
        let (weak, strong) = (encode("a (red:0.7) barn"), encode("a (red:1.4) barn"));
        assert!(bits(weak.context()) != bits(strong.context()), "{method}");
        let pooled = |side: &sd_conditioner::Conditioning| side.pooled().map(bits);
        assert!(
            pooled(&weak) == pooled(&strong),
            "{method}: pooled vectors have no strength"
        );
    }
}

#[test]
fn names_are_read_back() {
    for method in METHODS
        .iter()
        .chain(&["none", "lpw-sdxl", "adv:none:A1111:numpy1"])
    {
        assert_eq!(Emphasis::named(method).unwrap().name(), **method);
    }
    for wrong in [
        "",
        "ComfyUI",
        "adv",
        "adv:none",
        "adv:none:a1111",
        "adv:max:comfy",
    ] {
        assert_eq!(Emphasis::named(wrong), None, "{wrong}");
    }
}

/// Windows that make the shorter side as long as the other have no strengths.
#[test]
fn the_shorter_side_is_filled_whatever_the_method() {
    for family in [Family::Sd1, Family::Sdxl] {
        let text = tiny(family);
        let in_manner = |text| {
            let request = Request::new(text).profile(Profile::SdCpp);
            request.equal_lengths(EqualLengths::EmptyWindows)
        };
        let long = long();
        let pair = text.encode_pair(in_manner(long.as_str()), in_manner("(fog:1.2)"));
        let pair = pair.unwrap();
        let alone = text.encode(in_manner("(fog:1.2)").as_negative()).unwrap();
        let empty = text.encode(in_manner("")).unwrap();
        let (rows, negative) = (pair.positive().tokens(), pair.negative().context());
        assert!(rows > 77 && negative.dim(1).unwrap() == rows);
        let windows = (0..rows).step_by(77);
        for (number, start) in windows.enumerate() {
            let window = negative.narrow(1, start, 77).unwrap();
            let want = if number == 0 { &alone } else { &empty };
            let what = format!("{family}, window {number}");
            assert_close(&what, &window, want.context(), 1e-6);
        }
    }
}

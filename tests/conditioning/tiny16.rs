//! Encoders 16 channels wide, whose weights follow a formula of their own: every tool's numbers
//! once more, from other runs of the reference programs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sd_conditioner::candle_core::{DType, Device, Tensor};
use sd_conditioner::conditioning::Emphasis;
use sd_conditioner::encoder::{ClipConfig, ClipSkip, Pooled, Readout, Window};
use sd_conditioner::kernels::Activation;
use sd_conditioner::tokens::{Chunk, Split};
use sd_conditioner::weights::{EncoderId, TensorInfo, TensorSource};
use sd_conditioner::{Conditioner, Conditioning, Family, Profile, Request, Result};
use serde::Deserialize;

use crate::support::close::distance;

const WIDTH: usize = 16;
const LAYERS: u64 = 3;

/// The stored results have seven digits.
const BAR: f64 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    outputs: BTreeMap<String, Stored>,
}

#[derive(Deserialize)]
struct Stored {
    shape: Vec<usize>,
    data: Vec<f32>,
}

static GOLDEN: LazyLock<Golden> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../golden/conditioning/tiny16.json")).unwrap()
});

/// Tensors by the formula: number n, element k, seed s.
#[derive(Clone, Copy, Debug)]
struct Formula {
    seed: u64,
}

/// Name, number, shape, scale, offset.
type Rule = (String, u64, Vec<usize>, f32, f32);

fn rules() -> Vec<Rule> {
    let (wide, inner) = (vec![WIDTH], vec![2 * WIDTH]);
    let square = vec![WIDTH, WIDTH];
    let mut rules: Vec<Rule> = vec![
        ("token_embedding".into(), 0, vec![49408, WIDTH], 1.0, 0.0),
        ("position_embedding".into(), 1, vec![77, WIDTH], 1.0, 0.0),
        ("final_ln.weight".into(), 2, wide.clone(), 0.5, 1.0),
        ("final_ln.bias".into(), 3, wide.clone(), 0.5, 0.25),
        ("projection".into(), 4, square.clone(), 1.0, 0.0),
    ];
    for layer in 0..LAYERS {
        let parts = [
            ("ln1.weight", wide.clone(), 0.5, 1.0),
            ("ln1.bias", wide.clone(), 0.5, 0.0),
            ("q.weight", square.clone(), 1.0, 0.0),
            ("q.bias", wide.clone(), 1.0, 0.0),
            ("k.weight", square.clone(), 1.0, 0.0),
            ("k.bias", wide.clone(), 1.0, 0.0),
            ("v.weight", square.clone(), 1.0, 0.0),
            ("v.bias", wide.clone(), 1.0, 0.0),
            ("out.weight", square.clone(), 1.0, 0.0),
            ("out.bias", wide.clone(), 1.0, 0.0),
            ("ln2.weight", wide.clone(), 0.5, 1.0),
            ("ln2.bias", wide.clone(), 0.5, 0.0),
            ("fc1.weight", vec![2 * WIDTH, WIDTH], 1.0, 0.0),
            ("fc1.bias", inner.clone(), 1.0, 0.0),
            ("fc2.weight", vec![WIDTH, 2 * WIDTH], 1.0, 0.0),
            ("fc2.bias", wide.clone(), 1.0, 0.0),
        ];
        for (number, (name, shape, scale, offset)) in (16 * (layer + 1)..).zip(parts) {
            rules.push((
                format!("layers.{layer}.{name}"),
                number,
                shape,
                scale,
                offset,
            ));
        }
    }
    rules
}

/// splitmix64 of seed, number and place, as a number around the offset.
fn value(seed: u64, number: u64, place: u64, scale: f32, offset: f32) -> f32 {
    let z = (seed << 56).wrapping_add(number << 32).wrapping_add(place);
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let z = z ^ (z >> 31);
    #[expect(clippy::cast_possible_truncation, reason = "exact: 24 bits")]
    let unit = ((z >> 40) as f64 / f64::from(1 << 24) - 0.5) as f32;
    offset + scale * unit
}

impl TensorSource for Formula {
    fn names(&self) -> Vec<String> {
        rules().into_iter().map(|rule| rule.0).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (_, _, shape, _, _) = rules().into_iter().find(|rule| rule.0 == name)?;
        Some(TensorInfo {
            shape,
            stored: "F32".into(),
        })
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let rule = rules().into_iter().find(|rule| rule.0 == name).unwrap();
        let (_, number, shape, scale, offset) = rule;
        let count = shape.iter().product::<usize>() as u64;
        let values = (0..count).map(|place| value(self.seed, number, place, scale, offset));
        let tensor = Tensor::from_vec(values.collect::<Vec<f32>>(), shape, device)?;
        Ok(tensor.to_dtype(dtype)?)
    }
}

fn config(encoder: EncoderId, activation: Activation) -> ClipConfig {
    ClipConfig {
        encoder,
        width: WIDTH,
        layers: 3,
        full_layers: 3,
        heads: 2,
        mlp_width: 2 * WIDTH,
        vocabulary: 49408,
        activation,
        projection: Some(WIDTH),
    }
}

fn load(family: Family) -> Conditioner {
    let l = config(EncoderId::ClipL, Activation::QuickGelu);
    let g = config(EncoderId::OpenClipG, Activation::GeluErf);
    let (first, second) = (Formula { seed: 1 }, Formula { seed: 2 });
    let all: Vec<(ClipConfig, &dyn TensorSource)> = vec![(l, &first), (g, &second)];
    let meant = all
        .into_iter()
        .filter(|(config, _)| family.encoders().contains(&config.encoder));
    let meant: Vec<_> = meant.collect();
    Conditioner::builder().load_sources(family, &meant).unwrap()
}

/// Compares `ours` with the first channels or rows that are stored.
#[track_caller]
fn check(name: &str, ours: &Tensor) {
    let stored = &GOLDEN.outputs[name];
    let theirs = Tensor::from_slice(&stored.data, stored.shape.clone(), &Device::Cpu).unwrap();
    let found = distance(ours, &theirs);
    assert!(found.relative <= BAR, "{name}: {found:?}");
}

const PR: &str = "a (cat:1.3), [dog] (bird:0.5)";

fn long() -> String {
    let cats = ["cat"; 70].join(" ");
    format!("{cats} (red green blue yellow white black:1.2) dog")
}

#[test]
fn plain_states() {
    let sd1 = load(Family::Sd1);
    let probe = Formula { seed: 1 }.load("token_embedding", DType::F32, &Device::Cpu);
    let first = probe.unwrap().get(0).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(
        first[..4],
        [0.288_781_7, 0.480_345_3, -0.287_354_23, 0.461_183_6]
    );
    let chunks = sd1.chunks("a cat, [dog] bird").unwrap();
    let chunk: &Chunk = chunks[0].1.iter().next().unwrap();
    let clip = sd1.encoders().next().unwrap();
    for layer in 0..=3 {
        let readout = Readout {
            layer,
            final_norm: false,
            pooled: Pooled::Projected,
            pooled_layer: 3,
        };
        let encoded = clip.encode(&[Window::from(chunk)], &[readout]).unwrap();
        check(&format!("hf_L.hidden_states.{layer}"), &encoded.hidden);
        check("hf_L.text_embeds", encoded.projected.as_ref().unwrap());
    }
    let last = sd1.encode("a cat, [dog] bird").unwrap();
    check("hf_L.last_hidden_state", last.context());
    let config = clip.config();
    let skip = ClipSkip::Diffusers(9);
    assert!(Readout::of(Family::Sd1, config, skip, Pooled::Skip).is_err());
}

#[test]
fn comfyui() {
    let (sd1, refiner) = (load(Family::Sd1), load(Family::Refiner));
    let long = long();
    let prompts = [
        ("plain", "a cat, [dog] bird"),
        ("weighted", "a (cat:1.3), [dog] (bird:0.5)"),
        ("long", long.as_str()),
    ];
    for (name, text) in prompts {
        let request = Request::new(text).profile(Profile::ComfyUi);
        let ours = sd1.encode(request.clone()).unwrap();
        check(&format!("comfy_L_last_ln.{name}"), ours.context());
        check(
            &format!("comfy_L_pooled_unprojected.{name}"),
            ours.pooled().unwrap(),
        );
        if name != "long" {
            let ours = refiner.encode(request.clone()).unwrap();
            check(&format!("comfy_G_penultimate_raw.{name}"), ours.context());
            check(
                &format!("comfy_G_pooled_projected.{name}"),
                ours.pooled().unwrap(),
            );
        }
        if name == "plain" {
            let ours = sd1.encode(request.clip_skip(-2)).unwrap();
            check("comfy_L_setlastlayer_-2.plain", ours.context());
        }
    }
}

#[test]
fn adv_clip_emb() {
    let sd1 = load(Family::Sd1);
    let names = GOLDEN
        .outputs
        .keys()
        .filter_map(|name| name.strip_prefix("adv_L."));
    let mut n_cases = 0;
    for name in names {
        let emphasis = format!("adv:{}:numpy1", name.replacen('.', ":", 1));
        let request = Request::new(PR).profile(Profile::ComfyUi);
        let request = request.emphasis(Emphasis::named(&emphasis).unwrap());
        check(
            &format!("adv_L.{name}"),
            sd1.encode(request).unwrap().context(),
        );
        n_cases += 1;
    }
    assert_eq!(n_cases, 8);
}

#[test]
fn a1111() {
    let (sd1, refiner) = (load(Family::Sd1), load(Family::Refiner));
    for profile in [Profile::A1111, Profile::Forge] {
        let request = Request::new(PR).profile(profile);
        let modes = [
            ("Original", "a1111-original"),
            ("No norm", "a1111-no-norm"),
            ("Ignore", "ignore"),
            ("None", "none"),
        ];
        for (name, mode) in modes {
            let request = request.clone().emphasis(Emphasis::named(mode).unwrap());
            let ours = sd1.encode(request).unwrap();
            check(&format!("a1111_L_last_ln.{name}"), ours.context());
        }
        let ours = sd1.encode(request.clone().clip_skip(2)).unwrap();
        check("a1111_L_clipskip2", ours.context());
        let ours = refiner.encode(request.clone()).unwrap();
        check("a1111_G_penultimate_raw", ours.context());
        check("a1111_G_pooled_projected", ours.pooled().unwrap());
        let both = [request, Request::new("a (dog:0.7)").profile(profile)];
        let both = sd1.encode_together(&both).unwrap();
        let both: Vec<&Tensor> = both.iter().map(Conditioning::context).collect();
        check("a1111_L_last_ln.batch2", &Tensor::cat(&both, 0).unwrap());
    }
}

#[test]
fn a1111_windows() {
    let sd1 = load(Family::Sd1);
    let comma = format!("{} , {}", ["cat"; 60].join(" "), "(dog:1.2) ".repeat(16));
    for (name, text) in [
        ("break", "a (cat:1.3) BREAK (dog:0.8) b"),
        ("comma", &comma),
    ] {
        let ours = sd1
            .encode(Request::new(text).profile(Profile::A1111))
            .unwrap();
        check(&format!("a1111_L_last_ln.{name}"), ours.context());
    }
}

#[test]
fn compel() {
    let (sd1, sdxl) = (load(Family::Sd1), load(Family::Sdxl));
    let text = "a (cat)1.3, [dog] (bird)0.5";
    let request = |text: &'static str| {
        let request = Request::new(text).profile(Profile::Compel);
        request.split(Split::Truncate)
    };
    let prompts = [
        ("mask", text),
        ("plain", "a cat, [dog] bird"),
        ("blend", r#"("a cat","a dog+").blend(0.3,0.6)"#),
        ("and", r#"("a cat","a dog+").and(1,0.5)"#),
    ];
    for (name, text) in prompts {
        check(
            &format!("compel_L.{name}"),
            sd1.encode(request(text)).unwrap().context(),
        );
    }
    let removed = request(text).emphasis(Emphasis::CompelRemove);
    check("compel_L.remove", sd1.encode(removed).unwrap().context());
    let both = sdxl.encode(request(text)).unwrap();
    let first = both.context().narrow(2, 0, WIDTH).unwrap();
    check("compel_L_penultimate_raw.mask", &first);
    let pooled = sd1.encode(request(text).pooled(Pooled::Projected)).unwrap();
    check(
        "compel_L_pooled_projected_raw_text",
        pooled.pooled().unwrap(),
    );
}

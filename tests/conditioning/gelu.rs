//! stable-diffusion.cpp's GELU: the tanh form in ViT-H and ViT-bigG, beside the encoders' own.

use std::collections::BTreeMap;

use sd_conditioner::candle_core::{D, DType, Device, Tensor};
use sd_conditioner::conditioner::{CacheOptions, DiskCache};
use sd_conditioner::encoder::{ClipConfig, ClipSkip, ClipText, Gelu, Pooled, Readout};
use sd_conditioner::kernels::Activation;
use sd_conditioner::tokens::Chunk;
use sd_conditioner::weights::{EncoderId, Lora, Synthetic, SyntheticSize, TensorSource};
use sd_conditioner::{Builder, Conditioner, Conditioning, Family, Profile, Request};

use crate::support::close::{assert_close, bits, distance};
use crate::support::entries::{Stored, save};
use crate::support::loras;

const TEXT: &str = "a lighthouse at dusk, oil on canvas";

fn tiny(builder: Builder, family: Family) -> Conditioner {
    let text = builder.random_weights(family, SyntheticSize::Tiny, 73);
    text.unwrap()
}

fn off() -> Builder {
    Conditioner::builder().cache(CacheOptions::OFF)
}

fn tanh(text: &str) -> Request<'_> {
    Request::new(text).profile(Profile::SdCpp)
}

fn own(text: &str) -> Request<'_> {
    tanh(text).gelu(Gelu::Own)
}

fn same(one: &Conditioning, other: &Conditioning) -> bool {
    let pooled = |side: &Conditioning| side.pooled().map(bits);
    bits(one.context()) == bits(other.context()) && pooled(one) == pooled(other)
}

/// An encoder in f64, in nothing but candle's operations.
struct Twin {
    config: ClipConfig,
    tensors: BTreeMap<String, Tensor>,
}

impl Twin {
    fn of(clip: &ClipText) -> Twin {
        let mut tensors = BTreeMap::new();
        let all = clip.with_changes(&mut |name, tensor| {
            tensors.insert(name.to_owned(), tensor.to_dtype(DType::F64)?);
            Ok(None)
        });
        let config = all.unwrap().config().clone();
        Twin { config, tensors }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        let product = x.matmul(&self.tensor(&format!("{name}.weight")).t().unwrap());
        let bias = self.tensor(&format!("{name}.bias"));
        product.unwrap().broadcast_add(bias).unwrap()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap());
        let centered = centered.unwrap();
        let variance = centered.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let deviation = (variance + 1e-5).unwrap().sqrt().unwrap();
        let normed = centered.broadcast_div(&deviation).unwrap();
        let [weight, bias] = ["weight", "bias"].map(|leaf| self.tensor(&format!("{name}.{leaf}")));
        let scaled = normed.broadcast_mul(weight).unwrap();
        scaled.broadcast_add(bias).unwrap()
    }

    fn attention(&self, x: &Tensor, layer: &str) -> Tensor {
        let later = (0..77 * 77).map(|place| {
            let is_later = place % 77 > place / 77;
            if is_later { f64::NEG_INFINITY } else { 0.0 }
        });
        let later = Tensor::from_vec(later.collect(), (77, 77), &Device::Cpu).unwrap();
        let [q, k, v] = ["q", "k", "v"].map(|part| self.linear(x, &format!("{layer}.{part}")));
        let width = self.config.width / self.config.heads;
        let heads = (0..self.config.heads).map(|head| {
            let [q, k, v] = [&q, &k, &v].map(|all| all.narrow(1, head * width, width).unwrap());
            let scores = q.contiguous().unwrap().matmul(&k.t().unwrap());
            let scores = (scores.unwrap() / (width as f64).sqrt()).unwrap();
            let powers = (scores + &later).unwrap().exp().unwrap();
            let sums = powers.sum_keepdim(D::Minus1).unwrap();
            let shares = powers.broadcast_div(&sums).unwrap();
            shares.matmul(&v.contiguous().unwrap()).unwrap()
        });
        let mixed = Tensor::cat(&heads.collect::<Vec<_>>(), 1).unwrap();
        self.linear(&mixed, &format!("{layer}.out"))
    }

    /// As ggml has them: the tanh form, and that of the encoders that are 768 channels wide.
    fn activate(&self, x: &Tensor) -> Tensor {
        if self.config.encoder == EncoderId::ClipL {
            let powers = (x * -1.702).unwrap().exp().unwrap();
            return (x / (powers + 1.0).unwrap()).unwrap();
        }
        let cubic = (x.sqr().unwrap() * 0.044_715).unwrap();
        let inner = (x * 0.797_884_560_802_865_4).unwrap();
        let inner = (inner * (cubic + 1.0).unwrap()).unwrap();
        let share = ((inner.tanh().unwrap() + 1.0).unwrap() * 0.5).unwrap();
        (x * share).unwrap()
    }

    /// The state after all layers up to this one.
    fn state(&self, chunk: &Chunk, layers: usize) -> Tensor {
        let ids = Tensor::new(chunk.ids().as_slice(), &Device::Cpu).unwrap();
        let rows = self.tensor("token_embedding").index_select(&ids, 0);
        let mut x = (rows.unwrap() + self.tensor("position_embedding")).unwrap();
        for layer in 0..layers {
            let layer = format!("layers.{layer}");
            let normed = self.norm(&x, &format!("{layer}.ln1"));
            x = (x + self.attention(&normed, &layer)).unwrap();
            let inner = self.linear(
                &self.norm(&x, &format!("{layer}.ln2")),
                &format!("{layer}.fc1"),
            );
            x = (x + self.linear(&self.activate(&inner), &format!("{layer}.fc2"))).unwrap();
        }
        x
    }

    /// Hidden states, and the pooled vector where the U-Net takes one.
    fn read(&self, family: Family, chunk: &Chunk) -> (Tensor, Option<Tensor>) {
        let kind = Readout::pooled_of(family, self.config.encoder);
        let readout = Readout::of(family, &self.config, ClipSkip::Default, kind).unwrap();
        let hidden = self.state(chunk, readout.layer);
        let hidden = if readout.final_norm {
            self.norm(&hidden, "final_ln")
        } else {
            hidden
        };
        let pooled = (kind != Pooled::Skip).then(|| {
            let last = self.norm(&self.state(chunk, readout.pooled_layer), "final_ln");
            let row = last.narrow(0, chunk.end(), 1).unwrap();
            let projection = self.tensor("projection").t().unwrap();
            row.matmul(&projection).unwrap()
        });
        (hidden, pooled)
    }
}

/// What stable-diffusion.cpp would make of a text of one window without strengths.
fn twin(text: &Conditioner) -> (Tensor, Option<Tensor>) {
    let chunks = text.chunks(tanh(TEXT)).unwrap();
    let read = text.encoders().zip(&chunks).map(|(clip, (_, chunks))| {
        let chunk = chunks.iter().next().unwrap();
        Twin::of(&clip).read(text.family(), chunk)
    });
    let (hidden, pooled): (Vec<Tensor>, Vec<Option<Tensor>>) = read.unzip();
    let hidden = Tensor::cat(&hidden, 1).unwrap().unsqueeze(0).unwrap();
    (hidden, pooled.into_iter().flatten().next())
}

#[track_caller]
fn assert_twin(text: &Conditioner, what: &str) {
    let (hidden, pooled) = twin(text);
    let ours = text.encode(tanh(TEXT)).unwrap();
    assert_close(what, ours.context(), &hidden, 2e-6);
    assert_eq!(ours.pooled().is_some(), pooled.is_some(), "{what}");
    if let Some((ours, pooled)) = ours.pooled().zip(pooled) {
        assert_close(&format!("{what}: pooled"), ours, &pooled, 2e-6);
    }
}

/// Plain operations and the layers in one piece, of every family, are what ggml's formulas give.
#[test]
fn the_profile_has_the_tools_formulas() {
    for family in Family::ALL {
        assert_twin(&tiny(off(), family), &format!("{family}"));
        let plain = tiny(off().reference_kernels(), family);
        assert_twin(&plain, &format!("{family}, plain"));
    }
}

/// The forms differ by up to 4.7e-4 in each value, which shows, and is no other encoder.
#[test]
fn it_differs_from_the_exact_one_a_little_and_not_at_all_in_vit_l() {
    for family in Family::ALL {
        let text = tiny(off(), family);
        let [one, other] = [tanh(TEXT), own(TEXT)].map(|request| text.encode(request).unwrap());
        if family == Family::Sd1 {
            assert!(same(&one, &other));
            continue;
        }
        let apart = distance(one.context(), other.context());
        println!("{family}: {:.1e}", apart.relative);
        assert!(
            (2e-5..2e-3).contains(&apart.relative),
            "{family}: {apart:?}"
        );
        if let Some((one, other)) = one.pooled().zip(other.pooled()) {
            let apart = distance(one, other);
            assert!(
                (2e-5..2e-3).contains(&apart.relative),
                "{family}: {apart:?}"
            );
        }
        if family == Family::Sdxl {
            let first = |side: &Conditioning| bits(&side.context().narrow(2, 0, 128).unwrap());
            assert!(first(&one) == first(&other), "ViT-L has quick GELU in both");
        }
    }
}

/// One call of many manners, equal texts among them: each result is what its request alone gives.
#[test]
fn both_may_be_in_one_call() {
    for family in Family::ALL {
        let text = tiny(off(), family);
        let requests = [tanh(TEXT), own(TEXT), tanh("fog"), own("fog"), tanh(TEXT)];
        let together = text.encode_batch(&requests).unwrap();
        let alone = requests
            .clone()
            .map(|request| text.encode(request).unwrap());
        assert!(
            together
                .iter()
                .zip(&alone)
                .all(|(one, other)| same(one, other))
        );
        assert_eq!(same(&together[0], &together[1]), family == Family::Sd1);
        // The sides of a pair, and plans that go together.
        let pairs = [[tanh(TEXT), own("fog")], [own(TEXT), tanh("fog")]];
        let both = text.encode_pairs(&pairs).unwrap();
        for (pair, [positive, negative]) in both.iter().zip([[0, 3], [1, 2]]) {
            assert!(same(pair.positive(), &alone[positive]));
            assert!(bits(pair.negative().context()) == bits(alone[negative].context()));
        }
    }
}

/// A bare negative is read as its prompt is, texts of a schedule, too.
#[test]
fn a_negative_follows_its_prompt() {
    let text = tiny(off(), Family::Sd2);
    let pair = text.encode_pair(tanh(TEXT), "fog").unwrap();
    let want = text.encode(tanh("fog").as_negative()).unwrap();
    assert!(same(pair.negative(), &want));
    let pass = sd_conditioner::prompt::schedule::Pass::First { steps: 8 };
    let scheduled = Request::new("a [cat:dog:0.5]").profile(Profile::A1111);
    let entries = |request: Request<'_>| {
        let timeline = text.encode_schedule(&request, pass).unwrap();
        let entries = timeline.parts[0].entries.iter();
        entries
            .map(|entry| entry.conditioning.clone())
            .collect::<Vec<_>>()
    };
    let [one, other] = [Gelu::Tanh, Gelu::Own].map(|gelu| entries(scheduled.clone().gelu(gelu)));
    assert_eq!(one.len(), 2);
    assert!(one.iter().zip(&other).all(|(one, other)| !same(one, other)));
    let dog = Request::new("a dog")
        .profile(Profile::A1111)
        .gelu(Gelu::Tanh);
    assert!(same(&one[1], &text.encode(dog).unwrap()));
}

/// Neither in memory nor on disk is one the other.
#[test]
fn what_is_kept_is_kept_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache {
        folder: folder.path().to_owned(),
        max_bytes: 1 << 30,
    };
    let load = |memory_bytes| {
        let disk = Some(disk.clone());
        let builder = Conditioner::builder().cache(CacheOptions { memory_bytes, disk });
        tiny(builder, Family::Sdxl)
    };
    let plain = tiny(off(), Family::Sdxl);
    let want = [tanh(TEXT), own(TEXT)].map(|request| plain.encode(request).unwrap());
    let check = |text: &Conditioner, counts: [u64; 3]| {
        let read = [tanh(TEXT), own(TEXT)].map(|request| text.encode(request).unwrap());
        assert!(read.iter().zip(&want).all(|(one, want)| same(one, want)));
        let stats = text.cache_stats();
        assert_eq!([stats.hits, stats.disk_hits, stats.misses], counts);
    };
    let first = load(64 << 20);
    // ViT-L's window is the same in both.
    check(&first, [1, 0, 3]);
    check(&first, [5, 0, 3]);
    check(&load(0), [0, 4, 0]);
    // Whichever comes first.
    let other = load(64 << 20);
    assert!(same(&other.encode(own(TEXT)).unwrap(), &want[1]));
    check(&other, [3, 3, 0]);
}

/// A LoRA changes both; taking it off gives both back.
#[test]
fn loras_are_on_in_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    for family in [Family::Sd2, Family::Sdxl] {
        let entries = loras::entries(family, SyntheticSize::Tiny, "kohya", (7, Stored::F32));
        save(&path, &entries);
        let text = tiny(Conditioner::builder(), family);
        let bare = [tanh(TEXT), own(TEXT)].map(|request| text.encode(request).unwrap());
        let worn = text
            .with_loras(&[Lora::open(&path).unwrap().at(0.8)])
            .unwrap();
        assert_twin(&worn, &format!("{family}, worn"));
        let dressed = [tanh(TEXT), own(TEXT)].map(|request| worn.encode(request).unwrap());
        assert!(!same(&dressed[0], &dressed[1]));
        assert!(
            bare.iter()
                .zip(&dressed)
                .all(|(one, other)| !same(one, other))
        );
        let again = worn.with_loras(&[]).unwrap().encode(tanh(TEXT)).unwrap();
        assert!(same(&again, &bare[0]));
    }
}

/// The tool goes by the width and reads no configuration.
#[test]
fn a_configuration_does_not_matter_to_the_tool() {
    let source = |id, seed| Synthetic::new(id, SyntheticSize::Tiny, seed);
    let (l, g) = (source(EncoderId::ClipL, 1), source(EncoderId::OpenClipG, 2));
    let load = |activations: Option<[Activation; 2]>| {
        let each = [(EncoderId::ClipL, &l), (EncoderId::OpenClipG, &g)];
        let mut sources: Vec<(ClipConfig, &dyn TensorSource)> = each
            .into_iter()
            .map(|(id, source)| (ClipConfig::detect(id, source).unwrap(), source as _))
            .collect();
        for ((config, _), activation) in sources.iter_mut().zip(activations.into_iter().flatten()) {
            config.activation = activation;
        }
        off().load_sources(Family::Sdxl, &sources).unwrap()
    };
    let want = load(None).encode(tanh(TEXT)).unwrap();
    let usual = load(None).encode(own(TEXT)).unwrap();
    for named in [
        [Activation::GeluErf, Activation::QuickGelu],
        [Activation::GeluTanh; 2],
        [Activation::QuickGelu, Activation::GeluErf],
    ] {
        let text = load(Some(named));
        assert!(same(&text.encode(tanh(TEXT)).unwrap(), &want), "{named:?}");
        let is_usual = same(&text.encode(own(TEXT)).unwrap(), &usual);
        assert_eq!(
            is_usual,
            named == [Activation::QuickGelu, Activation::GeluErf]
        );
    }
}

/// Not a tensor is there twice.
#[test]
fn tensors_are_shared() {
    let clip = tiny(off(), Family::Refiner).encoders().next().unwrap();
    let other = clip.with_activation(Activation::GeluTanh);
    assert_eq!(other.config().activation, Activation::GeluTanh);
    let ids = |clip: &ClipText| {
        let mut ids = Vec::new();
        let same = clip.with_changes(&mut |name, tensor| {
            // Query, key and value are views that are made anew.
            let views = [".q.", ".k.", ".v."].iter().any(|part| name.contains(part));
            ids.extend((!views).then(|| tensor.id()));
            Ok(None)
        });
        same.map(|_| ids).unwrap()
    };
    assert_eq!(ids(&clip), ids(&other));
}

//! Seeded stand-in weights: every number is a function of seed, encoder, tensor name and index.

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use super::layout::names::{LAYERS, PROJECTION, split_numbered};
use super::layout::{Dimensions, huggingface};
use super::{EncoderId, TensorInfo, TensorSource};
use crate::error::{Error, ErrorKind, Result};

/// How large a synthetic encoder is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyntheticSize {
    /// For tests: width 128 and 3 layers (L), 192 and 4 (H), 256 and 4 (G).
    Tiny,
    /// The shape of the real encoder.
    Full,
}

/// Random weights of one encoder. Embeddings made with them mean nothing, but they are the same
/// everywhere: a generator in any language that follows the rule gives the same bits.
///
/// 1. key = the first 8 bytes, little-endian, of SHA-256 of `seed/encoder/name`, where `name` is
///    the one transformers uses (`text_model.encoder.layers.0.mlp.fc1.weight`).
/// 2. For element i: z = key + (i + 1) · 0x9E3779B97F4A7C15, then the splitmix64 finalizer.
/// 3. x = (z >> 40) / 2^23 − 1.
/// 4. value = x · scale in f32; layer-norm weights then + 1. The scale depends on the role.
///
/// Every matrix has the scale that keeps a unit variance, query and key 1.5 times that, so that
/// hidden states stay near 1 and a mistake in the arithmetic shows.
///
/// ```
/// use sd_conditioner::weights::{EncoderId, Synthetic, SyntheticSize, TensorSource};
/// let source = Synthetic::new(EncoderId::ClipL, SyntheticSize::Tiny, 73);
/// assert_eq!(source.info("layers.2.fc1.weight").unwrap().shape, [512, 128]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synthetic {
    encoder: EncoderId,
    dimensions: Dimensions,
    seed: u64,
    projection: bool,
}

impl Synthetic {
    /// An encoder of the given size, with a projection.
    pub fn new(encoder: EncoderId, size: SyntheticSize, seed: u64) -> Synthetic {
        let (width, n_layers) = dimensions(encoder, size);
        let dimensions = Dimensions {
            width,
            n_layers,
            vocabulary: 49408,
            positions: 77,
        };
        Synthetic {
            encoder,
            dimensions,
            seed,
            projection: true,
        }
    }

    /// The same with another number of layers; diffusers folders of SD 2.x have one fewer.
    #[must_use]
    pub fn with_layers(mut self, n_layers: usize) -> Synthetic {
        self.dimensions.n_layers = n_layers;
        self
    }

    /// The same without the projection.
    #[must_use]
    pub fn without_projection(mut self) -> Synthetic {
        self.projection = false;
        self
    }

    /// Which encoder it stands in for.
    pub fn encoder(&self) -> EncoderId {
        self.encoder
    }

    /// The values of one tensor, row by row, or `None` if there is no such tensor.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        let shape = self.shape(name)?;
        let (scale, offset) = scale_of(name, &shape);
        let space = self.encoder.tag();
        let key = key_of(&format!(
            "{}/{space}/{}",
            self.seed,
            transformers_name(name)?
        ));
        Some(fill(key, shape.iter().product(), scale, offset))
    }

    /// Values outside an encoder (a textual inversion, a LoRA, filler): the same rule for the
    /// string `seed/space/name`, with the scale given.
    pub fn plain(seed: u64, space: &str, name: &str, count: usize, scale: f64) -> Vec<f32> {
        fill(key_of(&format!("{seed}/{space}/{name}")), count, scale, 0.0)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let there = name != PROJECTION || self.projection;
        self.dimensions.shape_of(name).filter(|_| there)
    }
}

impl TensorSource for Synthetic {
    fn names(&self) -> Vec<String> {
        let mut names = self.dimensions.names();
        names.extend(self.projection.then(|| PROJECTION.to_owned()));
        names
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        Some(TensorInfo {
            shape: self.shape(name)?,
            stored: "F32".to_owned(),
        })
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.shape(name);
        let (Some(values), Some(shape)) = (self.values(name), shape) else {
            let message = format!("the synthetic {} has no such tensor", self.encoder);
            return Err(Error::new(ErrorKind::MissingTensor, message).at_tensor(name));
        };
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)?)
    }
}

/// Width and layers. The full sizes are those of OpenAI's ViT-L/14 and `open_clip`'s ViT-H-14 and
/// ViT-bigG-14.
const fn dimensions(encoder: EncoderId, size: SyntheticSize) -> (usize, usize) {
    match (encoder, size) {
        (EncoderId::ClipL, SyntheticSize::Tiny) => (128, 3),
        (EncoderId::OpenClipH, SyntheticSize::Tiny) => (192, 4),
        (EncoderId::OpenClipG, SyntheticSize::Tiny) => (256, 4),
        (EncoderId::ClipL, SyntheticSize::Full) => (768, 12),
        (EncoderId::OpenClipH, SyntheticSize::Full) => (1024, 24),
        (EncoderId::OpenClipG, SyntheticSize::Full) => (1280, 32),
    }
}

/// The name that the key of a tensor is made from.
fn transformers_name(canonical: &str) -> Option<String> {
    if canonical == PROJECTION {
        return Some("text_projection.weight".to_owned());
    }
    let (name, _) = huggingface::NAMING.file_name(canonical)?;
    Some(format!("{}{name}", huggingface::ROOT))
}

/// Scale and offset by role.
fn scale_of(canonical: &str, shape: &[usize]) -> (f64, f32) {
    let role = split_numbered(canonical, LAYERS).map_or(canonical, |(_, rest)| rest);
    let fan_in = shape.last().copied().unwrap_or(1) as f64;
    match role {
        "token_embedding" => (0.03, 0.0),
        "position_embedding" => (0.01, 0.0),
        "ln1.weight" | "ln2.weight" | "final_ln.weight" => (0.1, 1.0),
        "final_ln.bias" => (0.5, 0.0),
        "q.weight" | "k.weight" => (1.5 * (3.0 / fan_in).sqrt(), 0.0),
        _ if shape.len() == 1 => (0.05, 0.0),
        _ => ((3.0 / fan_in).sqrt(), 0.0),
    }
}

fn key_of(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    let first: [u8; 8] = std::array::from_fn(|index| digest[index]);
    u64::from_le_bytes(first)
}

/// The weyl step and the two multipliers of splitmix64.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
const MULTIPLIERS: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];

#[expect(
    clippy::cast_possible_truncation,
    reason = "the rule rounds the scale to f32"
)]
fn fill(key: u64, count: usize, scale: f64, offset: f32) -> Vec<f32> {
    let scale = scale as f32;
    let steps = (1..=count as u64).map(|step| key.wrapping_add(step.wrapping_mul(GAMMA)));
    if offset == 0.0 {
        steps.map(|state| uniform(state) * scale).collect()
    } else {
        steps.map(|state| uniform(state) * scale + offset).collect()
    }
}

/// A multiple of 2^-23 in [-1, 1).
fn uniform(mut state: u64) -> f32 {
    state = (state ^ (state >> 30)).wrapping_mul(MULTIPLIERS[0]);
    state = (state ^ (state >> 27)).wrapping_mul(MULTIPLIERS[1]);
    state ^= state >> 31;
    (state >> 40) as f32 / 8_388_608.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(encoder: EncoderId, name: &str) -> Vec<u32> {
        let values = Synthetic::new(encoder, SyntheticSize::Tiny, 73)
            .values(name)
            .unwrap();
        values.iter().take(4).map(|value| value.to_bits()).collect()
    }

    /// The two probes that the rule's README prints.
    #[test]
    fn probes_of_the_rule() {
        let norm = "text_model.encoder.layers.0.layer_norm1.weight";
        assert_eq!(key_of(&format!("73/clip_l/{norm}")), 0xa2fb_c58a_0407_5bb3);
        let want = [0x3f85_08f9, 0x3f70_3366, 0x3f74_a67e, 0x3f8c_6c66];
        assert_eq!(bits(EncoderId::ClipL, "layers.0.ln1.weight"), want);
        let want = [0xbe26_dfa9, 0x3e24_dd93, 0x3e62_486a, 0xbe15_b014];
        assert_eq!(bits(EncoderId::ClipL, "layers.0.q.weight"), want);
    }

    #[test]
    fn scales_by_role() {
        let check = |name: &str, shape: &[usize], want: f64| {
            assert_eq!(scale_of(name, shape).0.to_bits(), want.to_bits(), "{name}");
        };
        check("token_embedding", &[49408, 128], 0.03);
        check("position_embedding", &[77, 128], 0.01);
        check("layers.1.ln2.weight", &[128], 0.1);
        check("layers.1.ln2.bias", &[128], 0.05);
        check("final_ln.weight", &[128], 0.1);
        check("final_ln.bias", &[128], 0.5);
        check(
            "layers.0.k.weight",
            &[128, 128],
            1.5 * (3.0_f64 / 128.0).sqrt(),
        );
        check("layers.0.v.weight", &[128, 128], (3.0_f64 / 128.0).sqrt());
        check("layers.0.fc2.weight", &[128, 512], (3.0_f64 / 512.0).sqrt());
        check("layers.0.q.bias", &[128], 0.05);
        check("projection", &[128, 128], (3.0_f64 / 128.0).sqrt());
    }

    #[test]
    fn layers_and_projection_can_be_left_out() {
        let source = Synthetic::new(EncoderId::OpenClipH, SyntheticSize::Tiny, 1);
        assert_eq!(source.names().len(), 4 + 16 * 4 + 1);
        let source = source.with_layers(3).without_projection();
        assert_eq!(source.names().len(), 4 + 16 * 3);
        assert!(source.info("layers.3.q.weight").is_none());
        assert!(source.load("projection", DType::F32, &Device::Cpu).is_err());
        let tensor = source
            .load("layers.2.q.weight", DType::BF16, &Device::Cpu)
            .unwrap();
        assert_eq!(
            (tensor.dims(), tensor.dtype()),
            (&[192, 192][..], DType::BF16)
        );
    }
}

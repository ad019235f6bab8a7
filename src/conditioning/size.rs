//! SDXL's size conditioning: which numbers, in which order, and how each becomes 256 channels.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::weights::Family;

/// Channels that one number becomes (`ConcatTimestepEmbedderND(256)`, sgm/modules/encoders).
const CHANNELS: usize = 256;

/// The slowest frequency's divisor (`timestep_embedding`, sgm/modules/diffusionmodules/util.py).
const MAX_PERIOD: f64 = 10000.0;

/// Aesthetic scores of the refiner for a positive and a negative prompt (diffusers
/// `pipeline_stable_diffusion_xl_img2img.py`; `sdxl_refiner_high_aesthetic_score` of A1111).
const AESTHETIC: [f32; 2] = [6.0, 2.5];

/// What SDXL is told about the picture's size, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeHints {
    /// Width of the original picture.
    pub width: u32,
    /// Height of the original picture.
    pub height: u32,
    /// Left edge of the crop.
    pub crop_left: u32,
    /// Top edge of the crop.
    pub crop_top: u32,
    /// Width of the target; the original's where `None`.
    pub target_width: Option<u32>,
    /// Height of the target; the original's where `None`.
    pub target_height: Option<u32>,
    /// The refiner's aesthetic score; 6 for a positive and 2.5 for a negative prompt where `None`.
    pub aesthetic_score: Option<f32>,
}

impl Default for SizeHints {
    /// SDXL's native 1024×1024, uncropped.
    fn default() -> SizeHints {
        SizeHints::new(1024, 1024)
    }
}

impl SizeHints {
    /// An uncropped picture of this size.
    pub const fn new(width: u32, height: u32) -> SizeHints {
        SizeHints {
            width,
            height,
            crop_left: 0,
            crop_top: 0,
            target_width: None,
            target_height: None,
            aesthetic_score: None,
        }
    }

    /// The numbers in the order of the U-Net: height before width, top before left. `None` for
    /// families that take none.
    pub fn numbers(&self, family: Family, negative: bool) -> Option<Vec<f32>> {
        let pixels = |value: u32| value as f32;
        let mut numbers = [self.height, self.width, self.crop_top, self.crop_left]
            .map(pixels)
            .to_vec();
        match family {
            Family::Sd1 | Family::Sd2 => return None,
            Family::Sdxl => numbers.extend([
                pixels(self.target_height.unwrap_or(self.height)),
                pixels(self.target_width.unwrap_or(self.width)),
            ]),
            Family::Refiner => {
                numbers.push(
                    self.aesthetic_score
                        .unwrap_or(AESTHETIC[usize::from(negative)]),
                );
            }
        }
        Some(numbers)
    }
}

/// In which precision the size numbers are held before they are embedded.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SizePrecision {
    /// f32 (`ComfyUI`, Forge, stable-diffusion.cpp).
    Full,
    /// The model's data type (diffusers, A1111): f16 rounds odd sizes above 2048, bf16 sizes above
    /// 256.
    Model,
}

/// The numbers as a tensor `[1, n]` in f32.
pub(super) fn time_ids(
    numbers: &[f32],
    (precision, model): (SizePrecision, DType),
    device: &Device,
) -> Result<Tensor> {
    if let Some(bad) = numbers.iter().find(|number| !number.is_finite()) {
        return Err(Error::new(
            ErrorKind::Request,
            format!("a size or score of {bad}"),
        ));
    }
    let exact = Tensor::from_slice(numbers, (1, numbers.len()), &Device::Cpu)?;
    let held = match precision {
        SizePrecision::Full => exact,
        SizePrecision::Model => exact.to_dtype(model)?.to_dtype(DType::F32)?,
    };
    let rounded = held.flatten_all()?.to_vec1::<f32>()?;
    match numbers
        .iter()
        .zip(rounded)
        .find(|(_, held)| !held.is_finite())
    {
        Some((number, _)) => Err(too_large(*number, model)),
        None => Ok(held.to_device(device)?),
    }
}

fn too_large(number: f32, model: DType) -> Error {
    let model = model.as_str();
    let message = format!(
        "a size or score of {number} is infinite in {model}, the encoders' type, in which this profile holds it"
    );
    let hint = "take a smaller one, encoders in bf16 or f32, or a profile that holds sizes in f32";
    Error::new(ErrorKind::Request, message).hint(hint)
}

/// `[batch, n] → [batch, 256 n]`: for each number, 128 cosines and then 128 sines of it times
/// `exp(-ln(10000) · i / 128)`, all in f32.
pub(super) fn embed(time_ids: &Tensor) -> Result<Tensor> {
    let rows = time_ids.to_vec2::<f32>()?;
    let frequencies = frequencies();
    let mut values = Vec::with_capacity(time_ids.elem_count() * CHANNELS);
    for number in rows.iter().flatten() {
        values.extend(
            frequencies
                .iter()
                .map(|frequency| (number * frequency).cos()),
        );
        values.extend(
            frequencies
                .iter()
                .map(|frequency| (number * frequency).sin()),
        );
    }
    let shape = (rows.len(), time_ids.dim(1)? * CHANNELS);
    Ok(Tensor::from_vec(values, shape, time_ids.device())?)
}

/// Frequencies that the reference programs hold one unit in the last place above the nearest f32:
/// the vector `exp` of `PyTorch`'s CPU build is not correctly rounded. Times a size of a thousand
/// pixels one unit shows in the fifth digit. Read off the reference programs' own vectors.
const ROUNDED_UP: [usize; 3] = [13, 44, 119];

/// `exp(-ln(10000) · i / 128)`, each step rounded to f32 as the reference programs do.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the reference rounds to f32 at these two places"
)]
fn frequencies() -> Vec<f32> {
    let half = CHANNELS / 2;
    let scale = -(MAX_PERIOD.ln() as f32);
    let mut frequencies: Vec<f32> = (0..half)
        .map(|index| f64::from(scale * index as f32 / half as f32).exp() as f32)
        .collect();
    for index in ROUNDED_UP {
        frequencies[index] = frequencies[index].next_up();
    }
    frequencies
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values of the published embedding: (number, channel, value).
    const KNOWN: &[(f32, usize, f32)] = &[
        (1024.0, 0, 0.987_354),
        (1024.0, 1, -0.537_617),
        (1024.0, 2, 0.683_457),
        (1024.0, 64, -0.685_707),
        (1024.0, 127, 0.993_952),
        (1024.0, 128, -0.158_533),
        (1024.0, 129, -0.843_189),
        (1024.0, 192, -0.727_878),
        (1024.0, 255, 0.109_818),
        (6.0, 0, 0.960_17),
        (6.0, 64, 0.998_201),
        (6.0, 129, -0.644_029),
        (0.0, 77, 1.0),
        (0.0, 200, 0.0),
    ];

    #[test]
    fn cosines_come_first() {
        for (number, channel, value) in KNOWN {
            let ids = Tensor::from_slice(&[*number], (1, 1), &Device::Cpu).unwrap();
            let row = embed(&ids).unwrap().to_vec2::<f32>().unwrap().remove(0);
            assert!(
                (row[*channel] - value).abs() < 2e-6,
                "{number} {channel}: {}",
                row[*channel]
            );
        }
    }
}

//! Masks: how much an entry counts at each place.

use candle_core::{DType, Device, Tensor};

use super::{LatentArea, LatentSize};
use crate::error::{Error, ErrorKind, Result};

/// The shortest side of a mask's bounding box, in latent pixels (`comfy/samplers.py`).
const SHORTEST: usize = 8;

/// Where a mask applies (`set_cond_area`, which becomes `set_area_to_bounds`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskArea {
    /// In the whole picture, or the area that is set.
    Whole,
    /// In its bounding box, which becomes the area.
    Bounds,
}

/// One or several masks of one size, `[masks, height, width]`, of any resolution; several are for
/// the pictures of a batch.
#[derive(Clone, Debug)]
pub struct Mask {
    /// f32, on the CPU.
    tensor: Tensor,
}

impl Mask {
    /// From `[height, width]` or `[masks, height, width]`, no side 0.
    pub fn new(tensor: &Tensor) -> Result<Mask> {
        let tensor = match tensor.rank() {
            2 => tensor.unsqueeze(0)?,
            _ => tensor.clone(),
        };
        let (masks, height, width) = tensor.dims3()?;
        if masks == 0 || height == 0 || width == 0 {
            let message = format!("a mask of {masks}x{height}x{width} has no place");
            return Err(Error::new(ErrorKind::Request, message));
        }
        let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(Mask { tensor })
    }

    /// `[masks, height, width]` in f32 on the CPU.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Brought to the size of latents, bilinear, half-pixel centers (`common_upscale`,
    /// `comfy/utils.py`).
    pub(super) fn resized(&self, latent: LatentSize) -> Result<Mask> {
        let (masks, height, width) = self.tensor.dims3()?;
        if (height, width) == (latent.height, latent.width) {
            return Ok(self.clone());
        }
        let values = self.tensor.flatten_all()?.to_vec1::<f32>()?;
        let rows = taps(height, latent.height);
        let columns = taps(width, latent.width);
        let mut resized = Vec::with_capacity(masks * rows.len() * columns.len());
        for plane in values.chunks_exact(height * width) {
            for row in &rows {
                let at = |y: usize, x: usize| plane[y * width + x];
                let mix = |column: &Tap| {
                    let blend = |y| column.mix(at(y, column.from), at(y, column.to));
                    row.mix(blend(row.from), blend(row.to))
                };
                resized.extend(columns.iter().map(mix));
            }
        }
        let shape = (masks, latent.height, latent.width);
        let tensor = Tensor::from_vec(resized, shape, &Device::Cpu)?;
        Ok(Mask { tensor })
    }

    /// The smallest rectangle around everything that is not zero, at least 8 each way; 8x8 at the
    /// top left if everything is.
    pub(super) fn bounds(&self) -> Result<LatentArea> {
        let (_, height, width) = self.tensor.dims3()?;
        let values = self.tensor.flatten_all()?.to_vec1::<f32>()?;
        let mut sides: Option<[usize; 4]> = None;
        for (place, value) in values.iter().enumerate() {
            if *value != 0.0 {
                let (y, x) = (place / width % height, place % width);
                let [top, left, bottom, right] = sides.unwrap_or([y, x, y, x]);
                sides = Some([top.min(y), left.min(x), bottom.max(y), right.max(x)]);
            }
        }
        let [top, left, bottom, right] = sides.unwrap_or_default();
        Ok(LatentArea {
            height: (bottom - top + 1).max(SHORTEST),
            width: (right - left + 1).max(SHORTEST),
            y: top,
            x: left,
        })
    }
}

/// Two places of a row that are mixed into one.
struct Tap {
    from: usize,
    to: usize,
    share: f32,
}

impl Tap {
    fn mix(&self, from: f32, to: f32) -> f32 {
        (1.0 - self.share) * from + self.share * to
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and below the number of places"
)]
fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    let tap = |place: usize| {
        let source = ((place as f32 + 0.5) * scale - 0.5).max(0.0);
        let low = (source as usize).min(from - 1);
        Tap {
            from: low,
            to: (low + 1).min(from - 1),
            share: (source - low as f32).min(1.0),
        }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&[f32]]) -> Mask {
        let values: Vec<f32> = rows.concat();
        let shape = (rows.len(), rows[0].len());
        Mask::new(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
    }

    /// Values of `torch.nn.functional.interpolate(mode="bilinear")`.
    #[test]
    fn resized_bilinearly() {
        let small = mask(&[&[0.0, 1.0], &[2.0, 4.0]]);
        let latent = LatentSize {
            height: 4,
            width: 4,
        };
        let large = small.resized(latent).unwrap();
        let rows = large.tensor().get(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows[0], [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(rows[1], [0.5, 0.8125, 1.4375, 1.75]);
        assert_eq!(rows[3], [2.0, 2.5, 3.5, 4.0]);
        let back = LatentSize {
            height: 1,
            width: 2,
        };
        let row = large.resized(back).unwrap();
        let row = row
            .tensor()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(row, [1.1875, 2.3125]);
    }

    #[test]
    fn bounds_are_at_least_eight_each_way() {
        let mut rows = vec![vec![0.0; 20]; 20];
        let bounds = |rows: &[Vec<f32>]| {
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let area = mask(&rows).bounds().unwrap();
            [area.height, area.width, area.y, area.x]
        };
        assert_eq!(bounds(&rows), [8, 8, 0, 0]);
        rows[3][5] = 0.5;
        assert_eq!(bounds(&rows), [8, 8, 3, 5]);
        rows[18][6] = -1.0;
        assert_eq!(bounds(&rows), [16, 8, 3, 5]);
    }

    #[test]
    fn a_mask_has_places() {
        let empty = Tensor::zeros((1, 0, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(Mask::new(&empty).is_err());
        let flat = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
        assert!(Mask::new(&flat).is_err());
    }
}

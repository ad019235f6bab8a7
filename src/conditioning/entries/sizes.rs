//! Size numbers of an entry under the names that `ComfyUI` has for them.

use super::LatentSize;
use crate::conditioning::SizeHints;

/// Which side of the guidance an entry is on: the refiner's aesthetic score depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What is wanted.
    Positive,
    /// What is not.
    Negative,
}

impl Side {
    pub(super) fn is_negative(self) -> bool {
        self == Side::Negative
    }
}

/// What SDXL and its refiner are told, in pixels; `None` where nothing was set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sizes {
    /// Width of the original picture.
    pub width: Option<u32>,
    /// Height of the original picture.
    pub height: Option<u32>,
    /// Left edge of the crop.
    pub crop_w: Option<u32>,
    /// Top edge of the crop.
    pub crop_h: Option<u32>,
    /// Width of the target.
    pub target_width: Option<u32>,
    /// Height of the target.
    pub target_height: Option<u32>,
    /// The refiner's score.
    pub aesthetic_score: Option<f64>,
}

impl Sizes {
    /// These, changed where `over` has something.
    pub(super) fn overlaid(self, over: Sizes) -> Sizes {
        Sizes {
            width: over.width.or(self.width),
            height: over.height.or(self.height),
            crop_w: over.crop_w.or(self.crop_w),
            crop_h: over.crop_h.or(self.crop_h),
            target_width: over.target_width.or(self.target_width),
            target_height: over.target_height.or(self.target_height),
            aesthetic_score: over.aesthetic_score.or(self.aesthetic_score),
        }
    }

    /// All numbers: where nothing was set, the picture that is sampled, uncropped.
    pub fn hints(self, latent: LatentSize) -> SizeHints {
        let pixels = latent.in_pixels();
        #[expect(clippy::cast_possible_truncation, reason = "a score of a few digits")]
        let aesthetic_score = self.aesthetic_score.map(|score| score as f32);
        SizeHints {
            width: self.width.unwrap_or(pixels[0]),
            height: self.height.unwrap_or(pixels[1]),
            crop_left: self.crop_w.unwrap_or(0),
            crop_top: self.crop_h.unwrap_or(0),
            target_width: self.target_width,
            target_height: self.target_height,
            aesthetic_score,
        }
    }
}

//! Parts of a picture: in latent pixels, or as shares of its sides.

use super::finite;
use crate::error::{Error, ErrorKind, Result};

/// Pixels of a picture to one of the latents, each way.
const PIXELS: usize = 8;

/// Height and width of latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LatentSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl LatentSize {
    /// Of a picture with this width and height.
    pub const fn of_pixels(width: usize, height: usize) -> LatentSize {
        LatentSize {
            height: height / PIXELS,
            width: width / PIXELS,
        }
    }

    /// Width and height of the picture.
    pub(super) fn in_pixels(self) -> [u32; 2] {
        let pixels = |side: usize| u32::try_from(side.saturating_mul(PIXELS)).unwrap_or(u32::MAX);
        [pixels(self.width), pixels(self.height)]
    }
}

/// A part of a picture.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Area {
    /// In latent pixels (`ConditioningSetArea`).
    Latent(LatentArea),
    /// In shares of the picture's sides (`ConditioningSetAreaPercentage`).
    Share {
        /// Of the height.
        height: f64,
        /// Of the width.
        width: f64,
        /// From the top, of the height.
        y: f64,
        /// From the left, of the width.
        x: f64,
    },
}

/// A rectangle in latent pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LatentArea {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Rows above it.
    pub y: usize,
    /// Columns left of it.
    pub x: usize,
}

impl Area {
    /// Of a picture's pixels, rounded down to whole latent pixels (`ConditioningSetArea`).
    pub const fn of_pixels(width: usize, height: usize, x: usize, y: usize) -> Area {
        Area::Latent(LatentArea {
            height: height / PIXELS,
            width: width / PIXELS,
            y: y / PIXELS,
            x: x / PIXELS,
        })
    }

    /// The rectangle in latents of this size. Shares of a side are rounded half to even, and no side
    /// is shorter than 1; the rectangle may reach beyond the border
    /// (`resolve_areas_and_cond_masks_multidim`, `comfy/samplers.py`).
    pub fn in_latent(self, latent: LatentSize) -> LatentArea {
        match self {
            Area::Latent(area) => area,
            Area::Share {
                height,
                width,
                y,
                x,
            } => LatentArea {
                height: share(height, latent.height).max(1),
                width: share(width, latent.width).max(1),
                y: share(y, latent.height),
                x: share(x, latent.width),
            },
        }
    }

    pub(super) fn checked(self) -> Result<Area> {
        if let Area::Share {
            height,
            width,
            y,
            x,
        } = self
        {
            for share in [height, width, y, x] {
                finite("a share of a side", share)?;
            }
        }
        Ok(self)
    }
}

/// Negative shares are 0, and what is more than any tensor has is cut when the area is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn share(share: f64, side: usize) -> usize {
    (share * side as f64).round_ties_even().max(0.0) as usize
}

impl LatentArea {
    /// All of it.
    pub const fn whole(latent: LatentSize) -> LatentArea {
        LatentArea {
            height: latent.height,
            width: latent.width,
            y: 0,
            x: 0,
        }
    }

    /// The part that is inside the latents; an error if there is none.
    pub fn clipped(self, latent: LatentSize) -> Result<LatentArea> {
        let clipped = LatentArea {
            height: latent.height.saturating_sub(self.y).min(self.height),
            width: latent.width.saturating_sub(self.x).min(self.width),
            ..self
        };
        if clipped.height > 0 && clipped.width > 0 {
            return Ok(clipped);
        }
        let message = format!(
            "an area of {}x{} at {},{} (width x height at x,y, in latent pixels) has nothing of \
             latents of {}x{}",
            self.width, self.height, self.x, self.y, latent.width, latent.height
        );
        Err(Error::new(ErrorKind::Request, message).hint("set an area inside the picture"))
    }

    /// Whether it lies within another.
    pub(super) fn is_inside(self, other: LatentArea) -> bool {
        let within = |start: usize, length: usize, from: usize, to: usize| {
            start >= from && start.saturating_add(length) <= from.saturating_add(to)
        };
        within(self.y, self.height, other.y, other.height)
            && within(self.x, self.width, other.x, other.width)
    }

    /// Places in it.
    pub(super) fn places(self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_half_to_even() {
        let latent = LatentSize::of_pixels(512, 768);
        assert_eq!((latent.height, latent.width), (96, 64));
        let area = |height, width, y, x| Area::Share {
            height,
            width,
            y,
            x,
        };
        let cases = [
            (area(0.5, 0.25, 0.0, 0.75), [48, 16, 0, 48]),
            (area(0.0, 0.0, 1.0, 1.0), [1, 1, 96, 64]),
            // 4.5 and 7.5 rows; 0.5 and 1.5 columns.
            (
                area(0.046_875, 0.007_812_5, 0.078_125, 0.023_437_5),
                [4, 1, 8, 2],
            ),
            (area(-1.0, 2.0, -0.5, 0.0), [1, 128, 0, 0]),
        ];
        for (area, want) in cases {
            let found = area.in_latent(latent);
            let found = [found.height, found.width, found.y, found.x];
            assert_eq!(found, want, "{area:?}");
        }
    }

    #[test]
    fn areas_are_clipped_to_the_latents() {
        let latent = LatentSize {
            height: 8,
            width: 8,
        };
        let Area::Latent(area) = Area::of_pixels(64, 32, 32, 48) else {
            panic!("pixels");
        };
        let clipped = area.clipped(latent).unwrap();
        assert_eq!([clipped.height, clipped.width], [2, 4]);
        let outside = LatentArea { y: 8, ..area };
        assert!(outside.clipped(latent).is_err());
        assert!(clipped.is_inside(area) && !area.is_inside(clipped));
    }
}

//! Values as they are typed, checked where they enter.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use sd_conditioner::Builder;
use sd_conditioner::candle_core::utils::{cuda_is_available, metal_is_available};
use sd_conditioner::candle_core::{DType, Device};
use sd_conditioner::kernels::{Follow, Options, Products, Tune};
use sd_conditioner::weights::Unchanging;

/// Sizes are handed to the U-Net as f32, which counts every whole number up to here.
const PIXELS_AT_MOST: u32 = 1 << 24;

/// `WxH` in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let parts = text.split_once(['x', 'X']);
        let (width, height) = parts.ok_or("expected WIDTHxHEIGHT, such as 1024x1024")?;
        Ok(Size {
            width: side(number(width)?)?,
            height: side(number(height)?)?,
        })
    }
}

/// `X,Y` in pixels: left, top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) left: u32,
    pub(crate) top: u32,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let parts = text.split_once(',');
        let (left, top) = parts.ok_or("expected X,Y: left and top, such as 0,0")?;
        Ok(Point {
            left: offset(number(left)?)?,
            top: offset(number(top)?)?,
        })
    }
}

/// A width or height: at least 1.
pub(crate) fn side(pixels: u32) -> Result<u32, String> {
    match pixels {
        0 => Err("a side of 0 pixels".to_owned()),
        _ => offset(pixels),
    }
}

/// A distance from the left or the top.
pub(crate) fn offset(pixels: u32) -> Result<u32, String> {
    if pixels <= PIXELS_AT_MOST {
        Ok(pixels)
    } else {
        Err(format!(
            "{pixels} pixels, and {PIXELS_AT_MOST} are the most"
        ))
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a number of pixels"))
}

/// An aesthetic score: any finite number.
pub(crate) fn score(text: &str) -> Result<f32, String> {
    let score: f32 = text
        .parse()
        .map_err(|_| format!("`{text}` is not a number"))?;
    finite(score)
}

/// Refuses what is no number.
pub(crate) fn finite(score: f32) -> Result<f32, String> {
    let finite = Some(score).filter(|score| score.is_finite());
    finite.ok_or_else(|| format!("a score of {score}"))
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Precision {
    #[default]
    F32,
    F16,
    Bf16,
}

impl Precision {
    /// candle's name for it.
    pub(crate) const fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        }
    }
}

/// Whether weights stay where the system has their file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MapFiles {
    /// Where the program is done soon: not with --requests, and not with --watch
    #[default]
    Auto,
    /// Wherever it changes no number
    Always,
    /// Never: files may be changed once they are loaded
    Never,
}

/// How long weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// For a few seconds.
    Briefly,
    /// As long as there is work.
    Long,
}

impl MapFiles {
    /// Sets it for weights that are held so long.
    #[expect(unsafe_code, reason = "that files do not change cannot be checked")]
    pub(crate) fn set(self, builder: Builder, held: Held) -> Builder {
        match (self, held) {
            (MapFiles::Never, _) | (MapFiles::Auto, Held::Long) => builder,
            (MapFiles::Always, _) | (MapFiles::Auto, Held::Briefly) => {
                // SAFETY: whoever runs the program is told that the files must not be changed meanwhile, and
                // how it is done without that.
                builder.map_files(unsafe { Unchanging::promised() })
            }
        }
    }
}

/// What runs the encoders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// Whatever is fastest on this machine
    #[default]
    Fastest,
    /// The same, but on a card nothing is measured: each run gives the same bits
    Steady,
    /// candle's own operations, slow: to compare with, and for reports of mistakes
    Plain,
}

impl Engine {
    /// Sets it; what is measured is kept in `folder`.
    pub(crate) fn set(self, builder: Builder, folder: Option<PathBuf>) -> Builder {
        let fastest = Options {
            cache_dir: folder,
            ..Options::default()
        };
        let steady = Options {
            products: Products::Library,
            tune: Tune::Never,
            follow: Follow::Plain,
            ..fastest.clone()
        };
        match self {
            Engine::Fastest => builder.kernel_options(fastest),
            Engine::Steady => builder.kernel_options(steady),
            Engine::Plain => builder.reference_kernels(),
        }
    }
}

/// The one of `all` that has this name.
pub(crate) fn named<T: Copy, const N: usize>(
    name: &str,
    all: [T; N],
    name_of: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.into_iter().find(|one| name_of(*one) == name);
    found.ok_or_else(|| {
        let names = all.map(name_of).join(", ");
        format!("`{name}` is none of {names}")
    })
}

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    #[default]
    Cpu,
    Cuda(usize),
    Metal,
}

impl Place {
    /// A card of NVIDIA's, for which kernels are compiled.
    pub(crate) fn is_card(self) -> bool {
        matches!(self, Place::Cuda(_))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text {
            "cpu" => Ok(Place::Cpu),
            "cuda" => Ok(Place::Cuda(0)),
            "metal" => Ok(Place::Metal),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Place::Cuda)
                .ok_or_else(|| "expected cpu, cuda, cuda:N or metal".to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => f.write_str("cpu"),
            Place::Cuda(index) => write!(f, "cuda:{index}"),
            Place::Metal => f.write_str("metal"),
        }
    }
}

impl Place {
    /// The device, if this build and this machine have it.
    pub(crate) fn open(self) -> anyhow::Result<Device> {
        let failed = || format!("device {self}");
        match self {
            Place::Cpu => Ok(Device::Cpu),
            // One stream for all threads: what one encodes another writes.
            Place::Cuda(index) if cuda_is_available() => {
                Device::new_cuda_with_stream(index).with_context(failed)
            }
            Place::Metal if metal_is_available() => Device::new_metal(0).with_context(failed),
            Place::Cuda(_) => bail!(missing(self, "cuda")),
            Place::Metal => bail!(missing(self, "metal")),
        }
    }
}

fn missing(place: Place, feature: &str) -> String {
    format!(
        "device {place}: this build cannot use it (build with `--features {feature}`, or pass `--device cpu`)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_points() {
        let size = |width, height| Some(Size { width, height });
        let sizes = [
            ("1216x832", size(1216, 832)),
            ("1X1", size(1, 1)),
            ("16777216x1", size(16_777_216, 1)),
            ("16777217x1", None),
            ("0x8", None),
            ("8", None),
            ("8x", None),
            ("-8x8", None),
            ("8x8x8", None),
            ("8.5x8", None),
            ("", None),
        ];
        for (text, want) in sizes {
            assert_eq!(text.parse::<Size>().ok(), want, "{text}");
        }
        let point = |left, top| Some(Point { left, top });
        let points = [("0,0", point(0, 0)), ("64,128", point(64, 128))];
        for (text, want) in points.into_iter().chain([("1", None), ("1,-1", None)]) {
            assert_eq!(text.parse::<Point>().ok(), want, "{text}");
        }
    }

    #[test]
    fn devices() {
        let cases = [
            ("cpu", Some(Place::Cpu)),
            ("cuda", Some(Place::Cuda(0))),
            ("cuda:3", Some(Place::Cuda(3))),
            ("metal", Some(Place::Metal)),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
            ("CPU", None),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Place>().ok(), want, "{text}");
        }
    }

    #[test]
    fn scores() {
        assert!(score("nan").is_err() && score("inf").is_err());
        assert_eq!(score("-2.5"), Ok(-2.5));
    }
}

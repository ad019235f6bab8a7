//! WHAT IS TO BE RUN, decided without a card: the steps of a forward, buckets of windows, launch
//! shapes, what is kept of captured graphs and of tuned products. `cuda` carries it out.

mod arena;
mod bucket;
mod input;
mod recent;
mod sealed;
mod source;
mod steps;
mod texts;
mod tiles;
mod tuning;

pub(crate) use arena::{ALIGNMENT, Arena, Sizes, input_parts, input_words};
pub(crate) use bucket::{bucket, pieces};
pub(crate) use input::{is_sound, write_input};
pub(crate) use recent::Recent;
pub(crate) use source::{
    Launch, ROW_CHANNELS, Text, attention, eights, row_blocks, row_warps, source,
};
pub(crate) use steps::{Matrix, NormAt, Place, PooledFrom, Spec, Step, steps};
pub(crate) use texts::compiled;
pub(crate) use tiles::{COLUMNS, MOST_ROWS, Tiles};
pub(crate) use tuning::{Card, Chosen, ProductShape, Tuned};

use candle_core::DType;
use serde::{Deserialize, Serialize};

/// Rows of a window.
pub(crate) const WINDOW: usize = 77;

/// The type of an encoder's matrices, and of what goes into a product with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
}

impl Kind {
    pub(crate) fn of(dtype: DType) -> Option<Kind> {
        match dtype {
            DType::F32 => Some(Kind::F32),
            DType::F16 => Some(Kind::F16),
            DType::BF16 => Some(Kind::Bf16),
            _ => None,
        }
    }

    pub(crate) const fn bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F16 | Kind::Bf16 => 2,
        }
    }

    /// How the kernels' names end.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Kind::F32 => "f32",
            Kind::F16 => "f16",
            Kind::Bf16 => "bf16",
        }
    }
}

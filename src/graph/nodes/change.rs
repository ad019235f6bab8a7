//! What is done to conditionings (`nodes.py`).

use super::Builtin;
use crate::conditioning::{Area, MaskArea};
use crate::error::Result;
use crate::graph::call::Call;
use crate::graph::class::Inlet;
use crate::graph::recipe::{Change, Recipe};
use crate::graph::value::{Kind, Value};

const CONDITIONING: Inlet = Inlet::required("conditioning", Kind::Conditioning);
const STRENGTH: Inlet = Inlet::required("strength", Kind::Float);

pub(super) const CLASSES: &[Builtin] = &[
    Builtin::new(
        "ConditioningCombine",
        &[
            Inlet::required("conditioning_1", Kind::Conditioning),
            Inlet::required("conditioning_2", Kind::Conditioning),
        ],
        &[],
        combine,
    ),
    Builtin::new(
        "ConditioningConcat",
        &[
            Inlet::required("conditioning_to", Kind::Conditioning),
            Inlet::required("conditioning_from", Kind::Conditioning),
        ],
        &[],
        concat,
    ),
    Builtin::new(
        "ConditioningAverage",
        &[
            Inlet::required("conditioning_to", Kind::Conditioning),
            Inlet::required("conditioning_from", Kind::Conditioning),
            Inlet::required("conditioning_to_strength", Kind::Float),
        ],
        &["conditioning_to_strength"],
        average,
    ),
    Builtin::new("ConditioningZeroOut", &[CONDITIONING], &[], zero_out),
    Builtin::new(
        "ConditioningSetArea",
        &[
            CONDITIONING,
            Inlet::required("width", Kind::Integer),
            Inlet::required("height", Kind::Integer),
            Inlet::required("x", Kind::Integer),
            Inlet::required("y", Kind::Integer),
            STRENGTH,
        ],
        &["width", "height", "x", "y", "strength"],
        set_area,
    ),
    Builtin::new(
        "ConditioningSetAreaPercentage",
        &[
            CONDITIONING,
            Inlet::required("width", Kind::Float),
            Inlet::required("height", Kind::Float),
            Inlet::required("x", Kind::Float),
            Inlet::required("y", Kind::Float),
            STRENGTH,
        ],
        &["width", "height", "x", "y", "strength"],
        set_area_percentage,
    ),
    Builtin::new(
        "ConditioningSetAreaStrength",
        &[CONDITIONING, STRENGTH],
        &["strength"],
        set_strength,
    ),
    Builtin::new(
        "ConditioningSetMask",
        &[
            CONDITIONING,
            Inlet::required("mask", Kind::Mask),
            STRENGTH,
            Inlet::required("set_cond_area", Kind::Text),
        ],
        &["strength", "set_cond_area"],
        set_mask,
    ),
    Builtin::new(
        "ConditioningSetTimestepRange",
        &[
            CONDITIONING,
            Inlet::required("start", Kind::Float),
            Inlet::required("end", Kind::Float),
        ],
        &["start", "end"],
        set_range,
    ),
];

#[expect(clippy::unnecessary_wraps, reason = "as all classes")]
fn only(recipe: Recipe) -> Result<Vec<Value>> {
    Ok(vec![Value::Conditioning(recipe)])
}

fn changed(call: &mut Call<'_>, change: Change) -> Result<Vec<Value>> {
    let of = call.conditioning("conditioning")?;
    only(call.change(of, change)?)
}

fn combine(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let one = call.conditioning("conditioning_1")?;
    let two = call.conditioning("conditioning_2")?;
    only(call.combine(one, two)?)
}

fn concat(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let to = call.conditioning("conditioning_to")?;
    let from = call.conditioning("conditioning_from")?;
    only(call.concat(to, from)?)
}

fn average(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let to = call.conditioning("conditioning_to")?;
    let from = call.conditioning("conditioning_from")?;
    let share = call.float("conditioning_to_strength")?;
    only(call.average(to, from, share)?)
}

fn zero_out(call: &mut Call<'_>) -> Result<Vec<Value>> {
    changed(call, Change::Zero)
}

fn set_area(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let side = |name| call.pixels(name).map(|pixels| pixels as usize);
    let area = Area::of_pixels(side("width")?, side("height")?, side("x")?, side("y")?);
    let strength = call.float("strength")?;
    changed(call, Change::Area(area, strength))
}

fn set_area_percentage(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let area = Area::Share {
        height: call.float("height")?,
        width: call.float("width")?,
        y: call.float("y")?,
        x: call.float("x")?,
    };
    let strength = call.float("strength")?;
    changed(call, Change::Area(area, strength))
}

fn set_strength(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let strength = call.float("strength")?;
    changed(call, Change::Strength(strength))
}

fn set_mask(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let area = match &*call.text("set_cond_area")? {
        "default" => MaskArea::Whole,
        _ => MaskArea::Bounds,
    };
    let (of, mask) = (call.conditioning("conditioning")?, call.mask("mask")?);
    let strength = call.float("strength")?;
    only(call.masked(of, mask, strength, area)?)
}

fn set_range(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (start, end) = (call.float("start")?, call.float("end")?);
    changed(call, Change::Range(start, end))
}

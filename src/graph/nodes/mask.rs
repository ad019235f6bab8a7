//! Masks that need no picture (`comfy_extras/nodes_mask.py`).

use candle_core::{DType, Device, Tensor};

use super::Builtin;
use crate::conditioning::Mask;
use crate::error::Result;
use crate::graph::broken;
use crate::graph::call::Call;
use crate::graph::class::Inlet;
use crate::graph::recipe::{MaskOperation, MaskStep};
use crate::graph::value::{Kind, Value};

pub(super) const CLASSES: &[Builtin] = &[
    Builtin::new(
        "SolidMask",
        &[
            Inlet::required("value", Kind::Float),
            Inlet::required("width", Kind::Integer),
            Inlet::required("height", Kind::Integer),
        ],
        &["value", "width", "height"],
        make_solid,
    ),
    Builtin::new(
        "InvertMask",
        &[Inlet::required("mask", Kind::Mask)],
        &[],
        invert,
    ),
    Builtin::new(
        "MaskComposite",
        &[
            Inlet::required("destination", Kind::Mask),
            Inlet::required("source", Kind::Mask),
            Inlet::required("x", Kind::Integer),
            Inlet::required("y", Kind::Integer),
            Inlet::required("operation", Kind::Text),
        ],
        &["x", "y", "operation"],
        compose,
    ),
];

fn make_solid(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let (width, height) = (call.pixels("width")?, call.pixels("height")?);
    let value = call.float("value")?;
    Ok(vec![Value::Mask(call.solid_mask(value, width, height)?)])
}

fn invert(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let step = MaskStep::Inverted(call.mask("mask")?.0);
    Ok(vec![Value::Mask(call.mask_step(step)?)])
}

fn compose(call: &mut Call<'_>) -> Result<Vec<Value>> {
    let operation = call.text("operation")?;
    let step = MaskStep::Composite {
        destination: call.mask("destination")?.0,
        source: call.mask("source")?.0,
        x: call.pixels("x")?,
        y: call.pixels("y")?,
        operation: named(&operation)?,
    };
    Ok(vec![Value::Mask(call.mask_step(step)?)])
}

fn named(operation: &str) -> Result<MaskOperation> {
    Ok(match operation {
        "multiply" => MaskOperation::Multiply,
        "add" => MaskOperation::Add,
        "subtract" => MaskOperation::Subtract,
        "and" => MaskOperation::And,
        "or" => MaskOperation::Or,
        "xor" => MaskOperation::Xor,
        other => return Err(broken(format!("no operation {other:?} for masks"))),
    })
}

/// A mask of a single value.
pub(in crate::graph) fn solid(value: f64, width: usize, height: usize) -> Result<Mask> {
    let mask = Tensor::full(value, (1, height, width), &Device::Cpu)?;
    Mask::new(&mask.to_dtype(DType::F32)?)
}

/// `1 - mask`.
pub(in crate::graph) fn inverted(mask: &Mask) -> Result<Mask> {
    Mask::new(&(1.0 - mask.tensor())?)
}

/// `source` put on `destination` at a place, cut at its borders; everything is held between 0 and 1.
pub(in crate::graph) fn composite(
    destination: &Mask,
    source: &Mask,
    (x, y): (usize, usize),
    operation: MaskOperation,
) -> Result<Mask> {
    let (masks, height, width) = destination.tensor().dims3()?;
    let (sources, source_height, source_width) = source.tensor().dims3()?;
    let mut values = destination.tensor().flatten_all()?.to_vec1::<f32>()?;
    let added = source.tensor().flatten_all()?.to_vec1::<f32>()?;
    for mask in 0..masks {
        for row in 0..source_height.min(height.saturating_sub(y)) {
            for column in 0..source_width.min(width.saturating_sub(x)) {
                let at = (mask * height + y + row) * width + x + column;
                let plane = mask % sources;
                let from = (plane * source_height + row) * source_width + column;
                values[at] = operation.of(values[at], added[from]);
            }
        }
    }
    clamped(values, (masks, height, width))
}

/// A mask of values that are held between 0 and 1.
fn clamped(mut values: Vec<f32>, shape: (usize, usize, usize)) -> Result<Mask> {
    for value in &mut values {
        *value = value.clamp(0.0, 1.0);
    }
    Mask::new(&Tensor::from_vec(values, shape, &Device::Cpu)?)
}

impl MaskOperation {
    fn of(self, one: f32, two: f32) -> f32 {
        let truth = |value: bool| f32::from(u8::from(value));
        // Half is rounded to even, that is, to nothing.
        let [first, second] = [one, two].map(|value| value.round_ties_even() != 0.0);
        match self {
            MaskOperation::Multiply => one * two,
            MaskOperation::Add => one + two,
            MaskOperation::Subtract => one - two,
            MaskOperation::And => truth(first && second),
            MaskOperation::Or => truth(first || second),
            MaskOperation::Xor => truth(first != second),
        }
    }
}

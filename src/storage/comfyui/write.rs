//! Entries → schema and tensors.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value as Json, json};

use super::{FAMILY_KEY, SCHEMA_KEY, TENSOR, TUPLE, VERSION, VERSION_KEY};
use crate::conditioning::{Area, ConditioningList, Entry, MaskArea, Sizes, cast, expect_finite};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{expect_file_type, one_prompt};
use crate::weights::{Family, Outline, write_tensors};

/// Writes entries with all their attributes; hidden states and pooled vectors in `dtype` (f32, f16 or
/// bf16), masks in f32.
///
/// # Errors
///
/// Another type, no entry, entries of several families, a batch, a picture's embedding (which such a file cannot
/// hold without the image encoder's own objects), numbers or values (in `dtype`) that are not finite, or the
/// file system.
pub fn save(path: impl AsRef<Path>, list: &ConditioningList, dtype: DType) -> Result<()> {
    let path = path.as_ref();
    let (value, metadata) = parts(list, dtype).map_err(|error| error.at_path(path))?;
    let outlines = value.outlines();
    for (outline, tensor) in outlines.iter().zip(&value.tensors) {
        expect_finite(&outline.name, tensor).map_err(|error| error.at_path(path))?;
    }
    write_tensors(path, &metadata, &outlines, |index| {
        Ok(value.tensors[index].clone())
    })
}

/// The tensors of such a file by name and what its metadata say, for
/// [`tensors_to_bytes`](crate::storage::tensors_to_bytes) and
/// [`write_tensors`](crate::storage::write_tensors). Other keys may be added to the metadata.
///
/// # Errors
///
/// Those of [`save`] but for the file system's, and for values that are not finite already, which
/// [`expect_finite`](crate::storage::expect_finite) tells of.
pub fn tensors(
    list: &ConditioningList,
    dtype: DType,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let (value, metadata) = parts(list, dtype)?;
    let names = value.outlines().into_iter().map(|outline| outline.name);
    Ok((names.zip(value.tensors).collect(), metadata))
}

fn parts(list: &ConditioningList, dtype: DType) -> Result<(Schema, BTreeMap<String, String>)> {
    expect_file_type(dtype)?;
    let refused = |message: &str| Err(Error::new(ErrorKind::Mismatch, message));
    let Some(first) = list.entries().first() else {
        return refused("there is no entry to write");
    };
    let family = first.conditioning().family();
    let mut value = Schema::new(dtype);
    let mut schema = Vec::new();
    for entry in list.entries() {
        if let Some(why) = no_place_for(entry, family) {
            return refused(why);
        }
        one_prompt(entry.conditioning())?;
        schema.push(value.entry(entry)?);
    }
    let metadata = BTreeMap::from([
        (VERSION_KEY.to_owned(), VERSION.to_owned()),
        (SCHEMA_KEY.to_owned(), Json::Array(schema).to_string()),
        (FAMILY_KEY.to_owned(), family.name().to_owned()),
    ]);
    Ok((value, metadata))
}

/// Why an entry cannot be in a file of this family.
fn no_place_for(entry: &Entry, family: Family) -> Option<&'static str> {
    if entry.conditioning().family() != family {
        return Some("entries of several families");
    }
    let is_picture = !entry.unclip().is_empty();
    is_picture.then_some("a picture's embedding (unCLIP) has no place in this layout")
}

/// Tensors in the order in which they were met.
struct Schema {
    dtype: DType,
    tensors: Vec<Tensor>,
}

impl Schema {
    fn new(dtype: DType) -> Schema {
        let tensors = Vec::new();
        Schema { dtype, tensors }
    }

    fn outlines(&self) -> Vec<Outline> {
        let numbered = self.tensors.iter().enumerate();
        numbered
            .map(|(index, tensor)| Outline {
                name: format!("tensor_{index}"),
                dtype: tensor.dtype().into(),
                shape: tensor.dims().to_vec(),
            })
            .collect()
    }

    /// Keeps a tensor and gives what stands for it.
    fn tensor(&mut self, tensor: &Tensor, dtype: DType) -> Result<Json> {
        let name = format!("tensor_{}", self.tensors.len());
        let tensor = cast(&name, &tensor.to_device(&Device::Cpu)?, dtype)?;
        self.tensors.push(tensor);
        Ok(json!({ TENSOR: self.tensors.len() - 1 }))
    }

    fn entry(&mut self, entry: &Entry) -> Result<Json> {
        let conditioning = entry.conditioning();
        let context = self.tensor(conditioning.context(), self.dtype)?;
        let mut object = numbers(entry);
        expect_numbers(&object)?;
        if let Some(pooled) = conditioning.pooled() {
            let pooled = self.tensor(pooled, self.dtype)?;
            object.insert("pooled_output".to_owned(), pooled);
        }
        if let Some(mask) = entry.mask() {
            let mask = self.tensor(mask.tensor(), DType::F32)?;
            object.insert("mask".to_owned(), mask);
        }
        Ok(json!([context, object]))
    }
}

/// Everything but tensors, under `ComfyUI`'s names (`nodes.py`); only what was set.
fn numbers(entry: &Entry) -> Map<String, Json> {
    let range = entry.range();
    let bounds = entry.mask_area().map(|area| area == MaskArea::Bounds);
    let all = [
        ("area", entry.area().map(area)),
        ("strength", entry.strength().map(Json::from)),
        ("set_area_to_bounds", bounds.map(Json::from)),
        ("mask_strength", entry.mask_strength().map(Json::from)),
        ("start_percent", range.map(|range| range.start.into())),
        ("end_percent", range.map(|range| range.end.into())),
    ];
    let set = all.into_iter().chain(sizes(entry.sizes()));
    set.filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// JSON has no NaN and no infinity: they became null, which would be read as never set.
fn expect_numbers(object: &Map<String, Json>) -> Result<()> {
    fn holds_null(value: &Json) -> bool {
        match value {
            Json::Null => true,
            Json::Array(values) => values.iter().any(holds_null),
            Json::Object(values) => values.values().any(holds_null),
            _ => false,
        }
    }
    match object.iter().find(|(_, value)| holds_null(value)) {
        Some((name, _)) => {
            let message = format!("an entry's `{name}` is not a finite number");
            Err(Error::new(ErrorKind::Mismatch, message))
        }
        None => Ok(()),
    }
}

fn sizes(sizes: Sizes) -> [(&'static str, Option<Json>); 7] {
    [
        ("width", sizes.width.map(Json::from)),
        ("height", sizes.height.map(Json::from)),
        ("crop_w", sizes.crop_w.map(Json::from)),
        ("crop_h", sizes.crop_h.map(Json::from)),
        ("target_width", sizes.target_width.map(Json::from)),
        ("target_height", sizes.target_height.map(Json::from)),
        ("aesthetic_score", sizes.aesthetic_score.map(Json::from)),
    ]
}

fn area(area: Area) -> Json {
    let sides = match area {
        Area::Latent(area) => json!([area.height, area.width, area.y, area.x]),
        Area::Share {
            height,
            width,
            y,
            x,
        } => json!(["percentage", height, width, y, x]),
    };
    json!({ TUPLE: sides })
}

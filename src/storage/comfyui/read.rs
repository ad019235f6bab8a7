//! Schema and tensors → entries.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use safetensors::SafeTensors;
use serde_json::{Map, Value as Json};

use super::{FAMILY_KEY, SCHEMA_KEY, TENSOR, TUPLE, VERSION, VERSION_KEY};
use crate::conditioning::{
    Area, Attributes, Conditioning, ConditioningList, Entry, LatentArea, Mask, MaskArea,
    PercentRange, Sizes,
};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{family_of, tensor_of};
use crate::weights::{Family, read_whole};

/// What a file held.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The entries, tensors in the stored type.
    pub entries: ConditioningList,
    /// What has no place here and was left out, such as a control net's hint.
    pub notes: Vec<String>,
}

/// Reads what [`save`](super::save) or a custom node wrote. The family is what the metadata name;
/// without that it follows from the channels.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded> {
    let path = path.as_ref();
    let bytes = read_whole(path)?;
    read(&bytes).map_err(|error| error.at_path(path))
}

fn read(bytes: &[u8]) -> Result<Loaded> {
    let not_ours = |error: safetensors::SafeTensorError| {
        broken(format!("this is no safetensors file: {error}")).because(error)
    };
    let file = SafeTensors::deserialize(bytes).map_err(not_ours)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_ours)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let schema = schema(&metadata)?;
    let family = metadata.get(FAMILY_KEY).map(String::as_str);
    let mut reader = Reader {
        file,
        family,
        notes: Vec::new(),
    };
    let entries = list(&schema).ok_or_else(|| broken("its schema is no list"))?;
    let entries = entries.iter().enumerate();
    let entries = entries.map(|(index, entry)| reader.entry(index, entry));
    Ok(Loaded {
        entries: entries.collect::<Result<_>>()?,
        notes: reader.notes,
    })
}

/// The schema in a file's metadata, if they are of the version that is read.
fn schema(metadata: &HashMap<String, String>) -> Result<Json> {
    let version = metadata.get(VERSION_KEY).map(String::as_str);
    if version != Some(VERSION) {
        let message = match version {
            Some(other) => format!("version {other} of the layout; {VERSION} is read"),
            None => format!("no `{VERSION_KEY}` in its metadata: not a `.conditioning` file"),
        };
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let schema = metadata.get(SCHEMA_KEY);
    let schema = schema.ok_or_else(|| broken(format!("no `{SCHEMA_KEY}` in its metadata")))?;
    serde_json::from_str(schema)
        .map_err(|error| broken(format!("its schema cannot be read: {error}")).because(error))
}

struct Reader<'a> {
    file: SafeTensors<'a>,
    family: Option<&'a str>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn entry(&mut self, index: usize, entry: &Json) -> Result<Entry> {
        let wrong = |what: &str| broken(format!("entry {index}: {what}"));
        let Some([context, Json::Object(attributes)]) = list(entry) else {
            return Err(wrong("not hidden states with attributes"));
        };
        let context = self.tensor(context, 3)?;
        let context = context.ok_or_else(|| wrong("no tensor of hidden states"))?;
        let pooled = self.tensor_of(attributes, "pooled_output", 2)?;
        let family = self.family(&context)?;
        let conditioning = Conditioning::new(family, context, pooled, None)?;
        let mask = self.tensor_of(attributes, "mask", 0)?;
        let mask = mask.map(|mask| Mask::new(&mask)).transpose()?;
        let names = attributes.keys().map(String::as_str);
        let left = names.filter(|name| !KNOWN.contains(name));
        let left = left.map(|name| format!("entry {index}: `{name}` was left out"));
        self.notes.extend(left);
        let attributes = Attributes {
            mask,
            ..numbers(attributes).map_err(|what| wrong(&what))?
        };
        Entry::new(conditioning).with_attributes(attributes)
    }

    /// The tensor that an attribute names.
    fn tensor_of(
        &self,
        attributes: &Map<String, Json>,
        name: &str,
        dimensions: usize,
    ) -> Result<Option<Tensor>> {
        match given(attributes, name) {
            None => Ok(None),
            Some(value) => self.tensor(value, dimensions),
        }
    }

    /// The tensor that a schema names; `None` for anything else. 0 dimensions: as many as it has.
    fn tensor(&self, value: &Json, dimensions: usize) -> Result<Option<Tensor>> {
        let Some(index) = value.get(TENSOR).and_then(Json::as_u64) else {
            return Ok(None);
        };
        let name = format!("tensor_{index}");
        let found = tensor_of(&self.file, &name, dimensions)?;
        found.map(Some).ok_or_else(|| {
            let message = "its schema names a tensor that the file lacks";
            Error::new(ErrorKind::MissingTensor, message).at_tensor(name)
        })
    }

    fn family(&self, context: &Tensor) -> Result<Family> {
        family_of(self.family, context.dim(2)?)
    }
}

/// The attributes that entries have here.
const KNOWN: [&str; 15] = [
    "pooled_output",
    "mask",
    "area",
    "strength",
    "set_area_to_bounds",
    "mask_strength",
    "start_percent",
    "end_percent",
    "width",
    "height",
    "crop_w",
    "crop_h",
    "target_width",
    "target_height",
    "aesthetic_score",
];

/// Everything but tensors.
fn numbers(object: &Map<String, Json>) -> Result<Attributes, String> {
    let start = number(object, "start_percent")?;
    let end = number(object, "end_percent")?;
    let range = (start.is_some() || end.is_some()).then(|| PercentRange {
        start: start.unwrap_or(0.0),
        end: end.unwrap_or(1.0),
    });
    let bounds = object.get("set_area_to_bounds").and_then(Json::as_bool);
    Ok(Attributes {
        sizes: sizes(object)?,
        area: given(object, "area").map(area).transpose()?,
        strength: number(object, "strength")?,
        mask: None,
        mask_strength: number(object, "mask_strength")?,
        mask_area: bounds.map(mask_area),
        range,
    })
}

fn mask_area(bounds: bool) -> MaskArea {
    if bounds {
        MaskArea::Bounds
    } else {
        MaskArea::Whole
    }
}

fn sizes(object: &Map<String, Json>) -> Result<Sizes, String> {
    Ok(Sizes {
        width: pixels(object, "width")?,
        height: pixels(object, "height")?,
        crop_w: pixels(object, "crop_w")?,
        crop_h: pixels(object, "crop_h")?,
        target_width: pixels(object, "target_width")?,
        target_height: pixels(object, "target_height")?,
        aesthetic_score: number(object, "aesthetic_score")?,
    })
}

/// An attribute that is there and not null.
fn given<'a>(object: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    object.get(name).filter(|value| !value.is_null())
}

fn number(object: &Map<String, Json>, name: &str) -> Result<Option<f64>, String> {
    let number = |value: &Json| {
        let number = value.as_f64();
        number.ok_or_else(|| format!("`{name}` is no number"))
    };
    given(object, name).map(number).transpose()
}

fn pixels(object: &Map<String, Json>, name: &str) -> Result<Option<u32>, String> {
    let pixels = |value: &Json| {
        let pixels = value.as_u64().and_then(|pixels| u32::try_from(pixels).ok());
        pixels.ok_or_else(|| format!("`{name}` is no number of pixels"))
    };
    given(object, name).map(pixels).transpose()
}

fn area(value: &Json) -> Result<Area, String> {
    let wrong = || format!("`{value}` is no area");
    match list(value).ok_or_else(wrong)? {
        [Json::String(word), height, width, y, x] if word == "percentage" => {
            let share = |value: &Json| value.as_f64().ok_or_else(wrong);
            Ok(Area::Share {
                height: share(height)?,
                width: share(width)?,
                y: share(y)?,
                x: share(x)?,
            })
        }
        [height, width, y, x] => {
            let side = |value: &Json| value.as_u64().and_then(|side| usize::try_from(side).ok());
            let side = |value: &Json| side(value).ok_or_else(wrong);
            Ok(Area::Latent(LatentArea {
                height: side(height)?,
                width: side(width)?,
                y: side(y)?,
                x: side(x)?,
            }))
        }
        _ => Err(wrong()),
    }
}

/// The values of a list, or of what stands for a tuple.
fn list(value: &Json) -> Option<&[Json]> {
    let value = value.get(TUPLE).unwrap_or(value);
    value.as_array().map(Vec::as_slice)
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::FileFormat, message)
}

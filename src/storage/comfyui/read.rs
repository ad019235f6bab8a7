//! Schema and tensors → entries.

use std::collections::BTreeMap;
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
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The entries, tensors in the stored type.
    pub entries: ConditioningList,
    /// What has no place here and was left out, such as a control net's hint.
    pub notes: Vec<String>,
}

/// Reads what [`save`](super::save) or a custom node wrote. The family is what the metadata name;
/// without that it follows from the channels.
pub fn load(path: &Path) -> Result<Loaded> {
    let bytes = read_whole(path)?;
    read(&bytes).map_err(|error| error.at_path(path))
}

fn read(bytes: &[u8]) -> Result<Loaded> {
    let not_ours = |error: safetensors::SafeTensorError| {
        broken(format!("this is no safetensors file: {error}")).because(error)
    };
    let file = SafeTensors::deserialize(bytes).map_err(not_ours)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_ours)?;
    let metadata: BTreeMap<String, String> = header
        .metadata()
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
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
    let schema: Json = serde_json::from_str(schema)
        .map_err(|error| broken(format!("its schema cannot be read: {error}")).because(error))?;
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
        let pooled = match attributes.get("pooled_output") {
            None | Some(Json::Null) => None,
            Some(pooled) => self.tensor(pooled, 2)?,
        };
        let family = self.family(&context)?;
        let conditioning = Conditioning::new(family, context, pooled, None)?;
        let mask = match attributes.get("mask") {
            None | Some(Json::Null) => None,
            Some(mask) => self
                .tensor(mask, 0)?
                .map(|mask| Mask::new(&mask))
                .transpose()?,
        };
        for key in attributes
            .keys()
            .filter(|key| !KNOWN.contains(&key.as_str()))
        {
            self.notes
                .push(format!("entry {index}: `{key}` was left out"));
        }
        let attributes = Attributes {
            mask,
            ..numbers(attributes).map_err(|what| wrong(&what))?
        };
        Entry::new(conditioning).with_attributes(attributes)
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
        let channels = context.dim(2)?;
        let found = match self.family {
            Some(named) => Family::ALL
                .into_iter()
                .find(|family| family.name() == named),
            None => family_of(channels),
        };
        found.ok_or_else(|| {
            let message = format!("hidden states of {channels} channels are no known family's");
            Error::new(ErrorKind::TensorShape, message)
        })
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

fn numbers(object: &Map<String, Json>) -> Result<Attributes, String> {
    let number = |name: &str| match object.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .map(Some)
            .ok_or_else(|| format!("`{name}` is no number")),
    };
    let pixels = |name: &str| match object.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            let pixels = value.as_u64().and_then(|pixels| u32::try_from(pixels).ok());
            pixels
                .map(Some)
                .ok_or_else(|| format!("`{name}` is no number of pixels"))
        }
    };
    let (start, end) = (number("start_percent")?, number("end_percent")?);
    let range = (start.is_some() || end.is_some()).then(|| PercentRange {
        start: start.unwrap_or(0.0),
        end: end.unwrap_or(1.0),
    });
    let bounds = object.get("set_area_to_bounds").and_then(Json::as_bool);
    Ok(Attributes {
        sizes: Sizes {
            width: pixels("width")?,
            height: pixels("height")?,
            crop_w: pixels("crop_w")?,
            crop_h: pixels("crop_h")?,
            target_width: pixels("target_width")?,
            target_height: pixels("target_height")?,
            aesthetic_score: number("aesthetic_score")?,
        },
        area: object
            .get("area")
            .filter(|area| !area.is_null())
            .map(area)
            .transpose()?,
        strength: number("strength")?,
        mask: None,
        mask_strength: number("mask_strength")?,
        mask_area: bounds.map(|bounds| {
            if bounds {
                MaskArea::Bounds
            } else {
                MaskArea::Whole
            }
        }),
        range,
    })
}

fn area(value: &Json) -> Result<Area, String> {
    let wrong = || format!("`{value}` is no area");
    let side = |value: &Json| value.as_u64().and_then(|side| usize::try_from(side).ok());
    match list(value).ok_or_else(wrong)? {
        [Json::String(word), height, width, y, x] if word == "percentage" => {
            let [height, width, y, x] =
                [height, width, y, x].map(|share| share.as_f64().ok_or_else(wrong));
            Ok(Area::Share {
                height: height?,
                width: width?,
                y: y?,
                x: x?,
            })
        }
        [height, width, y, x] => {
            let [height, width, y, x] =
                [height, width, y, x].map(|one| side(one).ok_or_else(wrong));
            Ok(Area::Latent(LatentArea {
                height: height?,
                width: width?,
                y: y?,
                x: x?,
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

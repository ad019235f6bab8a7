//! diffusers folders: which file of which component, and what its configuration says.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::archive::Archive;
use super::{file, shards, vocabulary};
use crate::error::{Error, ErrorKind, Result, named};

/// The longest configuration that is read; real ones have some hundred bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// The folders that may hold a text encoder.
pub(crate) const SLOTS: [&str; 2] = ["text_encoder", "text_encoder_2"];

/// The folders of their tokenizers.
const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];

/// One text encoder's folder.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) folder: PathBuf,
    pub(crate) config: Config,
    pub(crate) archive: Archive,
}

/// A folder that was opened.
#[derive(Debug)]
pub(crate) struct Folder {
    /// `_class_name` of `model_index.json`.
    pub(crate) class: Option<String>,
    pub(crate) components: Vec<Component>,
    pub(crate) notes: Vec<String>,
}

/// Opens a pipeline's folder, or the folder of one text encoder.
pub(crate) fn open(path: &Path, variant: Option<&str>) -> Result<Folder> {
    let index = path.join("model_index.json");
    if file::is_there(&index) {
        let index: Value = shards::read_json(&index, MAX_CONFIG)?;
        return pipeline(path, &index, variant).map_err(|error| error.at_path(path));
    }
    if file::is_there(&path.join("config.json")) {
        return without_index(&[path.to_owned()], variant, Vec::new());
    }
    let slots = SLOTS
        .iter()
        .map(|slot| path.join(slot))
        .filter(|slot| file::is_there(&slot.join("config.json")));
    let slots: Vec<_> = slots.collect();
    if slots.is_empty() {
        let message = "this folder has neither model_index.json nor config.json";
        let error = Error::new(ErrorKind::UnknownLayout, message).at_path(path);
        return Err(error.hint("give a diffusers folder, a text_encoder folder, or a weight file"));
    }
    let note = "the folder has no model_index.json; its text_encoder folders were used";
    without_index(&slots, variant, vec![note.to_owned()])
}

/// The components that lie in `folders`, which no index names.
fn without_index(
    folders: &[PathBuf],
    variant: Option<&str>,
    mut notes: Vec<String>,
) -> Result<Folder> {
    let components = folders
        .iter()
        .map(|folder| component(folder, variant, &mut notes));
    let components = components.collect::<Result<_>>()?;
    Ok(Folder {
        class: None,
        components,
        notes,
    })
}

/// The components that `model_index.json` names.
fn pipeline(path: &Path, index: &Value, variant: Option<&str>) -> Result<Folder> {
    let Some(index) = index.as_object() else {
        let message = "model_index.json is not an object";
        return Err(Error::new(ErrorKind::FileFormat, message));
    };
    let class = index.get("_class_name").and_then(Value::as_str);
    refuse_other_families(class)?;
    let (mut components, mut notes) = (Vec::new(), Vec::new());
    for (slot, tokenizer) in SLOTS.into_iter().zip(TOKENIZERS) {
        if names_encoder(index, slot)? {
            components.push(component(&path.join(slot), variant, &mut notes)?);
            notes.extend(vocabulary::check(&path.join(tokenizer))?);
        }
    }
    if components.is_empty() {
        let message = "model_index.json names no text encoder";
        return Err(Error::new(ErrorKind::UnknownLayout, message));
    }
    Ok(Folder {
        class: class.map(str::to_owned),
        components,
        notes,
    })
}

/// Beginnings of the classes of pipelines whose text encoders are others, although some are CLIP too.
const OTHER_FAMILIES: [&str; 7] = [
    "StableDiffusion3",
    "Flux",
    "StableCascade",
    "PixArt",
    "HunyuanDiT",
    "Kolors",
    "AltDiffusion",
];

fn refuse_other_families(class: Option<&str>) -> Result<()> {
    let is_other = |class: &&str| OTHER_FAMILIES.iter().any(|other| class.starts_with(other));
    match class.filter(is_other) {
        None => Ok(()),
        Some(class) => {
            let class = named(class);
            let message = format!("`{class}` is not a pipeline of SD 1.x, 2.x or SDXL");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
    }
}

/// True if the index has a text encoder in this slot; an error if it is not CLIP's.
fn names_encoder(index: &Map<String, Value>, slot: &str) -> Result<bool> {
    let Some(value) = index.get(slot) else {
        return Ok(false);
    };
    match class_of(value) {
        Slot::Absent => Ok(false),
        Slot::Class("CLIPTextModel" | "CLIPTextModelWithProjection" | "CLIPModel") => Ok(true),
        Slot::Class(other) => {
            let other = named(other);
            let message = format!("`{slot}` is a `{other}`, not a CLIP text encoder");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        Slot::Broken => {
            let message = format!("model_index.json gives no library and class for `{slot}`");
            Err(Error::new(ErrorKind::FileFormat, message))
        }
    }
}

enum Slot<'a> {
    Absent,
    Class(&'a str),
    Broken,
}

/// `[library, class]`, or `[null, null]`.
fn class_of(value: &Value) -> Slot<'_> {
    match value.as_array().map(Vec::as_slice) {
        Some([_, Value::String(class)]) => Slot::Class(class),
        Some([Value::Null, Value::Null]) => Slot::Absent,
        None if value.is_null() => Slot::Absent,
        _ => Slot::Broken,
    }
}

/// Configuration and weights of one text encoder.
fn component(folder: &Path, variant: Option<&str>, notes: &mut Vec<String>) -> Result<Component> {
    let config = folder.join("config.json");
    let config = if file::is_there(&config) {
        Config::read(&config)?
    } else if folder.is_dir() {
        notes.push(format!(
            "{}: no config.json, nothing to check the tensors against",
            folder.display()
        ));
        Config::default()
    } else {
        let message = "model_index.json names this folder, which is missing";
        return Err(Error::new(ErrorKind::Io, message).at_path(folder));
    };
    let archive = weights(folder, variant, notes)?;
    Ok(Component {
        folder: folder.to_owned(),
        config,
        archive,
    })
}

/// Opens the weights of a folder.
fn weights(folder: &Path, variant: Option<&str>, notes: &mut Vec<String>) -> Result<Archive> {
    if let Some(variant) = variant.filter(|variant| variant.contains(['/', '\\', '.', '\0'])) {
        let message = format!("`{variant}` cannot be the name of a variant");
        return Err(Error::new(ErrorKind::Request, message).at_path(folder));
    }
    let mut there = candidates(variant);
    there.retain(|(name, _)| file::is_there(&folder.join(name)));
    let Some((name, sharded)) = there.first() else {
        return Err(absent(folder, variant));
    };
    if there.len() > 1 {
        notes.push(format!(
            "{}: several weight files, `{name}` was taken",
            folder.display()
        ));
    }
    let path = folder.join(name);
    if *sharded {
        shards::open(&path)
    } else {
        Archive::open(&path)
    }
}

/// File names that weights may have, with true for an index. Order: the variant that was asked for;
/// otherwise `model.safetensors`, its shards, `model.fp16.safetensors`, its shards, and only then the
/// pickles `pytorch_model.bin`, `pytorch_model.fp16.bin`. Full precision comes first because a file
/// that is here costs no download.
fn candidates(variant: Option<&str>) -> Vec<(String, bool)> {
    let variants = match variant {
        Some(variant) => vec![variant],
        None => vec!["", "fp16"],
    };
    let kinds = [("model", "safetensors"), ("pytorch_model", "bin")];
    let all = kinds
        .iter()
        .flat_map(|kind| variants.iter().flat_map(|variant| names(variant, *kind)));
    all.collect()
}

/// File names of a variant as diffusers makes them, with true for an index.
fn names(variant: &str, (stem, extension): (&str, &str)) -> [(String, bool); 2] {
    let dotted = if variant.is_empty() {
        String::new()
    } else {
        format!(".{variant}")
    };
    [
        (format!("{stem}{dotted}.{extension}"), false),
        (format!("{stem}.{extension}.index{dotted}.json"), true),
    ]
}

/// What the names of weights begin with that only other libraries read.
const OF_OTHERS: [&str; 4] = ["flax_model", "model.onnx", "openvino", "tf_model"];

/// Why there are no weights, by what the folder has instead.
fn absent(folder: &Path, variant: Option<&str>) -> Error {
    let files = listing(folder);
    let all = files.join(", ");
    let error = |kind, message: String| Error::new(kind, message).at_path(folder);
    if let Some(variant) = variant {
        let message = format!("no weights of the variant `{variant}`; there are: {all}");
        return error(ErrorKind::Io, message);
    }
    let of_others = |file: &String| OF_OTHERS.iter().any(|start| file.starts_with(start));
    if files.iter().any(of_others) {
        let message = format!("only Flax, ONNX, OpenVINO or TensorFlow weights here: {all}");
        return error(ErrorKind::Unsupported, message).hint("download model.safetensors");
    }
    let message = format!("neither model.safetensors nor model.fp16.safetensors; there are: {all}");
    error(ErrorKind::Io, message).hint("download model.safetensors")
}

/// The names of a folder's files, sorted.
fn listing(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    files
}

/// What `CLIPTextConfig` of transformers has if nothing is said (`configuration_clip.py`).
const DEFAULT_ACTIVATION: &str = "quick_gelu";

/// What `config.json` says of an encoder; what it leaves out is not checked.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Config {
    pub(crate) hidden_size: Option<usize>,
    pub(crate) num_hidden_layers: Option<usize>,
    pub(crate) num_attention_heads: Option<usize>,
    pub(crate) intermediate_size: Option<usize>,
    pub(crate) max_position_embeddings: Option<usize>,
    pub(crate) vocab_size: Option<usize>,
    pub(crate) hidden_act: Option<String>,
    pub(crate) layer_norm_eps: Option<f64>,
}

impl Config {
    /// Reads a configuration. A missing activation is transformers' default, which its
    /// `save_pretrained` leaves out of nested configurations.
    fn read(path: &Path) -> Result<Config> {
        let mut value: Value = shards::read_json(path, MAX_CONFIG)?;
        let model_type = value.get("model_type").and_then(Value::as_str);
        if let Some(other) = model_type.filter(|kind| !matches!(*kind, "clip" | "clip_text_model"))
        {
            let message = format!("`{}` is not a CLIP model", named(other));
            return Err(Error::new(ErrorKind::Unsupported, message).at_path(path));
        }
        lift_text_part(&mut value);
        let mut config: Config = serde_json::from_value(value).map_err(|error| {
            let message = format!("the configuration cannot be read: {error}");
            Error::new(ErrorKind::FileFormat, message)
                .because(error)
                .at_path(path)
        })?;
        config
            .hidden_act
            .get_or_insert_with(|| DEFAULT_ACTIVATION.to_owned());
        Ok(config)
    }
}

/// Of a whole `CLIPModel`'s configuration, takes what is said of the text part: `text_config`, over
/// which the older `text_config_dict` goes.
fn lift_text_part(config: &mut Value) {
    for nested in ["text_config", "text_config_dict"] {
        let Some(Value::Object(text)) = config.get(nested).cloned() else {
            continue;
        };
        for (key, value) in text.into_iter().filter(|(_, value)| !value.is_null()) {
            config[key] = value;
        }
    }
}

//! Finds text towers: a token embedding by its suffix, what stands before it is the root, and the
//! layers below the root say how deep it is.

use std::collections::BTreeSet;

use super::names::split_numbered;
use super::{Dimensions, Style, huggingface, open_clip};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::EncoderId;
use crate::weights::format::archive::{Archive, Entry};

/// A place in a file where a text encoder seems to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) style: Style,
    /// What stands before every name, up to and with the last dot; may be empty.
    pub(crate) root: String,
    pub(crate) dimensions: Dimensions,
    pub(crate) encoder: EncoderId,
}

/// All towers of an archive. Leftovers without any layer are none; a tower of a size that no
/// Stable Diffusion encoder has is an error.
pub(crate) fn find(archive: &Archive) -> Result<Vec<Found>> {
    let entries = archive.entries.iter();
    let found = entries.map(|(name, entry)| tower_of(archive, name, entry));
    found.filter_map(Result::transpose).collect()
}

/// The tower whose token embedding this tensor is.
fn tower_of(archive: &Archive, name: &str, entry: &Entry) -> Result<Option<Found>> {
    let Some((style, root)) = anchor(name) else {
        return Ok(None);
    };
    let n_layers = count_layers(archive, style, root)?;
    if n_layers == 0 {
        return Ok(None);
    }
    let at_tensor = |error: Error| error.at_tensor(&entry.file_name);
    let [vocabulary, width] = embedding_shape(entry).map_err(at_tensor)?;
    let dimensions = Dimensions {
        width,
        n_layers,
        vocabulary,
        positions: n_positions(archive, style, root),
    };
    Ok(Some(Found {
        style,
        root: root.to_owned(),
        dimensions,
        encoder: identify(dimensions).map_err(at_tensor)?,
    }))
}

fn embedding_shape(entry: &Entry) -> Result<[usize; 2]> {
    let shape = &entry.shape;
    <[usize; 2]>::try_from(shape.as_slice()).map_err(|_| {
        let message = format!("a token embedding has two dimensions, this has {shape:?}");
        Error::new(ErrorKind::TensorShape, message)
    })
}

/// Style and root, if the name is a token embedding. `embeddings.token_embedding.weight` is
/// transformers', any other `token_embedding.weight` is `open_clip`'s.
fn anchor(name: &str) -> Option<(Style, &str)> {
    let (style, root) = match name.strip_suffix(huggingface::TOKEN_EMBEDDING) {
        Some(root) => (Style::HuggingFace, root),
        None => (
            Style::OpenClip,
            name.strip_suffix(open_clip::TOKEN_EMBEDDING)?,
        ),
    };
    (root.is_empty() || root.ends_with('.')).then_some((style, root))
}

/// The number of layers below a root, which must be 0, 1, 2… without a gap.
fn count_layers(archive: &Archive, style: Style, root: &str) -> Result<usize> {
    let naming = style.naming();
    let mut numbers = BTreeSet::new();
    let prefix = format!("{root}{}", naming.layers);
    for (name, _) in archive.below(&prefix) {
        let part = split_numbered(name, "");
        let known = |rest| naming.layer.iter().any(|(_, file, _)| *file == rest);
        numbers.extend(
            part.filter(|(_, rest)| known(*rest))
                .map(|(number, _)| number),
        );
    }
    let gap = numbers
        .iter()
        .zip(0..)
        .find(|(number, expected)| **number != *expected);
    if let (Some((_, missing)), Some(last)) = (gap, numbers.last()) {
        let message = format!("layer {missing} is missing: there are layers up to {last}");
        let error = Error::new(ErrorKind::MissingTensor, message);
        return Err(error.at_tensor(format!("{prefix}{missing}")));
    }
    Ok(numbers.len())
}

/// Rows of the position embedding; 77 where it is missing, which is found out later.
fn n_positions(archive: &Archive, style: Style, root: &str) -> usize {
    let name = style
        .naming()
        .file_name("position_embedding")
        .map(|(name, _)| format!("{root}{name}"));
    let entry = name.and_then(|name| archive.entries.get(&name));
    entry
        .and_then(|entry| entry.shape.first().copied())
        .unwrap_or(CONTEXT)
}

/// Positions of every CLIP text tower that Stable Diffusion uses.
const CONTEXT: usize = 77;

/// Rows of CLIP's token embedding; more are tokens that were added later.
const VOCABULARY: usize = 49408;

/// Which encoder has this width and depth. Numbers: `open_clip` `model_configs/ViT-L-14.json`,
/// `ViT-H-14.json`, `ViT-bigG-14.json`; 23 layers are diffusers' SD 2.x folders. The last three are
/// the tiny encoders of [`Synthetic`](crate::weights::Synthetic), sizes that no trained CLIP has.
const fn by_size(width: usize, n_layers: usize) -> Option<EncoderId> {
    match (width, n_layers) {
        (768, 12) | (128, 3) => Some(EncoderId::ClipL),
        (1024, 23 | 24) | (192, 3 | 4) => Some(EncoderId::OpenClipH),
        (1280, 32) | (256, 4) => Some(EncoderId::OpenClipG),
        _ => None,
    }
}

fn identify(dimensions: Dimensions) -> Result<EncoderId> {
    let Dimensions {
        width,
        n_layers,
        vocabulary,
        positions,
    } = dimensions;
    if width % 64 != 0 || width == 0 {
        let message = format!("width {width} is not a multiple of 64, the size of a head");
        return Err(Error::new(ErrorKind::TensorShape, message));
    }
    let Some(encoder) = by_size(width, n_layers) else {
        return Err(unknown_size(dimensions));
    };
    if vocabulary < VOCABULARY {
        let message = format!("the token embedding has {vocabulary} rows, CLIP has {VOCABULARY}");
        return Err(Error::new(ErrorKind::TensorShape, message));
    }
    check_positions(positions)?;
    Ok(encoder)
}

/// The encoders of [`by_size`].
const SUPPORTED: &str = "supported are ViT-L/14 (width 768, 12 layers), ViT-H/14 (1024, 23 or 24) \
                         and ViT-bigG/14 (1280, 32)";

fn check_positions(positions: usize) -> Result<()> {
    let (kind, message) = match positions {
        CONTEXT => return Ok(()),
        248 => (
            ErrorKind::Unsupported,
            format!(
                "this is LongCLIP, with {positions} positions; encoders with {CONTEXT} are \
                 supported"
            ),
        ),
        _ => (
            ErrorKind::TensorShape,
            format!("{positions} positions, expected {CONTEXT}"),
        ),
    };
    Err(Error::new(kind, message))
}

fn unknown_size(dimensions: Dimensions) -> Error {
    let Dimensions {
        width,
        n_layers,
        vocabulary,
        positions,
    } = dimensions;
    let message = format!(
        "a text encoder of width {width} with {n_layers} layers, {vocabulary} tokens and \
         {positions} positions: {}",
        describe(width, n_layers, vocabulary)
    );
    Error::new(ErrorKind::UnknownLayout, message).hint(SUPPORTED)
}

/// What a tower of another size may be, from `open_clip`'s table of configurations.
const fn describe(width: usize, n_layers: usize, vocabulary: usize) -> &'static str {
    match (width, n_layers) {
        _ if vocabulary < 48_000 => "a SigLIP or CLIPA text encoder",
        (512, 12) => "CLIP ViT-B/32 or B/16",
        (640, 12) => "CLIP RN50x4 or ViT-B-plus",
        (1024, 12) => "CLIP RN50x64",
        (1280, 36) => "open_clip ViT-e/14",
        (768, 0..12) | (1024, 0..23) | (1280, 0..32) => "is the file incomplete?",
        _ => "not one that Stable Diffusion uses",
    }
}

/// The first tensor of a tower that has layers but no token embedding, if there is one.
pub(crate) fn headless(archive: &Archive) -> Option<&str> {
    let first = [
        "encoder.layers.0.self_attn.q_proj.weight",
        "transformer.resblocks.0.attn.in_proj_weight",
    ];
    archive.entries.keys().map(String::as_str).find(|name| {
        let root = first.iter().find_map(|suffix| name.strip_suffix(suffix));
        root.is_some_and(|root| {
            !root
                .split('.')
                .any(|word| word == "visual" || word == "vision_model")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_by_suffix() {
        let check = |name, want| assert_eq!(anchor(name), want, "{name}");
        check("token_embedding.weight", Some((Style::OpenClip, "")));
        check(
            "text.token_embedding.weight",
            Some((Style::OpenClip, "text.")),
        );
        check(
            "embeddings.token_embedding.weight",
            Some((Style::HuggingFace, "")),
        );
        check(
            "a.text_model.embeddings.token_embedding.weight",
            Some((Style::HuggingFace, "a.text_model.")),
        );
        check("xembeddings.token_embedding.weight", None);
        check("mytoken_embedding.weight", None);
        check("token_embedding.weight.lora", None);
    }

    #[test]
    fn sizes() {
        let check = |width, n_layers, want| assert_eq!(by_size(width, n_layers), want);
        check(768, 12, Some(EncoderId::ClipL));
        check(1024, 23, Some(EncoderId::OpenClipH));
        check(1024, 24, Some(EncoderId::OpenClipH));
        check(1280, 32, Some(EncoderId::OpenClipG));
        check(1024, 12, None);
        check(1280, 36, None);
        check(768, 11, None);
    }
}

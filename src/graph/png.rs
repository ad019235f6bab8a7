//! The workflow in a picture: text chunks of a PNG, as `ComfyUI` saves them.
//!
//! Chunks by the PNG specification (third edition, 5.3 and 11.3.3). Only text is looked at, and no
//! more of it is inflated than a workflow could need.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::broken;
use crate::error::Result;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The most bytes of an inflated text; real ones have some hundred thousand. What is read of it as JSON
/// takes some thirty times as much.
const LONGEST: u64 = 8 << 20;

/// The names under which `ComfyUI` saves what was run, and what was drawn.
const NAMES: [&[u8]; 2] = [b"prompt", b"workflow"];

/// What was run, else what was drawn; `None` if this is no PNG. A PNG without either, or one that is
/// cut, is an error.
pub(super) fn workflow(bytes: &[u8]) -> Result<Option<String>> {
    let Some(chunks) = bytes.strip_prefix(SIGNATURE) else {
        return Ok(None);
    };
    let [prompt, workflow] = texts(chunks)?;
    match prompt.or(workflow) {
        Some(json) => Ok(Some(json)),
        None => Err(
            broken("a PNG without a workflow: it has no text `prompt` or `workflow`")
                .hint("pictures lose it when they are edited or sent through a messenger"),
        ),
    }
}

/// The first text of each of [`NAMES`].
fn texts(mut rest: &[u8]) -> Result<[Option<String>; 2]> {
    let mut found: [Option<String>; 2] = [None, None];
    while !rest.is_empty() {
        let chunk = Chunk::first(rest).ok_or_else(|| broken("a PNG that ends within a chunk"))?;
        for (name, place) in NAMES.iter().zip(&mut found) {
            if place.is_none() {
                *place = chunk.text(name)?;
            }
        }
        if chunk.kind == b"IEND" {
            break;
        }
        rest = chunk.rest;
    }
    Ok(found)
}

struct Chunk<'a> {
    kind: &'a [u8],
    data: &'a [u8],
    /// What is behind it.
    rest: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Length, kind, data and a checksum.
    fn first(bytes: &'a [u8]) -> Option<Chunk<'a>> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (kind, rest) = rest.split_at_checked(4)?;
        let (data, rest) = rest.split_at_checked(length)?;
        Some(Chunk {
            kind,
            data,
            rest: rest.get(4..).unwrap_or_default(),
        })
    }

    /// Its text, if it is a text of this name.
    fn text(&self, name: &[u8]) -> Result<Option<String>> {
        let Some(data) = self.data.strip_prefix(name) else {
            return Ok(None);
        };
        let Some(data) = data.strip_prefix(b"\0") else {
            return Ok(None);
        };
        match self.kind {
            b"tEXt" => Ok(Some(latin(data))),
            b"zTXt" => Ok(Some(latin(&inflated(data.get(1..).unwrap_or_default())?))),
            b"iTXt" => international(data).map(Some),
            _ => Ok(None),
        }
    }
}

/// A flag for compression, its method, a language and a translated name, and the text in UTF-8.
fn international(data: &[u8]) -> Result<String> {
    let cut = || broken("an iTXt chunk that ends too early");
    let (flags, rest) = data.split_at_checked(2).ok_or_else(cut)?;
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let text = parts.nth(2).ok_or_else(cut)?;
    let bytes = if flags[0] == 0 {
        text.to_vec()
    } else {
        inflated(text)?
    };
    String::from_utf8(bytes).map_err(|error| broken("an iTXt chunk not in UTF-8").because(error))
}

/// `tEXt` is Latin-1; `ComfyUI` escapes everything beyond ASCII. Some programs write UTF-8 there.
fn latin(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

fn inflated(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut inflated = Vec::new();
    let mut source = ZlibDecoder::new(bytes).take(LONGEST + 1);
    source.read_to_end(&mut inflated).map_err(|error| {
        let message = "a compressed text in a PNG cannot be inflated";
        broken(message).because(error)
    })?;
    if inflated.len() as u64 > LONGEST {
        return Err(broken(format!(
            "a text of more than {LONGEST} bytes in a PNG"
        )));
    }
    Ok(inflated)
}

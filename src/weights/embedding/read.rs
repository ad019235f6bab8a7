//! One file → its vectors. Which variant it is, is decided by the keys.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{Embedding, Held, MOST_VECTORS, is_member, refuse};
use crate::error::{Error, ErrorKind, Result, named};
use crate::weights::EncoderId;
use crate::weights::format::archive::{Archive, Entry};
use crate::weights::format::decode::{self, Flaw};
use crate::weights::format::{file, sniff};
use crate::weights::layout::fingerprint;

use EncoderId::{ClipL, OpenClipG, OpenClipH};

/// Vectors whose encoder only their width tells.
const ANY: &[EncoderId] = &[ClipL, OpenClipH, OpenClipG];

/// Keys that say whose vectors they hold.
const TAGGED: [(&str, &[EncoderId]); 5] = [
    ("clip_l", &[ClipL]),
    ("clip_h", &[OpenClipH]),
    ("clip_g", &[OpenClipG]),
    ("text_encoders_0", &[ClipL, OpenClipH]),
    ("text_encoders_1", &[OpenClipG]),
];

/// The key of A1111's and kohya's safetensors.
const PLAIN: &str = "emb_params";

/// What stands before the key of A1111's pickles, and before the number of its token in them.
const PARAMETERS: &str = "string_to_param.";
const TOKENS: &str = "string_to_token.";

/// What stands before the name of an embedding inside a LoRA, and what may follow it.
const BUNDLE: &str = "bundle_emb.";
const BUNDLED: [(&str, &[EncoderId]); 3] = [
    (".string_to_param.*", ANY),
    (".clip_l", &[ClipL]),
    (".clip_g", &[OpenClipG]),
];

/// The same, and the key of A1111's embeddings.
const IN_LORA: [(&str, &[EncoderId]); 5] = [
    BUNDLED[0],
    BUNDLED[1],
    BUNDLED[2],
    (".clip_h", &[OpenClipH]),
    (".emb_params", ANY),
];

/// Channels that no text encoder reaches; a bound for what is read.
const WIDEST: usize = 1 << 14;

/// How many names an error spells out.
const SPELT_OUT: usize = 5;

pub(super) fn open(path: &Path) -> Result<Embedding> {
    refuse_pictures(path)?;
    let archive = Archive::open(path)?;
    let mut embedding = Embedding {
        name: stem(path),
        placeholder: None,
        held: Vec::new(),
        n_vectors: 0,
        notes: archive.notes.clone(),
    };
    let reader = Reader { archive: &archive };
    let n_read = reader.fill(&mut embedding)?;
    let n_left = archive.entries.len() - n_read;
    if n_left > 0 {
        let note = format!("{n_left} other tensors of the file were not read");
        embedding.notes.push(note);
    }
    embedding.n_vectors = count(&embedding.held)?;
    Ok(embedding)
}

/// Tensors, and the encoders that each may be for.
type Tagged<'a> = Vec<(&'a Entry, &'static [EncoderId])>;

/// The embeddings of a LoRA file, each apart: all tensors of one name make one. Endings that no
/// reader takes in (`OneTrainer`'s vectors for the output side, `…_out`) are left.
pub(super) fn in_lora(archive: &Archive) -> BTreeMap<&str, Tagged<'_>> {
    let mut by_name: BTreeMap<&str, Tagged<'_>> = BTreeMap::new();
    for (rest, entry) in archive.below(BUNDLE) {
        for (suffix, encoders) in IN_LORA {
            if let Some(name) = rest.strip_suffix(suffix).filter(|name| !name.is_empty()) {
                by_name.entry(name).or_default().push((entry, encoders));
            }
        }
    }
    by_name
}

/// The same, read.
pub(super) fn bundled(archive: &Archive) -> Result<Vec<Embedding>> {
    let reader = Reader { archive };
    let each = in_lora(archive).into_iter().map(|(name, tensors)| {
        let mut held = Vec::new();
        for (entry, encoders) in tensors {
            reader.hold(&mut held, encoders, &[entry])?;
        }
        Ok(Embedding {
            name: name.to_owned(),
            placeholder: None,
            n_vectors: count(&held)?,
            held,
            notes: Vec::new(),
        })
    });
    each.collect()
}

/// True for keys that only embeddings have.
pub(super) fn is_meant(archive: &Archive) -> bool {
    let mut keys = TAGGED.iter().map(|(key, _)| *key).chain([PLAIN]);
    keys.any(|key| archive.entries.contains_key(key)) || archive.has_below(PARAMETERS)
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().into_owned()
}

/// A1111 can hide an embedding in a picture.
fn refuse_pictures(path: &Path) -> Result<()> {
    let (file, _) = file::open(path)?;
    let mut first = Vec::new();
    let read = file.take(16).read_to_end(&mut first);
    read.map_err(|error| Error::io(path, error))?;
    if sniff::is_picture(&first) {
        let message = "this is a picture; embeddings inside pictures are not supported";
        let error = Error::new(ErrorKind::Unsupported, message);
        return Err(error.hint("give the embedding as a .safetensors file"));
    }
    Ok(())
}

/// The vectors of every encoder are as many: they stand at the same places of one prompt.
fn count(held: &[Held]) -> Result<usize> {
    let counts: Vec<usize> = held.iter().map(|held| held.vectors.dims()[0]).collect();
    match counts.as_slice() {
        [] => Err(refuse("there are no vectors in it")),
        [first, rest @ ..] => match rest.iter().find(|count| *count != first) {
            None => Ok(*first),
            Some(other) => Err(refuse(format!(
                "{first} vectors for one encoder and {other} for the other; both read one prompt, \
                 so the counts must be equal"
            ))),
        },
    }
}

struct Reader<'a> {
    archive: &'a Archive,
}

/// Takes in what a file of one variant has; the number of tensors that were read, 0 in files of
/// others.
type Variant<R> = fn(&R, &mut Embedding) -> Result<usize>;

impl Reader<'_> {
    /// Takes in what the variant has; the number of tensors that were read.
    fn fill(&self, embedding: &mut Embedding) -> Result<usize> {
        let variants: [Variant<Self>; 5] = [
            Self::tagged,
            Self::plain,
            Self::parameters,
            Self::bundled,
            Self::listed,
        ];
        for variant in variants {
            let n_read = variant(self, embedding)?;
            if n_read > 0 {
                return Ok(n_read);
            }
        }
        let entry = self.only()?;
        embedding.placeholder = Some(entry.file_name.clone());
        self.hold(&mut embedding.held, ANY, &[entry])?;
        Ok(1)
    }

    /// `clip_l` and its like.
    fn tagged(&self, embedding: &mut Embedding) -> Result<usize> {
        let mut seen: Vec<(&str, EncoderId)> = Vec::new();
        for (key, encoders) in TAGGED {
            let Some(entry) = self.archive.entries.get(key) else {
                continue;
            };
            if let Some((other, _)) = seen.iter().find(|(_, first)| *first == encoders[0]) {
                let message = format!("`{other}` and `{key}` are for the same encoder");
                return Err(refuse(message).at_tensor(key));
            }
            seen.push((key, encoders[0]));
            self.hold(&mut embedding.held, encoders, &[entry])?;
        }
        Ok(seen.len())
    }

    /// `emb_params`.
    fn plain(&self, embedding: &mut Embedding) -> Result<usize> {
        let Some(entry) = self.archive.entries.get(PLAIN) else {
            return Ok(0);
        };
        self.hold(&mut embedding.held, ANY, &[entry])?;
        Ok(1)
    }

    /// `string_to_param` of A1111's pickles, which has one key. Beside it may be the number of its
    /// token as a tensor, which counts as read.
    fn parameters(&self, embedding: &mut Embedding) -> Result<usize> {
        let found: Vec<_> = self.archive.below(PARAMETERS).collect();
        match found.as_slice() {
            [] => Ok(0),
            [(_, entry)] => {
                self.hold(&mut embedding.held, ANY, &[entry])?;
                Ok(1 + self.archive.below(TOKENS).count())
            }
            several => {
                let message = format!(
                    "{} placeholders in one file; one is expected",
                    several.len()
                );
                Err(refuse(message).hint("save each placeholder as a file of its own"))
            }
        }
    }

    /// A list of dictionaries: for each width, all rows below each other (`load_embed` in `ComfyUI`'s
    /// `sd1_clip.py`).
    fn listed(&self, embedding: &mut Embedding) -> Result<usize> {
        let entries = self.archive.entries.iter();
        let mut found: Vec<&Entry> = entries.map(|(_, entry)| entry).collect();
        let all = self.archive.entries.keys().all(|name| is_member(name));
        let rows = found.iter().all(|entry| matches!(entry.shape.len(), 1 | 2));
        if !all || !rows {
            return Ok(0);
        }
        found.sort_by_key(|entry| entry.start);
        let count = found.len();
        while let Some(width) = found.first().and_then(|entry| entry.shape.last().copied()) {
            let (now, later): (Vec<_>, Vec<_>) = found
                .into_iter()
                .partition(|entry| entry.shape.last() == Some(&width));
            self.hold(&mut embedding.held, ANY, &now)?;
            found = later;
        }
        Ok(count)
    }

    /// Embeddings inside a LoRA: those of one kind are joined in the order in which they lie in the
    /// file. Where some are for any encoder, the others are left (`bundled_embed` in `ComfyUI`'s
    /// `sd1_clip.py`).
    fn bundled(&self, embedding: &mut Embedding) -> Result<usize> {
        let mut names = Vec::new();
        let mut n_read = 0;
        for (suffix, encoders) in BUNDLED {
            let mut found = self.bundled_with(suffix);
            if found.is_empty() || embedding.held.iter().any(|held| held.encoders == ANY) {
                continue;
            }
            found.sort_by_key(|(_, entry)| entry.start);
            let entries: Vec<&Entry> = found.iter().map(|(_, entry)| *entry).collect();
            self.hold(&mut embedding.held, encoders, &entries)?;
            n_read += entries.len();
            names.extend(found.into_iter().map(|(name, _)| name.to_owned()));
        }
        names.sort();
        names.dedup();
        if names.len() > 1 {
            let all = names.join(", ");
            let note = format!("the embeddings of a bundle were joined: {all}");
            embedding.notes.push(note);
        }
        embedding.placeholder = names.pop().filter(|_| names.is_empty());
        Ok(n_read)
    }

    fn bundled_with(&self, suffix: &str) -> Vec<(&str, &Entry)> {
        let below = self.archive.below(BUNDLE);
        below
            .filter_map(|(rest, entry)| Some((rest.strip_suffix(suffix)?, entry)))
            .collect()
    }

    /// The one tensor of the file, whose key is the placeholder.
    fn only(&self) -> Result<&Entry> {
        let entries = &self.archive.entries;
        if let Some(name) = fingerprint::adapter(self.archive) {
            let error = refuse("this is a LoRA, not a textual inversion embedding");
            let hint = "load it as a LoRA on top of a checkpoint";
            return Err(error.at_tensor(name).hint(hint));
        }
        let mut all = entries.values();
        match (all.next(), all.next()) {
            (Some(entry), None) if entry.file_name.is_empty() => Err(refuse(
                "the placeholder, the key of its only tensor, is empty",
            )),
            (Some(entry), None) => Ok(entry),
            _ => Err(self.several()),
        }
    }

    fn several(&self) -> Error {
        let entries = &self.archive.entries;
        let names: Vec<String> = entries
            .values()
            .take(SPELT_OUT)
            .map(|entry| format!("`{}`", named(&entry.file_name)))
            .collect();
        let (count, names) = (entries.len(), names.join(", "));
        let rows = entries.values().all(|entry| entry.shape.len() <= 2);
        if rows && count <= MOST_VECTORS {
            let message = format!("{count} placeholders in one file ({names} …); one is expected");
            return refuse(message).hint("save each placeholder as a file of its own");
        }
        let message = format!("not a textual inversion embedding: {count} tensors such as {names}");
        refuse(message).hint("an embedding has one tensor, or one for each encoder")
    }

    /// Reads tensors of one width and puts their rows below each other.
    fn hold(
        &self,
        held: &mut Vec<Held>,
        encoders: &'static [EncoderId],
        entries: &[&Entry],
    ) -> Result<()> {
        let mut n_rows = 0;
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let read = self.rows(entry, &mut n_rows);
            rows.push(read.map_err(|error| error.at_tensor(&entry.file_name))?);
        }
        let width = |tensor: &Tensor| tensor.dims()[1];
        if let Some(other) = rows.iter().find(|other| width(other) != width(&rows[0])) {
            let widths = (width(&rows[0]), width(other));
            let message = format!("vectors of width {} and of {} together", widths.0, widths.1);
            return Err(refuse(message));
        }
        let vectors = match <[Tensor; 1]>::try_from(rows) {
            Ok([only]) => only,
            Err(rows) => Tensor::cat(&rows, 0)?,
        };
        held.push(Held { encoders, vectors });
        Ok(())
    }

    /// One tensor as f32 `[n, width]`; `n_rows` counts on.
    fn rows(&self, entry: &Entry, n_rows: &mut usize) -> Result<Tensor> {
        let [rows, width] = as_rows(&entry.shape)?;
        *n_rows = n_rows.saturating_add(rows);
        if rows == 0 || width == 0 || width > WIDEST {
            return Err(refuse(format!("shape {:?} holds no vectors", entry.shape)));
        }
        if *n_rows > MOST_VECTORS {
            let message = format!(
                "{n_rows} vectors; a window has {MOST_VECTORS} places between its start and end"
            );
            return Err(refuse(message).hint("is this an embedding?"));
        }
        if !entry.stored.is_weight() {
            let message = format!("type {} cannot hold vectors", entry.stored);
            return Err(refuse(message).hint("floating point of 16 or 32 bits is usual"));
        }
        let bytes = self.archive.read_all(entry)?;
        if let Some(Flaw::NotFinite(index) | Flaw::TooLarge(index)) =
            decode::flaw_as(&bytes, entry.stored, DType::F32)
        {
            let message = format!("value {index} is NaN or infinite, or too large for F32");
            return Err(refuse(message).hint("its training diverged, or the file is damaged"));
        }
        let shape = [rows, width];
        decode::tensor(&bytes, entry.stored, &shape, None, DType::F32, &Device::Cpu)
    }
}

/// The shape of a tensor's rows, of which a vector is one.
fn as_rows(shape: &[usize]) -> Result<[usize; 2]> {
    match *shape {
        [width] => Ok([1, width]),
        [rows, width] => Ok([rows, width]),
        _ => {
            let message = format!("shape {shape:?}; vectors are [width] or [count, width]");
            Err(refuse(message))
        }
    }
}

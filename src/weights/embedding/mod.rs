//! TEXTUAL-INVERSION FILES → VECTORS. A file of any variant goes in; rows that stand in for token
//! embeddings come out, for each encoder that the file has them for.

mod folder;
mod read;

pub use folder::EmbeddingFolder;

use std::path::Path;

use candle_core::Tensor;
use sha2::{Digest as _, Sha256};

use super::EncoderId;
use super::format::archive::Archive;
use crate::error::{Error, ErrorKind, Result, noted};

/// The most vectors that a file may have: the places of a window between start and end.
const MOST_VECTORS: usize = 75;

/// The vectors of one textual-inversion file.
///
/// | keys in the file | written by | whose vectors |
/// |---|---|---|
/// | `emb_params` | A1111's and kohya's safetensors | the encoder of that width |
/// | one key, the placeholder (`<cat-toy>`) | diffusers | the encoder of that width |
/// | `string_to_param` with one key | A1111's and kohya's `.pt` | the encoder of that width |
/// | none: a tensor alone | pickles | the encoder of that width |
/// | none: a list of dictionaries | pickles | the encoder of that width; those of one width are joined |
/// | `clip_l`, `clip_g` (or `clip_h`) | A1111 and `ComfyUI`, SDXL | ViT-L's, bigG's |
/// | `text_encoders_0`, `text_encoders_1` | diffusers' advanced trainer | the first encoder's, bigG's |
/// | `bundle_emb.<name>.string_to_param.*`, `bundle_emb.<name>.clip_l` | embeddings inside a LoRA | as above; several are joined, as `ComfyUI` does |
///
/// Every one may be safetensors or a pickle (`.pt`, `.bin`, `.pti`); nothing of a pickle is ever run.
/// Pictures with an embedding in them are refused.
///
/// ```no_run
/// # fn main() -> sd_conditioner::Result<()> {
/// use sd_conditioner::weights::{Embedding, EncoderId};
/// let embedding = Embedding::open("embeddings/bad-hands.safetensors")?;
/// let rows = embedding.vectors(EncoderId::ClipL, 768);
/// println!("{}: {} vectors, {rows:?}", embedding.name(), embedding.n_vectors());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Embedding {
    name: String,
    placeholder: Option<String>,
    held: Vec<Held>,
    n_vectors: usize,
    notes: Vec<String>,
}

/// Rows, and the encoders they may be for.
#[derive(Clone, Debug)]
struct Held {
    encoders: &'static [EncoderId],
    /// `[n_vectors, width]`, f32, on the CPU.
    vectors: Tensor,
}

impl Embedding {
    /// Reads a file. An error names the file and the tensor: no vector, more than 75, another rank
    /// than 1 or 2, a type that is not floating point, NaN or infinity, several placeholders, or
    /// unequal counts for two encoders.
    pub fn open(path: impl AsRef<Path>) -> Result<Embedding> {
        let path = path.as_ref();
        let mut embedding = read::open(path).map_err(|error| error.at_path(path))?;
        embedding.notes = embedding.notes.into_iter().map(noted).collect();
        Ok(embedding)
    }

    /// True for a file that can be nothing else, damaged or not.
    pub(super) fn is_meant(path: &Path) -> bool {
        Archive::open(path).is_ok_and(|archive| read::is_meant(&archive))
    }

    /// Every embedding inside a LoRA, by its name there.
    pub(super) fn bundled(archive: &Archive) -> Result<Vec<Embedding>> {
        read::bundled(archive)
    }

    /// Their names, sorted; reads nothing.
    pub(super) fn bundled_names(archive: &Archive) -> Vec<String> {
        read::in_lora(archive)
            .into_keys()
            .map(str::to_owned)
            .collect()
    }

    /// The file's name without its extension (or, inside a LoRA, the name there): what A1111 and `ComfyUI` call it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The token that the file says it is for, as diffusers' files do.
    pub fn placeholder(&self) -> Option<&str> {
        self.placeholder.as_deref()
    }

    /// The number of token positions it takes, 1 to 75, the same for every encoder.
    pub fn n_vectors(&self) -> usize {
        self.n_vectors
    }

    /// The rows for an encoder whose token embedding has `width` channels: f32
    /// `[n_vectors, width]` on the CPU, or `None` if the file has none for it.
    pub fn vectors(&self, encoder: EncoderId, width: usize) -> Option<&Tensor> {
        let fits =
            |held: &&Held| held.encoders.contains(&encoder) && held.vectors.dims()[1] == width;
        self.held.iter().find(fits).map(|held| &held.vectors)
    }

    /// The widths that it has vectors of, in the file's order.
    pub fn widths(&self) -> Vec<usize> {
        self.held.iter().map(Held::width).collect()
    }

    /// The same rows, or an error that names both widths.
    pub fn expect_vectors(&self, encoder: EncoderId, width: usize) -> Result<&Tensor> {
        let rows = self.vectors(encoder, width);
        rows.ok_or_else(|| self.misfit(&[(encoder, width)]))
    }

    /// An error that names all widths if none of these encoders (with the width of each) has
    /// vectors here.
    pub fn expect_any(&self, encoders: &[(EncoderId, usize)]) -> Result<()> {
        let fits = |(encoder, width): &(EncoderId, usize)| self.vectors(*encoder, *width).is_some();
        if encoders.iter().any(fits) {
            return Ok(());
        }
        Err(self.misfit(encoders))
    }

    /// SHA-256, in hexadecimal, of its placeholder and of all its vectors.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n", self.placeholder));
        for Held { encoders, vectors } in &self.held {
            hash.update(format!("{encoders:?} {:?}\n", vectors.dims()));
            for value in vectors.flatten_all()?.to_vec1::<f32>()? {
                hash.update(value.to_le_bytes());
            }
        }
        let bytes = hash.finalize();
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        Ok(digits.collect())
    }

    /// What a person should know of how it was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn misfit(&self, encoders: &[(EncoderId, usize)]) -> Error {
        let has: Vec<String> = self.held.iter().map(Held::describe).collect();
        let wanted: Vec<String> = encoders
            .iter()
            .map(|(encoder, width)| format!("{encoder} with {width}"))
            .collect();
        let message = format!(
            "the embedding `{}` has vectors of width {}; wanted was {}",
            self.name,
            has.join(" and "),
            wanted.join(" or ")
        );
        refuse(message).hint("it was trained for another family of models")
    }
}

impl Held {
    fn width(&self) -> usize {
        self.vectors.dims()[1]
    }

    /// Its width, and the encoder where the width tells it.
    fn describe(&self) -> String {
        let width = self.width();
        let family = match width {
            768 => " (ViT-L: SD 1.x, or SDXL's first encoder)",
            1024 => " (ViT-H: SD 2.x)",
            1280 => " (bigG: SDXL's second encoder, or its refiner)",
            _ => "",
        };
        format!("{width}{family}")
    }
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Embedding, message)
}

/// True for the name of what lies in a list (`[0]`, `[1].<key>`), and not for a placeholder in brackets.
fn is_member(name: &str) -> bool {
    let number = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    number.is_some_and(|(number, rest)| {
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        digits && !number.is_empty() && (rest.is_empty() || rest.starts_with('.'))
    })
}

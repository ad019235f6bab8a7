//! A window on its way through an encoder: ids, vectors in place of some of them, and keys that
//! attention does not see.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, ErrorKind, Result};
use crate::tokens::{CONTEXT, Chunk};

/// One window to encode.
///
/// ```
/// use sd_conditioner::{encoder::Window, tokens::{Chunk, END_OF_TEXT}};
/// let chunk = Chunk::empty(END_OF_TEXT);
/// let window = Window::from(&chunk);
/// assert_eq!(window.chunk().end(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Window<'a> {
    chunk: &'a Chunk,
    vectors: Vec<(usize, Tensor)>,
    hidden_keys: Option<[bool; CONTEXT]>,
}

impl<'a> From<&'a Chunk> for Window<'a> {
    fn from(chunk: &'a Chunk) -> Window<'a> {
        Window {
            chunk,
            vectors: Vec::new(),
            hidden_keys: None,
        }
    }
}

impl<'a> Window<'a> {
    /// The same with a vector `[width]` in place of the token embedding of a row. Positions are
    /// added to it as to any other.
    #[must_use]
    pub fn with_vector(mut self, row: usize, vector: Tensor) -> Window<'a> {
        self.vectors.push((row, vector));
        self
    }

    /// The same with rows that no row attends to (compel's attention mask). The start row is always
    /// seen.
    #[must_use]
    pub fn hiding(mut self, mut keys: [bool; CONTEXT]) -> Window<'a> {
        keys[0] = false;
        self.hidden_keys = keys.contains(&true).then_some(keys);
        self
    }

    /// Rows and their vectors, in the order in which they were given.
    pub(crate) fn vectors(&self) -> &[(usize, Tensor)] {
        &self.vectors
    }

    /// The rows that no row attends to.
    pub(crate) fn hidden_keys(&self) -> [bool; CONTEXT] {
        self.hidden_keys.unwrap_or([false; CONTEXT])
    }

    /// True for the empty prompt: nothing between the start and the end.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunk.end() == 1 && self.vectors.is_empty() && self.hidden_keys.is_none()
    }

    /// Its ids.
    pub fn chunk(&self) -> &'a Chunk {
        self.chunk
    }
}

/// All ids in order.
pub(super) fn ids(windows: &[Window<'_>]) -> Vec<u32> {
    let ids = windows.iter().flat_map(|window| window.chunk.ids());
    ids.copied().collect()
}

/// `rows` (`[windows · 77, width]`) with the vectors in their places.
pub(super) fn spliced(rows: Tensor, windows: &[Window<'_>]) -> Result<Tensor> {
    let (n_rows, width) = rows.dims2()?;
    let mut index: Vec<u32> = (0..row_number(n_rows)?).collect();
    let mut all = vec![rows.clone()];
    for (place, window) in windows.iter().enumerate() {
        for (row, vector) in &window.vectors {
            if vector.dims() != [width] || *row >= CONTEXT {
                let message = format!(
                    "a vector of shape {:?} for row {row} of an encoder that is {width} wide",
                    vector.dims()
                );
                return Err(Error::new(ErrorKind::TensorShape, message));
            }
            index[place * CONTEXT + row] = row_number(n_rows + all.len() - 1)?;
            let vector = vector.to_device(rows.device())?.to_dtype(DType::F32)?;
            all.push(vector.unsqueeze(0)?);
        }
    }
    if all.len() == 1 {
        return Ok(rows);
    }
    let index = Tensor::from_vec(index, n_rows, rows.device())?;
    Ok(Tensor::cat(&all, 0)?.index_select(&index, 0)?)
}

/// `[windows, 77]`: minus infinity where a key is hidden, 0 elsewhere; `None` if none is.
pub(super) fn hidden_keys(windows: &[Window<'_>], device: &Device) -> Result<Option<Tensor>> {
    let all: Vec<&Window<'_>> = windows.iter().collect();
    let Some(values) = hidden(&all) else {
        return Ok(None);
    };
    let shape = (windows.len(), CONTEXT);
    Ok(Some(Tensor::from_vec(values, shape, device)?))
}

/// The rows that are pooled; `None` if a number does not fit, which the plain path tells.
pub(super) fn ends(windows: &[&Window<'_>]) -> Option<Vec<u32>> {
    let ends = windows
        .iter()
        .map(|window| u32::try_from(window.chunk.end()));
    ends.collect::<Result<_, _>>().ok()
}

/// All vectors, by row of the whole batch.
pub(super) fn vectors<'a>(windows: &[&'a Window<'_>]) -> Vec<(usize, &'a Tensor)> {
    let each = windows.iter().enumerate().flat_map(|(place, window)| {
        let vectors = window.vectors.iter();
        vectors.map(move |(row, vector)| (place, *row, vector))
    });
    // A row beyond its window is beyond the batch too, and so refused.
    let place = |(place, row, vector)| {
        let inside = (row < CONTEXT).then(|| place * CONTEXT + row);
        (inside.unwrap_or(usize::MAX), vector)
    };
    each.map(place).collect()
}

/// Minus infinity where a key is hidden; `None` if none is.
pub(super) fn hidden(windows: &[&Window<'_>]) -> Option<Vec<f32>> {
    let any = windows.iter().any(|window| window.hidden_keys.is_some());
    let values = windows.iter().flat_map(|window| {
        let keys = window.hidden_keys.unwrap_or([false; CONTEXT]);
        keys.map(|hidden| if hidden { f32::NEG_INFINITY } else { 0.0 })
    });
    any.then(|| values.collect())
}

pub(super) fn row_number(rows: usize) -> Result<u32> {
    u32::try_from(rows).map_err(|_| Error::new(ErrorKind::Request, "too many windows"))
}

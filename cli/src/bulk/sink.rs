//! Where tensors go: a file for each request, or many in one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sd_conditioner::storage;

use super::known::Finished;
use super::orders::Orders;
use super::pack::Pack;
use crate::job::Key;
use crate::scribe::{Scribe, Sheet};

/// What went wrong, and for whom.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This line; the others go on.
    Line(anyhow::Error),
    /// Everything: what was written last cannot be relied on.
    Run(anyhow::Error),
}

/// Where the tensors of a request lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The name of the file.
    pub(super) file: String,
    /// The id of the request that was encoded.
    pub(super) id: String,
}

pub(super) enum Sink {
    Files(PathBuf),
    Packed(Box<Pack>),
}

impl Sink {
    /// Opens what the orders ask for. Returns also what earlier runs left in packed files.
    pub(super) fn open(orders: &Orders, scribe: &Scribe) -> anyhow::Result<(Sink, Finished)> {
        let Some(size) = orders.pack else {
            return Ok((Sink::Files(orders.folder.clone()), Finished::default()));
        };
        let (pack, finished) = Pack::open(orders, size, scribe)?;
        Ok((Sink::Packed(Box::new(pack)), finished))
    }

    /// Writes a request's tensors.
    pub(super) fn put(&mut self, id: &str, sheet: &Sheet) -> Result<Place, Trouble> {
        match self {
            Sink::Packed(pack) => pack.put(id, sheet).map_err(Trouble::Run),
            Sink::Files(folder) => {
                let place = Place {
                    file: format!("{id}.safetensors"),
                    id: id.to_owned(),
                };
                let path = folder.join(&place.file);
                let written = storage::write_tensors(&path, &sheet.tensors, &sheet.metadata);
                written.map_err(|error| Trouble::Line(error.into()))?;
                Ok(place)
            }
        }
    }

    /// Gives a request the tensors of another one.
    pub(super) fn copy(&mut self, id: &str, key: &Key, other: &Place) -> Result<(), Trouble> {
        match self {
            Sink::Packed(pack) => pack.copy(id, key, other).map_err(Trouble::Run),
            Sink::Files(folder) => copy(folder, id, &other.file).map_err(Trouble::Line),
        }
    }

    /// Nothing is there to be written: a moment to make safe what was.
    pub(super) fn pause(&mut self) -> anyhow::Result<()> {
        match self {
            Sink::Packed(pack) => pack.pause(),
            Sink::Files(_) => Ok(()),
        }
    }

    /// Everything is written.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Sink::Packed(pack) => pack.finish(),
            Sink::Files(_) => Ok(()),
        }
    }
}

fn copy(folder: &Path, id: &str, file: &str) -> anyhow::Result<()> {
    let other = folder.join(file);
    let bytes = fs::read(&other).with_context(|| other.display().to_string())?;
    let own = folder.join(format!("{id}.safetensors"));
    Ok(storage::write_file(&own, &bytes)?)
}

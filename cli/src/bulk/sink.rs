//! Where tensors go: a file for each request, or many in one.

use super::files::Files;
use super::known::Finished;
use super::orders::Orders;
use super::pack::Pack;
use super::trouble::{self, Trouble};
use super::workshop::Workshop;
use crate::job::Key;
use crate::kinds::Kind;
use crate::scribe::{Scribe, Sheet};

/// Where the tensors of a request lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The name of the file.
    pub(super) file: String,
    /// The id of the request that was encoded.
    pub(super) id: String,
}

pub(super) enum Sink {
    Files(Files, Kind),
    /// The workshop keeps other runs out; packed files are made beside their names.
    Packed(Box<Pack>, Workshop),
}

impl Sink {
    /// Opens what the orders ask for. Returns also what earlier runs left in packed files.
    pub(super) fn open(
        orders: &Orders,
        scribe: &Scribe,
        workshop: Workshop,
    ) -> anyhow::Result<(Sink, Finished)> {
        let Some(size) = orders.pack else {
            let files = Files::new(&orders.folder, workshop, orders.inputs.clone());
            return Ok((Sink::Files(files, orders.kind), Finished::default()));
        };
        let (pack, finished) = Pack::open(orders, size, scribe)?;
        Ok((Sink::Packed(Box::new(pack), workshop), finished))
    }

    /// Takes a request's tensors.
    pub(super) fn put(&mut self, id: &str, sheet: &Sheet) -> Result<Place, Trouble> {
        match self {
            Sink::Packed(pack, _) => {
                let placed = pack.put(id, sheet);
                placed.map_err(|error| Trouble::of_pack(&error))
            }
            Sink::Files(files, kind) => {
                let bytes = sheet.to_bytes();
                let bytes = bytes.map_err(|error| Trouble::Line(error.into()))?;
                let file = kind.file_of(id);
                files.put(&file, &bytes)?;
                let id = id.to_owned();
                Ok(Place { file, id })
            }
        }
    }

    /// Gives a request the tensors of another one.
    pub(super) fn copy(&mut self, id: &str, key: &Key, other: &Place) -> Result<(), Trouble> {
        match self {
            Sink::Packed(pack, _) => {
                let copied = pack.copy(id, key, other);
                copied.map_err(|error| Trouble::of_pack(&error))
            }
            Sink::Files(files, kind) => files.copy(&kind.file_of(id), &other.file),
        }
    }

    /// Whether what was taken is to be settled before more comes.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Sink::Packed(..) => true,
            Sink::Files(files, _) => files.is_full(),
        }
    }

    /// What became of all that was taken, in order: whether it is written. Nothing is said of packed
    /// requests, which the next run finds or makes anew.
    pub(super) fn settle(&mut self) -> Vec<Result<(), Trouble>> {
        match self {
            Sink::Packed(..) => Vec::new(),
            Sink::Files(files, _) => files.settle(),
        }
    }

    /// Nothing is there to be written: a moment to make safe what was.
    pub(super) fn pause(&mut self) -> anyhow::Result<()> {
        match self {
            Sink::Packed(pack, _) => pack.pause().map_err(|error| trouble::resumable(&error)),
            Sink::Files(..) => Ok(()),
        }
    }

    /// Everything is written. Returns how many bytes of packed tensors are in place of which there are others.
    pub(super) fn finish(self) -> anyhow::Result<u64> {
        match self {
            Sink::Packed(pack, workshop) => {
                let finished = pack.finish();
                drop(workshop);
                finished.map_err(|error| trouble::resumable(&error))
            }
            Sink::Files(..) => Ok(0),
        }
    }
}

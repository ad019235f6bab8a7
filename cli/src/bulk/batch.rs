//! Lines that go through the steps together.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sd_conditioner::conditioner::PlannedPair;
use sd_conditioner::tokens::Chunk;

use super::lines::Place;
use crate::job::{Job, Key};
use crate::loras::LoraFile;
use crate::together::Made;
use crate::wardrobe::Worn;

/// Lines of a batch; those that need no forward cost little.
const LINES_AT_MOST: usize = 1024;

/// Bytes of the texts of a batch.
const TEXT_AT_MOST: usize = 4 << 20;

/// Batches that are collected at a time, one for each list of `LoRAs`.
const LISTS_AT_MOST: usize = 8;

/// A line that was read.
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) id: String,
    pub(super) what: Task,
}

/// What is to be done with a line.
pub(super) enum Task {
    Fail(anyhow::Error),
    /// An earlier run has done it.
    Skip,
    /// A line before asks for the same.
    Copy {
        key: Key,
    },
    Encode(Box<Ready>),
}

/// A line that can be encoded.
pub(super) struct Ready {
    pub(super) job: Job,
    pub(super) key: Key,
    /// What its encoders are to do; `None` for a job that is planned and encoded by itself.
    pub(super) plan: Option<PlannedPair>,
    /// What tells its windows apart.
    pub(super) windows: Vec<u64>,
    pub(super) warnings: Vec<String>,
}

/// What tells a window from others of a batch.
pub(super) fn hashed(window: &Chunk) -> u64 {
    let mut hasher = DefaultHasher::new();
    window.ids().hash(&mut hasher);
    hasher.finish()
}

/// What was encoded, and the `LoRAs` that were on.
pub(super) type Encoded = sd_conditioner::Result<(Made, Vec<Worn>)>;

/// A line on its way to the writer; encoded, if there was something to encode.
pub(super) type Answer = (Item, Option<Encoded>);

/// Lines that are collected for one forward, with the windows that it will have.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    windows: HashSet<u64>,
    text: usize,
}

/// Collects lines by the `LoRAs` that they put on.
pub(super) struct Batches {
    /// How many windows are a full forward.
    full: usize,
    open: Vec<(Vec<LoraFile>, Batch)>,
}

impl Batches {
    pub(super) fn new(full: usize) -> Batches {
        Batches {
            full,
            open: Vec::new(),
        }
    }

    /// Adds a line. Returns a batch if one is full, or too many are open.
    pub(super) fn add(&mut self, item: Item, loras: &[LoraFile]) -> Option<Vec<Item>> {
        let found = self.open.iter().position(|(files, _)| files == loras);
        let crowded = found.is_none() && self.open.len() == LISTS_AT_MOST;
        let first = crowded.then(|| self.open.remove(0).1.items);
        let place = found.unwrap_or_else(|| {
            self.open.push((loras.to_vec(), Batch::default()));
            self.open.len() - 1
        });
        let batch = &mut self.open[place].1;
        batch.add(item);
        if batch.is_full(self.full) && first.is_none() {
            return Some(self.open.remove(place).1.items);
        }
        first
    }

    /// Adds a line that needs no encoders, behind what came last.
    pub(super) fn add_idle(&mut self, item: Item) -> Option<Vec<Item>> {
        let files = self
            .open
            .last()
            .map_or(Vec::new(), |(files, _)| files.clone());
        self.add(item, &files)
    }

    /// Everything that is still open.
    pub(super) fn rest(&mut self) -> Vec<Vec<Item>> {
        let open = std::mem::take(&mut self.open).into_iter();
        open.map(|(_, batch)| batch.items).collect()
    }
}

impl Batch {
    fn add(&mut self, item: Item) {
        if let Task::Encode(ready) = &item.what {
            let texts = ready.job.texts();
            self.text += texts.iter().map(|(_, text)| text.len()).sum::<usize>();
            self.windows.extend(&ready.windows);
        }
        self.items.push(item);
    }

    fn is_full(&self, windows: usize) -> bool {
        self.windows.len() >= windows
            || self.items.len() >= LINES_AT_MOST
            || self.text >= TEXT_AT_MOST
    }
}

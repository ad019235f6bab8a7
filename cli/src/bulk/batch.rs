//! Lines that go through the steps together.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sd_conditioner::tokens::Chunk;

use super::lines::Place;
use super::live::Held;
use crate::job::{Job, Key};
use crate::loras::LoraFile;
use crate::together::{Made, Plan};
use crate::wardrobe::Worn;

/// Lines of a batch; those that need no forward cost little.
const LINES_AT_MOST: usize = 1024;

/// Bytes of the texts of a batch.
const TEXT_AT_MOST: usize = 4 << 20;

/// Bytes of the results of a batch, in f32; one request may have more.
const BYTES_AT_MOST: u64 = 64 << 20;

/// Batches that are collected at a time, one for each list of `LoRAs`.
const LISTS_AT_MOST: usize = 8;

/// A line that was read.
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) id: String,
    pub(super) what: Task,
    pub(super) warnings: Vec<String>,
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
    pub(super) plan: Option<Plan>,
    /// What tells its windows apart.
    pub(super) windows: Vec<u64>,
    /// Bytes of its results in f32.
    pub(super) bytes: u64,
}

/// Bytes of the results of some lines in f32.
pub(super) fn bytes_of(items: &[Item]) -> u64 {
    items.iter().map(Item::bytes).sum()
}

impl Item {
    fn bytes(&self) -> u64 {
        match &self.what {
            Task::Encode(ready) => ready.bytes,
            Task::Fail(_) | Task::Skip | Task::Copy { .. } => 0,
        }
    }
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

/// Lines that went through the encoders together, and what their results take until they are written.
pub(super) struct Answers {
    pub(super) lines: Vec<Answer>,
    pub(super) held: Held,
}

/// Lines that are collected for one forward, with the windows that it will have.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    windows: HashSet<u64>,
    text: usize,
    bytes: u64,
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

    /// Adds a line. Returns batches that are full, or one too many.
    pub(super) fn add(&mut self, item: Item, loras: &[LoraFile]) -> Vec<Vec<Item>> {
        let mut full = Vec::new();
        let found = self.open.iter().position(|(files, _)| files == loras);
        if let Some(place) = found
            && !self.open[place].1.has_room_for(&item)
        {
            full.push(std::mem::take(&mut self.open[place].1).items);
        }
        if found.is_none() && self.open.len() == LISTS_AT_MOST {
            full.push(self.open.remove(0).1.items);
        }
        let place = found.unwrap_or_else(|| {
            self.open.push((loras.to_vec(), Batch::default()));
            self.open.len() - 1
        });
        let batch = &mut self.open[place].1;
        batch.add(item);
        if batch.is_full(self.full) {
            full.push(self.open.remove(place).1.items);
        }
        full
    }

    /// Adds a line that needs no encoders, behind what came last.
    pub(super) fn add_idle(&mut self, item: Item) -> Vec<Vec<Item>> {
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
        self.bytes += item.bytes();
        self.items.push(item);
    }

    /// False where both together would give more than a batch may, and there is something to go first.
    fn has_room_for(&self, item: &Item) -> bool {
        self.items.is_empty() || self.bytes.saturating_add(item.bytes()) <= BYTES_AT_MOST
    }

    fn is_full(&self, windows: usize) -> bool {
        self.windows.len() >= windows
            || self.items.len() >= LINES_AT_MOST
            || self.text >= TEXT_AT_MOST
            || self.bytes >= BYTES_AT_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wishes::Wishes;

    fn item(bytes: u64) -> Item {
        let wishes = Wishes {
            positive: Some("a cat".to_owned()),
            ..Wishes::default()
        };
        let job = wishes.job().unwrap();
        let ready = Ready {
            key: job.key(),
            job,
            plan: None,
            windows: vec![1, 2],
            bytes,
        };
        Item {
            place: Place::default(),
            id: String::new(),
            what: Task::Encode(Box::new(ready)),
            warnings: Vec::new(),
        }
    }

    /// Equal windows fill no forward, and their results fill the memory all the same.
    #[test]
    fn batches_are_bounded_by_what_they_give() {
        let mut batches = Batches::new(32);
        let mut full = Vec::new();
        for number in 0..2000_u64 {
            let bytes = if number == 1000 { 1 << 30 } else { 1_261_568 };
            full.extend(batches.add(item(bytes), &[]));
        }
        full.extend(batches.rest());
        let lines: usize = full.iter().map(Vec::len).sum();
        assert_eq!(lines, 2000);
        for batch in full {
            let bytes = bytes_of(&batch);
            assert!(bytes <= BYTES_AT_MOST || batch.len() == 1, "{bytes}");
        }
    }
}

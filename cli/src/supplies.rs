//! What prompts may name and what encoders put on, for each job.

use std::path::Path;

use sd_conditioner::Result;

use crate::contents::Hashes;
use crate::embeddings::Shelf;
use crate::job::Job;
use crate::loras::Rack;
use crate::ui;

/// Embeddings and `LoRAs`.
#[derive(Debug)]
pub(crate) struct Supplies {
    shelf: Shelf,
    rack: Rack,
    hashes: Hashes,
}

impl Supplies {
    /// The folders of embeddings and of `LoRAs`, and where the paths of request lines start.
    pub(crate) fn open(
        embeddings: Option<&Path>,
        loras: Option<&Path>,
        requests: Option<&Path>,
    ) -> Result<Supplies> {
        let rack = Rack::open(loras, requests)?;
        for note in rack.notes() {
            ui::warn(note);
        }
        Ok(Supplies {
            shelf: Shelf::open(embeddings, requests)?,
            rack,
            hashes: Hashes::default(),
        })
    }

    /// The job with both, and with what is in their files. Embeddings inside its `LoRAs` may be named,
    /// too.
    pub(crate) fn supply(&mut self, job: Job) -> anyhow::Result<Job> {
        let job = self.shelf.supply(self.rack.supply(job)?)?;
        let contents = self.hashes.of(&job)?;
        Ok(job.with_contents(contents))
    }
}

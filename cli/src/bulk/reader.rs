//! Lines → batches: each line read, checked, looked up among what is done, and planned. A thread of
//! its own does this while the encoders run.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use anyhow::{anyhow, bail};

use super::batch::{Batches, Item, Ready, Task, hashed};
use super::finished;
use super::known::{Finished, Ids, Met, Recent, Said};
use super::lines::{Lines, Place};
use super::orders::Orders;
use super::size::Scale;
use crate::job::{Job, Only};
use crate::kinds::Kind;
use crate::line::Line;
use crate::scribe::Scribe;
use crate::supplies::Supplies;
use crate::together::{self, Plan};
use crate::wardrobe;
use crate::wishes::Wishes;

/// Where it is known what an earlier run has done.
pub(super) enum Earlier {
    /// Everything is to be made.
    Nothing,
    /// A file for each line.
    Files(PathBuf),
    /// Packed files, which were read at the start.
    Packed(Finished),
}

/// What is told of the first id that is another one in all but case or the way an accent is written.
const ALIKE: &str = "the id differs from that of a line before in case or accents alone; where a disk does not \
    tell such names apart, the later file replaces the earlier (not told again)";

/// Reads, checks and plans.
pub(super) struct Reader {
    pub(super) lines: Lines,
    pub(super) wishes: Wishes,
    pub(super) supplies: Supplies,
    pub(super) scribe: Scribe,
    pub(super) earlier: Earlier,
    batches: Batches,
    full: usize,
    scale: Scale,
    ids: Ids,
    recent: Recent<()>,
    said: Said,
    kind: Kind,
    only: Option<Only>,
    replace: bool,
}

/// What an earlier run has done for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    All,
    /// Packed what is not wanted any more.
    Otherwise,
}

impl Reader {
    pub(super) fn new(
        lines: Lines,
        (wishes, supplies): (Wishes, Supplies),
        scribe: Scribe,
        earlier: Earlier,
        orders: &Orders,
    ) -> Reader {
        Reader {
            lines,
            wishes,
            supplies,
            scale: Scale::of(scribe.text()),
            scribe,
            earlier,
            batches: Batches::new(orders.batch_windows),
            full: orders.batch_windows,
            // Names of tensors are not names of files.
            ids: Ids::new(orders.pack.is_none()),
            recent: Recent::ahead(),
            said: Said::default(),
            kind: orders.kind,
            only: orders.only,
            replace: orders.replace,
        }
    }

    /// Reads to the end, or until nobody takes batches any more. Nothing waits for a line that is not
    /// there yet.
    pub(super) fn run(mut self, batches: &SyncSender<Vec<Item>>) -> anyhow::Result<()> {
        while let Some((place, text)) = self.lines.next()? {
            let full = match text {
                Ok(text) if text.trim().is_empty() => Vec::new(),
                Ok(text) => self.take(place, &text),
                Err(error) => self.batches.add_idle(failed(place, String::new(), error)),
            };
            let waiting = self.lines.may_wait().then(|| self.batches.rest());
            for batch in full.into_iter().chain(waiting.into_iter().flatten()) {
                if batches.send(batch).is_err() {
                    return Ok(());
                }
            }
        }
        for batch in self.batches.rest() {
            // Who takes none has a reason of its own, which is told.
            let _ = batches.send(batch);
        }
        Ok(())
    }

    /// Adds one line to a batch. Returns those that are full.
    fn take(&mut self, place: Place, text: &str) -> Vec<Vec<Item>> {
        let (id, met, job) = match self.read(text) {
            Ok(read) => read,
            Err(error) => return self.batches.add_idle(failed(place, String::new(), error)),
        };
        let loras = job.lora_files().unwrap_or_default().to_vec();
        let mut about = job.unused(self.scribe.family());
        about.extend((met == Met::Alike).then(|| ALIKE.to_owned()));
        let what = match self.task(&id, job) {
            Ok(what) => what,
            Err(error) => return self.batches.add_idle(failed(place, id, error)),
        };
        // Nothing is told of lines that are skipped.
        about.retain(|text| !matches!(what, Task::Skip) && self.said.first(text));
        let item = Item {
            place,
            id,
            what,
            warnings: about,
        };
        self.batches.add(item, &loras)
    }

    /// Reads and checks one line.
    fn read(&mut self, text: &str) -> anyhow::Result<(String, Met, Job)> {
        let line = Line::parse(text).map_err(|error| anyhow!(error))?;
        let id = line.id().map_err(|error| anyhow!(error))?;
        let met = self.ids.add(&id);
        if met == Met::Itself {
            bail!("the id `{id}` was used by a line before");
        }
        let only = line.only(self.only).map_err(|error| anyhow!(error))?;
        let wishes = line.over(&self.wishes).map_err(|error| anyhow!(error))?;
        let job = wishes.job().map_err(|error| anyhow!(error))?;
        let job = job.with_only(only.or(self.kind.only()));
        self.kind.expect_job(&job)?;
        Ok((id, met, self.supplies.supply(job)?))
    }

    /// What is to be done with a job.
    fn task(&mut self, id: &str, job: Job) -> anyhow::Result<Task> {
        let before = self.before(id, &job)?;
        if before == Before::All {
            return Ok(Task::Skip);
        }
        let key = job.key();
        // One that is made anew has tensors of its own: they count more than what it was equal to.
        if before == Before::Nothing && self.recent.get(&key).is_some() {
            return Ok(Task::Copy { key });
        }
        self.scale.look(&job)?;
        let (plan, windows) = self.plan(&job)?;
        let bytes = match &plan {
            Some(plan) => self.scale.of_plan(plan, windows.len())?,
            None => self.scale.of_job(&job, windows.len())?,
        };
        // One that is large is made again when its turn comes, so that few of them are in memory.
        let plan = plan.filter(|_| windows.len() <= 2 * self.full);
        self.recent.insert(key, ());
        Ok(Task::Encode(Box::new(Ready {
            job,
            key,
            plan,
            windows,
            bytes,
        })))
    }

    /// The plan of a job that can share a forward, and the windows of any.
    fn plan(&self, job: &Job) -> anyhow::Result<(Option<Plan>, Vec<u64>)> {
        let (text, family) = (self.scribe.text(), self.scribe.family());
        if let Some(plan) = together::plan(text, job)? {
            let windows = plan.windows(family.encoders()[0]).map(hashed);
            let windows = windows.collect();
            return Ok((Some(plan), windows));
        }
        let mut windows = Vec::new();
        for side in job.sides() {
            let chunks = text.chunks(job.request(family, *side))?;
            let first = chunks.first().map(|(_, chunks)| chunks.iter().map(hashed));
            windows.extend(first.into_iter().flatten());
        }
        Ok((None, windows))
    }

    fn before(&self, id: &str, job: &Job) -> anyhow::Result<Before> {
        match &self.earlier {
            Earlier::Packed(finished) if finished.has(id, &job.key_in_hex()) => Ok(Before::All),
            Earlier::Packed(finished) if finished.has_id(id) && self.replace => {
                Ok(Before::Otherwise)
            }
            Earlier::Packed(finished) if finished.has_id(id) => {
                bail!(
                    "the id `{id}` was packed before, and something else was asked for under it, or its files \
                     held something else; choose another id or another --out-dir, or have it made anew \
                     with --replace"
                )
            }
            Earlier::Nothing | Earlier::Packed(_) => Ok(Before::Nothing),
            Earlier::Files(folder) => {
                let path = folder.join(self.kind.file_of(id));
                if !path.exists() {
                    return Ok(Before::Nothing);
                }
                let worn = wardrobe::worn(self.scribe.text(), job)?;
                let said = self.scribe.metadata(job, &worn);
                let dtype = self.scribe.out_dtype();
                let is_whole = finished::is_whole(&path, self.kind, &said, dtype);
                Ok(if is_whole {
                    Before::All
                } else {
                    Before::Nothing
                })
            }
        }
    }
}

fn failed(place: Place, id: String, error: anyhow::Error) -> Item {
    let what = Task::Fail(error);
    Item {
        place,
        id,
        what,
        warnings: Vec::new(),
    }
}

//! Answers → files, and what is said of each line. A thread of its own does this while the encoders
//! run.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::batch::{Answer, Encoded, Item, Ready, Task};
use super::known::{Recent, Said};
use super::sink::{Place, Sink, Trouble};
use crate::progress::Progress;
use crate::scribe::Scribe;
use crate::ui;
use crate::wardrobe::Worn;
use crate::worn;

/// After so long without work, what was written is made safe.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of all lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) written: u64,
    pub(super) failed: u64,
    /// Done by an earlier run.
    pub(super) skipped: u64,
    /// Of those written: asked for what a line before asked for.
    pub(super) copied: u64,
}

/// Writes and tells.
pub(super) struct Writer<'a> {
    /// What the lines are from.
    pub(super) name: String,
    /// Bytes of all lines, if that is known.
    pub(super) length: Option<u64>,
    pub(super) scribe: Scribe,
    pub(super) bar: &'a Progress,
    sink: Sink,
    /// Where the last jobs lie; `None` for those that failed.
    recent: Recent<Option<Place>>,
    said: Said,
    counts: Counts,
}

/// What is said of a line.
#[derive(Default)]
struct Words {
    summaries: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        (name, length): (String, Option<u64>),
        scribe: Scribe,
        bar: &'a Progress,
        sink: Sink,
    ) -> Writer<'a> {
        Writer {
            name,
            length,
            scribe,
            bar,
            sink,
            recent: Recent::behind(),
            said: Said::default(),
            counts: Counts::default(),
        }
    }

    /// Writes until no more answers come. An error is one that ends the run.
    pub(super) fn run(mut self, answers: &Receiver<Vec<Answer>>) -> anyhow::Result<Counts> {
        loop {
            match answers.recv_timeout(PAUSE) {
                Ok(batch) => {
                    for (item, encoded) in batch {
                        self.take(item, encoded)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.sink.pause()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.sink.finish()?;
        Ok(self.counts)
    }

    fn take(&mut self, item: Item, encoded: Option<Encoded>) -> anyhow::Result<()> {
        let Item { place, id, what } = item;
        let mut words = Words::default();
        let done = match what {
            Task::Fail(error) => Err(Trouble::Line(error)),
            Task::Skip => {
                self.counts.skipped += 1;
                self.show(place.bytes);
                return Ok(());
            }
            Task::Copy { key } => match self.recent.get(&key) {
                Some(Some(other)) => self.sink.copy(&id, &key, other),
                Some(None) | None => Err(Trouble::Line(anyhow!(
                    "asks for the same as a line before, which failed"
                ))),
            }
            .inspect(|()| self.counts.copied += 1),
            Task::Encode(ready) => self.write(&id, *ready, encoded, &mut words),
        };
        let done = match done {
            Ok(()) => Ok(()),
            Err(Trouble::Line(error)) => Err(error),
            Err(Trouble::Run(error)) => return Err(error),
        };
        self.tell(place.number, &words, done);
        self.show(place.bytes);
        Ok(())
    }

    fn write(
        &mut self,
        id: &str,
        ready: Ready,
        encoded: Option<Encoded>,
        words: &mut Words,
    ) -> Result<(), Trouble> {
        words.warnings = ready.warnings;
        let encoded = encoded.context("nothing was encoded");
        let sheet = encoded.and_then(|encoded| {
            let (made, worn) = encoded?;
            Ok((self.scribe.sheet(&ready.job, &made, &worn)?, worn))
        });
        let put = sheet.map_err(Trouble::Line).and_then(|(sheet, worn)| {
            let place = self.sink.put(id, &sheet)?;
            self.report(&worn, words);
            words.warnings.extend(sheet.told);
            Ok(place)
        });
        let (place, done) = match put {
            Ok(place) => (Some(place), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.recent.insert(ready.key, place);
        done
    }

    /// What became of `LoRAs`, each thing once for all lines.
    fn report(&mut self, worn: &[Worn], words: &mut Words) {
        for (_, report) in worn {
            let summary = Some(worn::summary(report));
            let first = summary.filter(|text| self.said.first(text));
            words.summaries.extend(first);
            let warnings = worn::warnings(report).into_iter();
            let first = warnings.filter(|text| self.said.first(text));
            words.warnings.extend(first);
        }
    }

    fn tell(&mut self, number: u64, words: &Words, done: anyhow::Result<()>) {
        let count = match done {
            Ok(()) => &mut self.counts.written,
            Err(_) => &mut self.counts.failed,
        };
        *count += 1;
        if done.is_ok() && words.summaries.is_empty() && words.warnings.is_empty() {
            return;
        }
        let place = format!("{}: line {number}", self.name);
        self.bar.aside(|| {
            for summary in &words.summaries {
                self.bar.summary(summary);
            }
            for warning in &words.warnings {
                ui::warn(format!("{place}: {warning}"));
            }
            if let Err(error) = done {
                ui::error(format!("{place}: {}", ui::describe(&error)));
            }
        });
    }

    fn show(&self, bytes: u64) {
        let Counts {
            written,
            failed,
            skipped,
            copied: _,
        } = self.counts;
        let lines = [written, failed, skipped];
        self.bar.counting(lines, bytes, self.length);
    }
}

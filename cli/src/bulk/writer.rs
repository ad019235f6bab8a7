//! Answers → files, and what is said of each line. A thread of its own does this while the encoders
//! run.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::batch::{Answers, Encoded, Item, Ready, Task};
use super::known::{Recent, Said};
use super::lines;
use super::sink::{Place, Sink};
use super::trouble::Trouble;
use crate::job::{Job, Key};
use crate::progress::Progress;
use crate::scribe::Scribe;
use crate::ui;
use crate::wardrobe::Worn;
use crate::worn;

/// After so long without work, what was written is made safe.
const PAUSE: Duration = Duration::from_secs(1);

/// Lines that wait to be settled.
const WAITING: usize = 1024;

/// What became of all lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) written: u64,
    pub(super) failed: u64,
    /// Done by an earlier run.
    pub(super) skipped: u64,
    /// Of those written: asked for what a line before asked for.
    pub(super) copied: u64,
    /// Bytes of packed tensors that were made anew elsewhere.
    pub(super) unused: u64,
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
    /// What the sink took and has not settled yet, with lines that failed between, in order.
    waiting: Vec<Line>,
}

/// A line of which something is to be said.
struct Line {
    place: lines::Place,
    words: Words,
    is_copy: bool,
    done: anyhow::Result<()>,
}

/// What is said of a line.
#[derive(Default)]
struct Words {
    summaries: Vec<String>,
    warnings: Vec<String>,
}

impl Words {
    fn is_empty(&self) -> bool {
        self.summaries.is_empty() && self.warnings.is_empty()
    }
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
            waiting: Vec::new(),
        }
    }

    /// Writes until no more answers come. An error is one that ends the run.
    pub(super) fn run(mut self, answers: &Receiver<Answers>) -> anyhow::Result<Counts> {
        let ended = self.take_all(answers);
        // Whatever has ended the run, what was written before stays.
        let settled = self.settle();
        ended.and(settled)?;
        let unused = self.sink.finish()?;
        Ok(Counts {
            unused,
            ..self.counts
        })
    }

    fn take_all(&mut self, answers: &Receiver<Answers>) -> anyhow::Result<()> {
        while let Some(Answers { lines, held }) = self.next(answers)? {
            for (item, encoded) in lines {
                self.take(item, encoded)?;
            }
            drop(held);
        }
        Ok(())
    }

    /// The next answers; `None` where no more will come. Nothing stays unsettled while there are none.
    fn next(&mut self, answers: &Receiver<Answers>) -> anyhow::Result<Option<Answers>> {
        match answers.try_recv() {
            Ok(batch) => return Ok(Some(batch)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => self.settle()?,
        }
        loop {
            match answers.recv_timeout(PAUSE) {
                Ok(batch) => return Ok(Some(batch)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.sink.pause()?,
            }
        }
    }

    fn take(&mut self, item: Item, encoded: Option<Encoded>) -> anyhow::Result<()> {
        let Item {
            place,
            id,
            what,
            warnings,
        } = item;
        let mut words = Words {
            warnings,
            ..Words::default()
        };
        let is_copy = matches!(what, Task::Copy { .. });
        let done = match what {
            Task::Fail(error) => Err(Trouble::Line(error)),
            Task::Skip => {
                self.skip(&place);
                return Ok(());
            }
            Task::Copy { key } => self.copy(&id, &key),
            Task::Encode(ready) => self.write(&id, &ready, encoded, &mut words),
        };
        let done = unless_all(done)?;
        self.waiting.push(Line {
            place,
            words,
            is_copy,
            done,
        });
        if self.sink.is_full() || self.waiting.len() >= WAITING {
            self.settle()?;
        }
        Ok(())
    }

    /// Has the sink settle what it took, and tells of all lines that waited for it.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut settled = self.sink.settle().into_iter();
        let mut ended = Ok(());
        for mut line in std::mem::take(&mut self.waiting) {
            if line.done.is_ok() {
                match unless_all(settled.next().unwrap_or(Ok(()))) {
                    Ok(done) => line.done = done,
                    Err(error) => {
                        ended = ended.and(Err(error));
                        continue;
                    }
                }
            }
            self.tell(&line);
        }
        ended
    }

    fn skip(&mut self, place: &lines::Place) {
        self.counts.skipped += 1;
        self.show(place.bytes);
    }

    fn copy(&mut self, id: &str, key: &Key) -> Result<(), Trouble> {
        match self.recent.get(key) {
            Some(Some(other)) => self.sink.copy(id, key, other),
            Some(None) | None => Err(Trouble::Line(anyhow!(
                "asks for the same as a line before, which failed"
            ))),
        }
    }

    fn write(
        &mut self,
        id: &str,
        ready: &Ready,
        encoded: Option<Encoded>,
        words: &mut Words,
    ) -> Result<(), Trouble> {
        let put = self.put(id, &ready.job, encoded, words);
        let (place, done) = match put {
            Ok(place) => (Some(place), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.recent.insert(ready.key, place);
        done
    }

    fn put(
        &mut self,
        id: &str,
        job: &Job,
        encoded: Option<Encoded>,
        words: &mut Words,
    ) -> Result<Place, Trouble> {
        let encoded = encoded.context("nothing was encoded");
        let sheet = encoded.and_then(|encoded| {
            let (made, worn) = encoded?;
            Ok((self.scribe.sheet(job, &made, &worn)?, worn))
        });
        let (sheet, worn) = sheet.map_err(Trouble::Line)?;
        let place = self.sink.put(id, &sheet)?;
        self.report(&worn, words);
        words.warnings.extend(sheet.told);
        Ok(place)
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

    /// Counts a line, and says what there is to say of it.
    fn tell(&mut self, line: &Line) {
        let done = &line.done;
        let count = match done {
            Ok(()) => &mut self.counts.written,
            Err(_) => &mut self.counts.failed,
        };
        *count += 1;
        self.counts.copied += u64::from(line.is_copy && done.is_ok());
        self.show(line.place.bytes);
        if done.is_err() || !line.words.is_empty() {
            let place = format!("{}: line {}", self.name, line.place.number);
            self.bar.aside(|| self.say(&place, line));
        }
    }

    fn say(&self, place: &str, line: &Line) {
        for summary in &line.words.summaries {
            self.bar.summary(summary);
        }
        for warning in &line.words.warnings {
            ui::warn(format!("{place}: {warning}"));
        }
        if let Err(error) = &line.done {
            ui::error(format!("{place}: {}", ui::describe(error)));
        }
    }

    fn show(&self, bytes: u64) {
        let Counts {
            written,
            failed,
            skipped,
            copied: _,
            unused: _,
        } = self.counts;
        let lines = [written, failed, skipped];
        self.bar.counting(lines, bytes, self.length);
    }
}

/// What became of a line, unless all lines share its trouble.
fn unless_all(done: Result<(), Trouble>) -> anyhow::Result<anyhow::Result<()>> {
    match done {
        Ok(()) => Ok(Ok(())),
        Err(Trouble::Line(error)) => Ok(Err(error)),
        Err(Trouble::Run(error)) => Err(error),
    }
}

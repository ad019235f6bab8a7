//! `encode --requests`: one JSON object a line in, tensors out. A bad line stops nothing.
//!
//! Three threads with a few batches between them: one reads and plans, this one encodes, one writes.
//! What is remembered of lines that are behind: hashes of their ids, and a bounded number of prompts.

mod batch;
mod files;
mod finished;
mod found;
mod header;
mod index;
mod known;
mod lines;
mod live;
mod orders;
mod pack;
mod parts;
mod reader;
mod replaced;
mod same;
mod sink;
mod size;
mod trouble;
mod workshop;
mod writer;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

pub(crate) use self::orders::{BulkFlags, Orders};

use self::batch::{Answer, Answers, Item, Task, bytes_of};
use self::lines::Lines;
use self::live::Live;
use self::reader::{Earlier, Reader};
use self::sink::Sink;
use self::workshop::Workshop;
use self::writer::{Counts, Writer};
use crate::encode::Session;
use crate::progress::Progress;
use crate::supplies::Supplies;
use crate::ui::Done;
use crate::wardrobe;
use crate::wishes::Wishes;

/// Batches that wait between two threads.
const WAITING: usize = 2;

/// While no batch comes, so often it is looked whether the run has ended.
const LOOK_UP: Duration = Duration::from_millis(200);

const NO_THREAD: &str = "the system starts no more threads, and a run over many lines needs three";

/// What a run reads and where it writes, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    lines: Lines,
    workshop: Workshop,
}

/// Opens the file (`-` is standard input), makes the folder, and keeps other runs out of it.
pub(crate) fn open(path: &Path, orders: &Orders) -> anyhow::Result<Opened> {
    let lines = Lines::open(path, orders.share)?;
    let folder = &orders.folder;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let workshop = Workshop::open(folder, &orders.stem())?;
    Ok(Opened { lines, workshop })
}

/// Encodes all lines; those that are there already go through the encoders together.
pub(crate) fn run(
    Opened { lines, workshop }: Opened,
    orders: &Orders,
    session: &Session,
    (wishes, supplies): (&Wishes, Supplies),
    bar: &Progress,
) -> Done {
    let begun = Instant::now();
    let scribe = session.scribe();
    let (sink, finished) = Sink::open(orders, scribe, workshop)?;
    let earlier = match (orders.resume, orders.pack) {
        (false, _) => Earlier::Nothing,
        (true, None) => Earlier::Files(orders.folder.clone()),
        (true, Some(_)) => Earlier::Packed(finished),
    };
    let about = (lines.name.clone(), lines.length);
    let wishes = (wishes.clone(), supplies);
    let reader = Reader::new(lines, wishes, scribe.clone(), earlier, orders);
    let writer = Writer::new(about, scribe.clone(), bar, sink);
    let counts = through(reader, session, writer)?;
    bar.clear();
    session.warn_of_cache();
    bar.summary(summary(counts, begun.elapsed()));
    Ok(ExitCode::from(u8::from(counts.failed > 0)))
}

/// All three threads, until the last one is done, or the one that writes cannot go on. Then nobody waits
/// for the one that reads, which may be waiting for a line.
fn through(reader: Reader, session: &Session, writer: Writer<'_>) -> anyhow::Result<Counts> {
    let (batches, planned) = sync_channel(WAITING);
    let (encoded, answers) = sync_channel(WAITING);
    let reading = thread::Builder::new().spawn(move || reader.run(&batches));
    let reading = reading.context(NO_THREAD)?;
    let counts = thread::scope(|scope| {
        let writing = thread::Builder::new().spawn_scoped(scope, move || writer.run(&answers));
        let writing = writing.context(NO_THREAD)?;
        encode(session, &planned, &encoded, || writing.is_finished());
        // Both ends are closed here, so that neither thread waits for the other.
        drop((planned, encoded));
        joined(writing.join())
    })?;
    joined(reading.join())?;
    Ok(counts)
}

fn joined<T>(ended: thread::Result<anyhow::Result<T>>) -> anyhow::Result<T> {
    ended.unwrap_or_else(|_| Err(anyhow!("a thread of this program broke down")))
}

/// Encodes batch after batch, until there are no more or nobody takes the answers.
fn encode(
    session: &Session,
    planned: &Receiver<Vec<Item>>,
    encoded: &SyncSender<Answers>,
    nobody_takes: impl Fn() -> bool,
) {
    let live = Arc::new(Live::default());
    loop {
        match planned.recv_timeout(LOOK_UP) {
            Ok(batch) => {
                let Some(held) = live.hold(bytes_of(&batch), &nobody_takes) else {
                    return;
                };
                let lines = answers(session, batch);
                if encoded.send(Answers { lines, held }).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) if !nobody_takes() => (),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One answer for each line, in order.
fn answers(session: &Session, batch: Vec<Item>) -> Vec<Answer> {
    let ready = batch.iter().filter_map(|item| match &item.what {
        Task::Encode(ready) => Some((&ready.job, ready.plan.as_ref())),
        Task::Fail(_) | Task::Skip | Task::Copy { .. } => None,
    });
    let jobs: Vec<_> = ready.collect();
    let encoders = session.encoders();
    let made = encoders.encode_all(&jobs).into_iter();
    let made = made.zip(&jobs).map(|(made, (job, _))| {
        let worn = wardrobe::worn(encoders.loaded(), job)?;
        Ok((made?, worn))
    });
    let mut made = made.collect::<Vec<_>>().into_iter();
    let answers = batch.into_iter().map(|item| {
        let encoded = match &item.what {
            Task::Encode(_) => made.next(),
            Task::Fail(_) | Task::Skip | Task::Copy { .. } => None,
        };
        (item, encoded)
    });
    answers.collect()
}

/// `3 written, 0 failed, 1 equal to others, in 2.1 s (1.4 lines/s)`.
fn summary(counts: Counts, took: Duration) -> String {
    let Counts {
        written,
        failed,
        skipped,
        copied,
        unused,
    } = counts;
    let more = [(copied, "equal to others"), (skipped, "done before")];
    let more = more.into_iter().filter(|(count, _)| *count > 0);
    let more = more.map(|(count, what)| format!(", {count} {what}"));
    let unused = (unused > 0).then(|| format!(", {unused} bytes of what is packed lie unused"));
    let more: String = more.chain(unused).collect();
    let seconds = took.as_secs_f64();
    let rate = (written + failed) as f64 / seconds.max(1e-3);
    format!("{written} written, {failed} failed{more}, in {seconds:.1} s ({rate:.1} lines/s)")
}

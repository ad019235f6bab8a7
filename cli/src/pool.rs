//! The threads that compute, as many as the machine and its limits give.

use std::io;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context as _;
use rayon::{ThreadBuilder, ThreadPoolBuilder};

use crate::ui;
use crate::weights::variable;

/// Threads of this program besides: those of `encode --requests` that read and write, and a download's. As
/// many are left to them where not all can be had.
const OTHERS: usize = 3;

/// Starts rayon's threads. Where the system gives fewer than there should be (`ulimit -u`, a container's
/// limit), it goes on with those; rayon by itself would end the program in the middle of its work.
pub(crate) fn start() -> anyhow::Result<()> {
    started(wanted(), true)
}

/// The same, for work that takes exactly so many.
pub(crate) fn start_all(wanted: usize) -> anyhow::Result<()> {
    started(wanted, false)
}

fn started(wanted: usize, may_be_fewer: bool) -> anyhow::Result<()> {
    let (mut had, refused) = begun(wanted, |waiting| {
        let own = move || waiting.recv().map_or((), ThreadBuilder::run);
        thread::Builder::new().spawn(own).map(drop)
    });
    let builder = ThreadPoolBuilder::new();
    let Some(refused) = refused else {
        return handed(had, builder);
    };
    if !may_be_fewer {
        return Err(refused).context(REFUSED);
    }
    had.truncate(had.len().saturating_sub(OTHERS).max(1));
    let n_threads = had.len().max(1);
    ui::warn(format!(
        "the system refuses more threads ({refused}): it goes on with {n_threads} of {wanted}, which takes longer"
    ));
    if had.is_empty() {
        let alone = builder.num_threads(1).use_current_thread();
        return alone.build_global().context(REFUSED);
    }
    handed(had, builder)
}

const REFUSED: &str =
    "the threads that compute cannot be started; allow more (`ulimit -u`, a container's limit)";

/// What rayon takes by itself: `RAYON_NUM_THREADS`, or as many as there are cores.
fn wanted() -> usize {
    let named = variable("RAYON_NUM_THREADS").and_then(|text| text.parse().ok());
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    named.filter(|named| *named > 0).unwrap_or_else(cores)
}

/// Threads that wait for what they are to do, until one is refused, and why it is.
fn begun(
    wanted: usize,
    start: impl Fn(Receiver<ThreadBuilder>) -> io::Result<()>,
) -> (Vec<Sender<ThreadBuilder>>, Option<io::Error>) {
    // What a variable says may be more than there can be.
    let wanted = wanted.min(rayon::max_num_threads());
    let mut had = Vec::new();
    while had.len() < wanted {
        let (send, receive) = channel();
        if let Err(refused) = start(receive) {
            return (had, Some(refused));
        }
        had.push(send);
    }
    (had, None)
}

/// Makes them rayon's threads.
fn handed(threads: Vec<Sender<ThreadBuilder>>, builder: ThreadPoolBuilder) -> anyhow::Result<()> {
    let builder = builder.num_threads(threads.len());
    let idle = Mutex::new(threads);
    let hand = |work: ThreadBuilder| {
        let next = idle.lock().ok().and_then(|mut idle| idle.pop());
        let gone = || io::Error::other("a thread ended before it began");
        next.ok_or_else(gone)?.send(work).map_err(|_| gone())
    };
    builder.spawn_handler(hand).build_global().context(REFUSED)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_refused_ends_the_asking() {
        let left = Cell::new(3);
        let start = |_| match left.replace(left.get() - 1) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        };
        let (had, refused) = begun(8, start);
        assert_eq!((had.len(), left.get()), (3, -1));
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
        let (had, refused) = begun(2, |_| Ok(()));
        assert!(had.len() == 2 && refused.is_none());
    }
}

//! Where one thread posts tasks and several take them.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::transmute;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What is done for each task: its number, and the room of the thread that does it.
pub(super) type Work<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// Bits of a number of tasks in the ticket.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

/// Tasks that wait to be taken.
#[derive(Default)]
pub(super) struct Board {
    /// Which posting it is, how many tasks it has, how many of them were taken: `[24, 20, 20]` bits. In one
    /// word, so that who takes a task knows what it belongs to.
    ticket: AtomicU64,
    /// Tasks of this posting that are done.
    done: AtomicUsize,
    /// Written by who posts, while no task can be taken; read by who has taken one.
    work: UnsafeCell<Option<Work<'static>>>,
    posted: AtomicBool,
}

// SAFETY: `work` is written only while there is no task, and read only by those who have one that is not
// done; the ticket and the count of what is done are in between.
unsafe impl Sync for Board {}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.ticket).finish()
    }
}

/// The posting that a ticket is of, its tasks, and those that were taken.
fn parts(ticket: u64) -> (u64, u64, u64) {
    (ticket >> (2 * BITS), ticket >> BITS & MASK, ticket & MASK)
}

impl Board {
    /// Posts tasks while `run` runs; returns when no thread works on them any more. Tasks that nobody has
    /// taken by the end of `run` are taken down.
    pub(super) fn post(&self, tasks: usize, work: Work<'_>, run: impl FnOnce()) {
        assert!(
            tasks as u64 <= MASK && !self.posted.swap(true, Ordering::Acquire),
            "one posting at a time, of fewer than a million tasks"
        );
        // SAFETY: the same type but for a lifetime; nobody uses it after `taken_down` is dropped.
        let work = unsafe { transmute::<Work<'_>, Work<'static>>(work) };
        // SAFETY: the last posting's tasks are all taken and done.
        unsafe { *self.work.get() = Some(work) }
        self.done.store(0, Ordering::Relaxed);
        let (posting, _, _) = parts(self.ticket.load(Ordering::Relaxed));
        let next = (posting + 1) % (1 << (64 - 2 * BITS));
        let ticket = next << (2 * BITS) | (tasks as u64) << BITS;
        let _taken_down = Posted(self);
        self.ticket.store(ticket, Ordering::Release);
        run();
    }

    /// Takes a task, if there is one, and has it done. False if there was none.
    #[expect(clippy::cast_possible_truncation, reason = "a number of 20 bits")]
    pub(super) fn take(&self, does: impl FnOnce(usize, Work<'_>)) -> bool {
        let mut ticket = self.ticket.load(Ordering::Relaxed);
        loop {
            let (_, tasks, taken) = parts(ticket);
            if taken >= tasks {
                return false;
            }
            let [ok, not] = [Ordering::Acquire, Ordering::Relaxed];
            match (self.ticket).compare_exchange_weak(ticket, ticket + 1, ok, not) {
                Ok(_) => break,
                Err(other) => ticket = other,
            }
        }
        let (_, _, task) = parts(ticket);
        let _when_done = Done(&self.done);
        // SAFETY: this task is not done, so its posting stands.
        if let Some(work) = unsafe { *self.work.get() } {
            does(task as usize, work);
        }
        true
    }
}

/// Counts a task as done, even if it panicked.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Tasks that stand on the board until this is dropped, even by a panic.
struct Posted<'a>(&'a Board);

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        let Posted(board) = self;
        let ticket = board.ticket.load(Ordering::Relaxed);
        let (posting, _, _) = parts(ticket);
        let none = posting << (2 * BITS);
        let (_, _, taken) = parts(board.ticket.swap(none, Ordering::Relaxed));
        let mut patience = Patience::default();
        while (board.done.load(Ordering::Acquire) as u64) < taken {
            patience.wait();
        }
        board.posted.store(false, Ordering::Release);
    }
}

/// How one waits for what takes microseconds most times: busily at first.
#[derive(Default)]
pub(super) struct Patience(usize);

impl Patience {
    /// Looks in vain before a processor is left to others.
    const LOOKS: usize = 512;

    /// Waits a little.
    pub(super) fn wait(&mut self) {
        self.0 += 1;
        if self.0 < Patience::LOOKS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

//! Where one thread posts tasks and several take them. Each has a share of neighbouring tasks, for what one
//! asks for ahead the next one needs, and takes those of others when it has no more.

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
pub(super) struct Board {
    /// For each share, which posting it is of, where it ends, and which of its tasks is the next:
    /// `[24, 20, 20]` bits. In one word, so that who takes a task knows what it belongs to.
    shares: Box<[AtomicU64]>,
    /// Tasks of this posting.
    tasks: AtomicU64,
    /// Those of them that are done.
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
        f.debug_tuple("Board").field(&self.shares).finish()
    }
}

/// The posting that a share is of, its end, and its next task.
fn parts(share: u64) -> (u64, u64, u64) {
    (share >> (2 * BITS), share >> BITS & MASK, share & MASK)
}

fn share(posting: u64, end: u64, next: u64) -> u64 {
    posting << (2 * BITS) | end << BITS | next
}

impl Board {
    /// With shares for so many threads, one at least.
    pub(super) fn new(shares: usize) -> Board {
        Board {
            shares: (0..shares.max(1)).map(|_| AtomicU64::new(0)).collect(),
            tasks: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            posted: AtomicBool::new(false),
        }
    }

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
        self.tasks.store(tasks as u64, Ordering::Relaxed);
        let _taken_down = Posted(self);
        let (tasks, shares) = (tasks as u64, self.shares.len() as u64);
        for (number, place) in (0..).zip(&self.shares) {
            let (posting, _, _) = parts(place.load(Ordering::Relaxed));
            let next = (posting + 1) % (1 << (64 - 2 * BITS));
            let [from, end] = [number, number + 1].map(|number| number * tasks / shares);
            place.store(share(next, end, from), Ordering::Release);
        }
        run();
    }

    /// Takes a task, if there is one, and has it done: of this thread's share first. False if there was none.
    #[expect(clippy::cast_possible_truncation, reason = "a number of 20 bits")]
    pub(super) fn take(&self, number: usize, does: impl FnOnce(usize, Work<'_>)) -> bool {
        let (before, own) = self.shares.split_at(number % self.shares.len());
        let Some(task) = own.iter().chain(before).find_map(take_of) else {
            return false;
        };
        let _when_done = Done(&self.done);
        // SAFETY: this task is not done, so its posting stands.
        if let Some(work) = unsafe { *self.work.get() } {
            does(task as usize, work);
        }
        true
    }
}

/// The next task of a share.
fn take_of(place: &AtomicU64) -> Option<u64> {
    let one_more = |share| {
        let (_, end, next) = parts(share);
        (next < end).then_some(share + 1)
    };
    let taken = place.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more);
    taken.ok().map(|share| parts(share).2)
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
        let mut left = 0;
        for place in &board.shares {
            let down = |share_now| {
                let (posting, end, _) = parts(share_now);
                Some(share(posting, end, end))
            };
            let before = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down);
            let (_, end, next) = parts(before.unwrap_or_else(|share| share));
            left += end - next;
        }
        let taken = board.tasks.load(Ordering::Relaxed) - left;
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

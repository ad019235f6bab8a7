//! Where one thread posts tasks and several take them. Each has a share of neighbouring tasks, for what one
//! asks for ahead the next one needs, and takes those of others when it has no more.

use std::cell::UnsafeCell;
use std::mem::transmute;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What is done for each task: its number, and the room of the thread that does it.
pub(super) type Work<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// Tasks that wait to be taken.
pub(super) struct Board {
    /// The next task of each share in the lower half, and where the share ends in the upper.
    shares: Box<[AtomicU64]>,
    /// Tasks that are done.
    done: AtomicUsize,
    /// Written by who posts, while no task can be taken; read by who has taken one.
    work: UnsafeCell<Option<Work<'static>>>,
    posted: AtomicBool,
}

// SAFETY: `work` is written only while there is no task, and read only by those who have one that is not
// done; the shares and the count of what is done are in between.
unsafe impl Sync for Board {}

/// A share's next task and its end. Who takes a task by exchanging the one word for another has the task
/// that stands there now, whatever was posted since it was read.
fn parts(share: u64) -> (u64, u64) {
    (share & u64::from(u32::MAX), share >> 32)
}

fn share(next: u64, end: u64) -> u64 {
    end << 32 | next
}

impl Board {
    /// With shares for so many threads, one at least.
    pub(super) fn new(shares: usize) -> Board {
        Board {
            shares: (0..shares.max(1)).map(|_| AtomicU64::new(0)).collect(),
            done: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            posted: AtomicBool::new(false),
        }
    }

    /// Posts tasks while `run` runs; returns when no thread works on them any more. Tasks that nobody has
    /// taken by the end of `run` are taken down.
    pub(super) fn post(&self, tasks: usize, work: Work<'_>, run: impl FnOnce()) {
        assert!(
            u32::try_from(tasks).is_ok() && !self.posted.swap(true, Ordering::Acquire),
            "one posting at a time, of tasks that 32 bits can count"
        );
        // SAFETY: the same type but for a lifetime; nobody uses it after `Posted` is dropped.
        let work = unsafe { transmute::<Work<'_>, Work<'static>>(work) };
        // SAFETY: the last posting's tasks are all taken and done.
        unsafe { *self.work.get() = Some(work) }
        self.done.store(0, Ordering::Relaxed);
        let tasks = tasks as u64;
        let _until_done = Posted { board: self, tasks };
        let shares = self.shares.len() as u64;
        for (number, place) in (0..).zip(&self.shares) {
            let [next, end] = [number, number + 1].map(|number| number * tasks / shares);
            place.store(share(next, end), Ordering::Release);
        }
        run();
    }

    /// Takes a task, if there is one, and has it done: of this thread's share first. False if there was none.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a number of tasks, which was a usize"
    )]
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
    let one_more = |now| {
        let (next, end) = parts(now);
        (next < end).then(|| share(next + 1, end))
    };
    let taken = place.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more);
    taken.ok().map(|before| parts(before).0)
}

/// Counts a task as done, even if it panicked.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Tasks that stand on the board until this is dropped, even by a panic.
struct Posted<'a> {
    board: &'a Board,
    tasks: u64,
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        let Posted { board, tasks } = self;
        let left = board.shares.iter().map(|place| {
            let (next, end) = parts(place.swap(0, Ordering::Relaxed));
            end - next
        });
        let taken = *tasks - left.sum::<u64>();
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

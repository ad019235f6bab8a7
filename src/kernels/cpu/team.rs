//! Threads of the caller's rayon pool that work on a run together, each with a room of its own for what it
//! needs in between.
//!
//! The windows of a run are divided into groups, and whoever is free takes the next one through all
//! layers: it leads. Threads that find no group left help those who lead, and take tasks from their boards
//! (`board.rs`). So two windows on two threads need no word between them, and one slow core holds up
//! nobody for long. To hand each operation of a group to the pool instead cost a tenth of the time: a run is
//! a hundred of them, of a fraction of a millisecond each.
//!
//! Nobody waits for a thread that has not come: one alone can do everything.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::board::{Board, Patience, Work};

/// Parts of a product for each thread, so that a late one holds up nobody for long.
const SHARES: usize = 3;

/// Who works on a run.
pub(super) struct Team<'a> {
    /// One for each thread.
    rooms: Vec<Mutex<&'a mut [f32]>>,
    /// One for each that may lead.
    boards: Vec<Board>,
    groups: usize,
    arrived: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// The one who takes a group through the layers, and those who help.
#[derive(Clone, Copy)]
pub(super) struct Lead<'a> {
    board: &'a Board,
    /// Does a task in a thread's room.
    at_work: &'a (dyn Fn(usize, Work<'_>) + Sync),
    /// Threads that work for this one, itself among them, if all come.
    pub(super) threads: usize,
    /// Who of those that may lead.
    pub(super) number: usize,
}

impl<'a> Team<'a> {
    /// One room at least, one for each thread; so many may lead at once.
    pub(super) fn new(rooms: Vec<&'a mut [f32]>, leaders: usize, groups: usize) -> Team<'a> {
        let leaders = leaders.max(1);
        let shares = rooms.len().div_ceil(leaders);
        Team {
            rooms: rooms.into_iter().map(Mutex::new).collect(),
            boards: (0..leaders).map(|_| Board::new(shares)).collect(),
            groups,
            arrived: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        }
    }

    /// Calls `lead` once for each group, on threads of the pool.
    pub(super) fn work(&self, lead: impl Fn(usize, Lead<'_>) + Sync) {
        rayon::scope(|scope| {
            for _ in 1..self.rooms.len() {
                scope.spawn(|_| self.join(&lead));
            }
            self.join(&lead);
        });
    }

    /// A thread's part: leads while there are groups, then helps.
    fn join(&self, lead: &(impl Fn(usize, Lead<'_>) + Sync)) {
        let number = self.arrived.fetch_add(1, Ordering::Relaxed);
        if let Some(board) = self.boards.get(number) {
            let who = Lead {
                board,
                at_work: &|task, work| self.at_work(task, work),
                threads: self.rooms.len().div_ceil(self.boards.len()),
                number,
            };
            while let Some(group) = self.next_group() {
                let _when_ended = Ended(&self.ended);
                lead(group, who);
            }
        }
        self.help(number);
    }

    fn next_group(&self) -> Option<usize> {
        let group = self.begun.fetch_add(1, Ordering::Relaxed);
        (group < self.groups).then_some(group)
    }

    /// Does the tasks of others until all groups have ended.
    fn help(&self, number: usize) {
        let mut patience = Patience::default();
        let (before, after) = self.boards.split_at(number % self.boards.len());
        while self.ended.load(Ordering::Acquire) < self.groups {
            let mut boards = after.iter().chain(before);
            // Leaders have the first shares.
            let share = number / self.boards.len();
            if boards.any(|board| board.take(share, |task, work| self.at_work(task, work))) {
                patience = Patience::default();
            } else {
                patience.wait();
            }
        }
    }

    /// A task in this thread's room.
    fn at_work(&self, task: usize, work: Work<'_>) {
        let thread = rayon::current_thread_index().unwrap_or_default();
        let room = &self.rooms[thread % self.rooms.len()];
        let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
        work(task, &mut room);
    }
}

/// Counts a group as ended, even by a panic.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Lead<'_> {
    /// Calls `work` for parts of a product: so many rows at most, for all columns where that is work
    /// for every thread, else for some of them.
    pub(super) fn share_product(
        self,
        (rows, chunk): (usize, usize),
        windows: usize,
        work: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
    ) {
        let by_rows = rows.div_ceil(chunk);
        let wanted = (SHARES * self.threads).div_ceil(by_rows);
        let many = windows.div_ceil(wanted.clamp(1, windows.max(1)));
        let by_windows = windows.div_ceil(many.max(1));
        self.share(by_rows * by_windows, |task, room| {
            let (row, window) = (task / by_windows * chunk, task % by_windows * many);
            let rows = row..rows.min(row + chunk);
            work(rows, window..windows.min(window + many), room);
        });
    }

    /// Calls `work` for each number below `tasks`, many at once, and returns when all are done.
    pub(super) fn share(self, tasks: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        self.board
            .post(tasks, &work, || while self.board.take(0, self.at_work) {});
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// A team at work in a pool of its own.
    fn at_work(
        threads: usize,
        (leaders, groups): (usize, usize),
        lead: impl Fn(usize, Lead<'_>) + Sync,
    ) {
        let mut rooms = vec![0.0; threads];
        let team = Team::new(rooms.chunks_mut(1).collect(), leaders, groups);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| team.work(&lead));
    }

    #[test]
    fn every_task_is_done_once_before_the_next_are_shared_out() {
        for (threads, leaders, groups) in [(1, 1, 3), (2, 1, 1), (2, 2, 2), (5, 3, 7)] {
            let led: Vec<_> = (0..groups).map(|_| AtomicUsize::new(0)).collect();
            at_work(threads, (leaders, groups), |group, lead| {
                led[group].fetch_add(1, Ordering::Relaxed);
                let done: Vec<_> = (0..100).map(|_| AtomicUsize::new(0)).collect();
                for round in 0..200 {
                    let tasks = round % 100;
                    lead.share(tasks, |task, _| {
                        done[task].fetch_add(1, Ordering::Relaxed);
                    });
                    let so_far = |place: usize| done[place].swap(0, Ordering::Relaxed);
                    let counts: Vec<usize> = (0..100).map(so_far).collect();
                    assert!(counts[..tasks].iter().all(|count| *count == 1));
                    assert!(counts[tasks..].iter().all(|count| *count == 0));
                }
            });
            assert!(led.iter().all(|times| times.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn those_without_a_group_help() {
        let seen = Mutex::new(BTreeSet::new());
        at_work(3, (1, 1), |_, lead| {
            lead.share(3, |_, _| {
                seen.lock().unwrap().insert(rayon::current_thread_index());
                // Nobody takes a second task before all have one.
                while seen.lock().unwrap().len() < 3 {
                    std::thread::yield_now();
                }
            });
        });
        assert_eq!(seen.into_inner().unwrap().len(), 3);
    }

    #[test]
    fn threads_that_never_come_are_not_waited_for() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
        let pool = pool.build().unwrap();
        let (free, wait) = std::sync::mpsc::channel::<()>();
        pool.spawn(move || wait.recv().unwrap());
        let mut rooms = [0.0; 2];
        let team = Team::new(rooms.chunks_mut(1).collect(), 2, 3);
        let done = AtomicUsize::new(0);
        pool.install(|| {
            team.work(|_, lead| {
                lead.share(50, |_, _| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(done.into_inner(), 150);
        free.send(()).unwrap();
    }

    #[test]
    fn a_panic_ends_the_run_and_not_in_a_wait_without_end() {
        for culprit in [0, 7] {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                at_work(3, (2, 4), |group, lead| {
                    lead.share(8, |task, _| {
                        assert!(group != 2 || task != culprit, "on purpose");
                    });
                });
            }));
            assert!(ended.is_err());
        }
    }
}

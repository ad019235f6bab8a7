//! Work shared out to the threads of the caller's rayon pool, each with a room of its own for what it
//! needs in between.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

/// Parts of a product for each thread, so that a late one holds up nobody for long.
const SHARES: usize = 3;

/// A room for each thread.
#[derive(Debug)]
pub(super) struct Team<'a> {
    rooms: Vec<Mutex<&'a mut [f32]>>,
}

impl<'a> Team<'a> {
    /// One room at least.
    pub(super) fn new(rooms: Vec<&'a mut [f32]>) -> Team<'a> {
        let rooms = rooms.into_iter().map(Mutex::new).collect();
        Team { rooms }
    }

    /// Threads that there is a room for.
    pub(super) fn threads(&self) -> usize {
        self.rooms.len()
    }

    /// Parts of a product that are wanted at least.
    pub(super) fn wanted(&self) -> usize {
        SHARES * self.rooms.len()
    }

    /// Calls `work` for parts of a product: so many rows at most, for all columns where that is work
    /// for every thread, else for some of them.
    pub(super) fn share_product(
        &self,
        (rows, chunk): (usize, usize),
        windows: usize,
        work: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
    ) {
        let by_rows = rows.div_ceil(chunk);
        let wanted = self.wanted().div_ceil(by_rows);
        let many = windows.div_ceil(wanted.clamp(1, windows.max(1)));
        let by_windows = windows.div_ceil(many.max(1));
        self.share(by_rows * by_windows, |task, room| {
            let (row, window) = (task / by_windows * chunk, task % by_windows * many);
            let rows = row..rows.min(row + chunk);
            work(rows, window..windows.min(window + many), room);
        });
    }

    /// Calls `work` for each number below `tasks`, many at once.
    pub(super) fn share(&self, tasks: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let thread = rayon::current_thread_index().unwrap_or_default();
            let room = &self.rooms[thread % self.rooms.len()];
            let mut room = room.lock().unwrap_or_else(PoisonError::into_inner);
            work(task, &mut room);
        });
    }
}

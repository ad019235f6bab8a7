//! Work shared out to the threads of the caller's rayon pool, each with a room of its own for what it
//! needs in between.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::aligned::Aligned;

/// Rooms for as many threads as the pool has.
#[derive(Debug)]
pub(super) struct Team {
    rooms: Vec<Mutex<Aligned>>,
}

impl Team {
    /// Rooms of `length` values.
    pub(super) fn new(length: usize) -> Team {
        let threads = rayon::current_num_threads();
        let room = |_| Mutex::new(Aligned::zeros(length));
        Team {
            rooms: (0..threads).map(room).collect(),
        }
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

//! WHO MOVES FIRST. Two moves at once are right, but take twice the room on a card.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How long a thread waits at most for those before it. A move takes a second; one that takes longer may wait
/// for this very thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for a thread of rayon's: what it was doing before is often what others wait for.
const SHORT_PATIENCE: Duration = Duration::from_millis(100);

/// Moves under way.
#[derive(Debug, Default)]
pub(super) struct Turns {
    threads: Mutex<Vec<ThreadId>>,
    ended: Condvar,
}

/// A move, until it is dropped.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for others' moves, but not for long. It is no lock: a move uses rayon, whose waiting thread is
    /// handed other tasks, and one of those may move, too.
    pub(super) fn wait(&self) -> Turn<'_> {
        let this = thread::current().id();
        let mut threads = self.locked();
        if !threads.contains(&this) {
            let patience = match rayon::current_thread_index() {
                Some(_) => SHORT_PATIENCE,
                None => PATIENCE,
            };
            let others = |threads: &mut Vec<ThreadId>| !threads.is_empty();
            let waited = self.ended.wait_timeout_while(threads, patience, others);
            (threads, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        threads.push(this);
        Turn(self)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<ThreadId>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let this = thread::current().id();
        let mut threads = self.0.locked();
        if let Some(place) = threads.iter().position(|thread| *thread == this) {
            threads.remove(place);
        }
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;
    use crate::conditioner::meddling::in_time;

    #[test]
    fn others_wait_and_those_in_the_middle_of_a_move_do_not() {
        in_time(|| {
            let turns = Arc::new(Turns::default());
            let first = turns.wait();
            drop(turns.wait());
            let (tell, told) = mpsc::channel();
            let others = Arc::clone(&turns);
            let other = thread::spawn(move || {
                let _turn = others.wait();
                tell.send(()).unwrap();
            });
            let moment = Duration::from_millis(200);
            assert!(told.recv_timeout(moment).is_err(), "it did not wait");
            drop(first);
            told.recv().unwrap();
            other.join().unwrap();
        });
    }

    #[test]
    fn nobody_waits_without_end() {
        in_time(|| {
            let turns = Turns::default();
            let _first = turns.wait();
            thread::scope(|scope| {
                scope.spawn(|| drop(turns.wait()));
            });
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
            pool.unwrap().install(|| drop(turns.wait()));
        });
    }
}

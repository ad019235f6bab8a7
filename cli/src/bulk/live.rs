//! Bytes of results that wait to be written: so many, whatever the lines are.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of all batches between the encoders and the disk. A request that is larger goes alone.
const LIVE_AT_MOST: u64 = 256 << 20;

/// While there is no room, so often it is looked whether anybody makes some.
const LOOK_UP: Duration = Duration::from_millis(200);

/// How much there is.
#[derive(Debug, Default)]
pub(super) struct Live {
    bytes: Mutex<u64>,
    less: Condvar,
}

/// A batch's part of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    live: Arc<Live>,
    bytes: u64,
}

impl Live {
    /// Waits for room; `None` where nobody will make any.
    pub(super) fn hold(
        self: &Arc<Live>,
        bytes: u64,
        nobody_takes: impl Fn() -> bool,
    ) -> Option<Held> {
        let mut held = self.locked();
        while *held > 0 && held.saturating_add(bytes) > LIVE_AT_MOST {
            if nobody_takes() {
                return None;
            }
            let waited = self.less.wait_timeout(held, LOOK_UP);
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *held = held.saturating_add(bytes);
        let live = Arc::clone(self);
        Some(Held { live, bytes })
    }

    /// A number is never half changed.
    fn locked(&self) -> MutexGuard<'_, u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.live.locked();
        *held = held.saturating_sub(self.bytes);
        self.live.less.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;

    /// A writer that is slower than the encoders, with batches as large as they come and one larger.
    #[test]
    fn what_waits_is_bounded() {
        let live = Arc::new(Live::default());
        let (send, receive) = sync_channel::<Held>(1000);
        let writer = thread::spawn(move || {
            for held in receive {
                thread::sleep(Duration::from_millis(1));
                drop(held);
            }
        });
        for number in 0..200_u64 {
            let bytes = match number {
                100 => 1 << 30,
                _ => number % 7 * (10 << 20),
            };
            let held = live.hold(bytes, || false).unwrap();
            let all = *live.locked();
            assert!(all <= LIVE_AT_MOST.max(bytes), "{number}: {all}");
            send.send(held).unwrap();
        }
        drop(send);
        writer.join().unwrap();
        assert_eq!(*live.locked(), 0);
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_gone() {
        let live = Arc::new(Live::default());
        let held = live.hold(LIVE_AT_MOST, || false);
        assert!(live.hold(1, || true).is_none());
        drop(held);
        assert!(live.hold(1, || true).is_some());
    }
}

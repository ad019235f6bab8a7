//! HANDLE → HANDLE that asks its caller, while it encodes, whether it shall go on.

use std::sync::Arc;

use candle_core::Device;

use super::{Conditioner, Inner};
use crate::stop::Stop;

/// Windows of a forward, on a CPU with few threads and on other devices: what takes about a second, or costs no
/// more than all of them at once.
const FEW_THREADS: usize = 8;
const ON_A_CARD: usize = 128;

impl Conditioner {
    pub(super) fn of(inner: Inner) -> Conditioner {
        Conditioner {
            inner: Arc::new(inner),
            stop: Stop::default(),
        }
    }

    /// Another handle that asks as this one does.
    pub(super) fn beside(&self, inner: Arc<Inner>) -> Conditioner {
        Conditioner {
            inner,
            stop: self.stop.clone(),
        }
    }

    /// A handle of the same encoders that gives up encoding ([`ErrorKind::Stopped`]) as soon as `asked` says so. It
    /// is asked on the thread of the call: before each forward, of which many windows then have several, and
    /// before each tensor that a LoRA changes. A forward that has begun is finished, which takes a CPU a second or
    /// two with the large encoders. What the cache knows needs none, and is given. Results are the same; this handle stays
    /// as it is, and those made from the new one ([`with_loras`](Self::with_loras)) ask, too. Of several closures one is
    /// enough.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use sd_conditioner::{Conditioner, ErrorKind, Family, weights::SyntheticSize};
    /// let text = Conditioner::builder().random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let cancelled = Arc::new(AtomicBool::new(true)); // that nobody waits any more, for example
    /// let asked = Arc::clone(&cancelled);
    /// let stoppable = text.stop_when(move || asked.load(Ordering::Relaxed));
    /// let error = stoppable.encode_pair("a lighthouse at dusk", "blurry").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Stopped);
    /// cancelled.store(false, Ordering::Relaxed);
    /// assert!(stoppable.encode_pair("a lighthouse at dusk", "blurry").is_ok());
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    ///
    /// [`ErrorKind::Stopped`]: crate::ErrorKind::Stopped
    #[must_use]
    pub fn stop_when(&self, asked: impl Fn() -> bool + Send + Sync + 'static) -> Conditioner {
        let mut handle = self.clone();
        handle.stop.when(asked);
        handle
    }

    #[cfg(feature = "graph")]
    pub(crate) fn stopped_by(mut self, stop: &Stop) -> Conditioner {
        self.stop.join(stop);
        self
    }
}

/// How many windows go through an encoder between two questions; all where nobody is asked. A CPU's threads have
/// two each, as many as they take along; a card's engine takes no more than so many at once.
pub(super) fn windows_at_once(stop: &Stop, device: &Device) -> usize {
    if !stop.is_given() {
        usize::MAX
    } else if device.is_cpu() {
        FEW_THREADS.max(2 * rayon::current_num_threads())
    } else {
        ON_A_CARD
    }
}

//! WHERE THE ENCODERS ARE, what all handles of one load share, and moving them.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use candle_core::Device;

use crate::encoder::Move;
use crate::error::Result;
use crate::kernels::{self, Kernels};

use super::cache::{Cache, CacheStats};
use super::choice::Choice;
use super::{Conditioner, Part};

/// The encoders of some handles, wherever they are now.
#[derive(Debug)]
pub(super) struct Seat {
    placed: RwLock<Arc<Placed>>,
}

/// Encoders on one device. A call keeps those that it began with.
#[derive(Debug)]
pub(super) struct Placed {
    /// In the family's order.
    pub(super) parts: Vec<Part>,
    pub(super) device: Device,
}

impl Seat {
    pub(super) fn placed(&self) -> Arc<Placed> {
        Arc::clone(&self.placed.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn place(&self, placed: Arc<Placed>) {
        *self.placed.write().unwrap_or_else(PoisonError::into_inner) = placed;
    }
}

/// What the handles of one load share: the cache, and the knowledge of each other.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) cache: Cache,
    choice: Choice,
    seats: Mutex<Vec<Weak<Seat>>>,
    /// Held for writing while encoders move, for reading while new ones are made from them.
    moving: RwLock<()>,
}

impl Home {
    pub(super) fn new(cache: Cache, choice: Choice) -> Home {
        Home {
            cache,
            choice,
            seats: Mutex::default(),
            moving: RwLock::default(),
        }
    }

    /// Nothing moves while this is held.
    pub(super) fn still(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for encoders, which moves with all others.
    pub(super) fn seat(&self, parts: Vec<Part>, device: Device) -> Arc<Seat> {
        let placed = RwLock::new(Arc::new(Placed { parts, device }));
        let seat = Arc::new(Seat { placed });
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&seat));
        seat
    }

    /// Moves all encoders, or none.
    fn carry_to(&self, device: &Device) -> Result<()> {
        let _alone = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        let seats: Vec<Arc<Seat>> = {
            let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            seats.iter().filter_map(Weak::upgrade).collect()
        };
        let there = |seat: &Arc<Seat>| seat.placed().device.same_device(device);
        if seats.iter().all(there) {
            return Ok(());
        }
        self.carry(&seats, device)
    }

    fn carry(&self, seats: &[Arc<Seat>], device: &Device) -> Result<()> {
        let kernels = self.choice.kernels(device)?;
        let mut go = Move::to(device);
        let moved = |seat: &Arc<Seat>| seat.placed().moved(device, &kernels, &mut go);
        let all = || seats.iter().map(moved).collect::<Result<Vec<_>>>();
        let dtype = |seat: &Arc<Seat>| seat.placed().parts.first().map(|part| part.clip.dtype());
        let placed = match seats.iter().find_map(dtype) {
            Some(dtype) => kernels::while_expecting(&*kernels, dtype, all),
            None => all(),
        }?;
        let left: Vec<Device> = seats
            .iter()
            .map(|seat| seat.placed().device.clone())
            .collect();
        for (seat, placed) in seats.iter().zip(placed) {
            seat.place(Arc::new(placed));
        }
        self.cache.clear();
        for device in &left {
            // All has moved; that a pool keeps what it has is no failure.
            let _ = kernels::release_unused(device);
        }
        Ok(())
    }
}

impl Placed {
    fn moved(&self, to: &Device, kernels: &Arc<dyn Kernels>, go: &mut Move<'_>) -> Result<Placed> {
        let there = self.parts.iter().map(|part| {
            let clip = part.clip.moved(go, Arc::clone(kernels))?;
            Ok(Part::new(part.id, part.identity.clone(), clip))
        });
        Ok(Placed {
            parts: there.collect::<Result<_>>()?,
            device: to.clone(),
        })
    }
}

impl Conditioner {
    /// Moves the encoders to the CPU's memory, so that a GPU is free for a U-Net:
    /// [`load_to`](Self::load_to) with the CPU.
    ///
    /// ```
    /// use sd_conditioner::{Conditioner, Family, candle_core::Device, weights::SyntheticSize};
    /// let device = Device::Cpu; // or Device::new_cuda(0)?
    /// let builder = Conditioner::builder().device(device.clone());
    /// let text = builder.random_weights(Family::Sd1, SyntheticSize::Tiny, 73)?;
    /// let _guidance = text.encode_pair("a lighthouse", "blurry")?;
    /// text.offload()?; // the U-Net's turn
    /// text.load_to(&device)?; // the next prompt's
    /// # Ok::<(), sd_conditioner::Error>(())
    /// ```
    pub fn offload(&self) -> Result<()> {
        self.load_to(&Device::Cpu)
    }

    /// Moves the encoders to a device, and chooses kernels for it. This handle, its clones and all
    /// others of the same load ([`with_loras`](Self::with_loras)) move together: tensors that they
    /// share are moved once and stay shared. Calls in progress end where they began; the old
    /// device's memory is free when the last of them has ended. What was handed out stays where it
    /// is. What was compiled and measured for a GPU is kept for the way back. The cache's
    /// memory is emptied. If anything fails (no room on the device), everything
    /// stays where it was. Nothing happens if the encoders are there already.
    pub fn load_to(&self, device: &Device) -> Result<()> {
        self.inner.home.carry_to(device)
    }

    /// Where the encoders are now.
    pub fn device(&self) -> Device {
        self.placed().device.clone()
    }

    /// Forgets the hidden states that are kept in memory. Files of a [`DiskCache`] stay.
    ///
    /// [`DiskCache`]: super::DiskCache
    pub fn clear_cache(&self) {
        self.inner.home.cache.clear();
    }

    /// What the cache did for all handles of this load.
    pub fn cache_stats(&self) -> CacheStats {
        self.inner.home.cache.stats()
    }

    pub(super) fn placed(&self) -> Arc<Placed> {
        self.inner.seat.placed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditioner::Request;
    use crate::conditioning::Conditioning;
    use crate::encoder::{ClipText, Gelu};
    use crate::weights::{Family, SyntheticSize};

    /// The address of a matrix: equal where it is shared.
    fn embedding(clip: &ClipText) -> candle_core::TensorId {
        let mut id = None;
        let _same = clip.with_changes(&mut |name, tensor| {
            if name == "token_embedding" {
                id = Some(tensor.id());
            }
            Ok(None)
        });
        id.unwrap()
    }

    /// All handles of a load get new encoders that still share their tensors; the old ones are free
    /// when the last call that uses them has ended; the cache holds nothing of the old device.
    #[test]
    fn a_move_takes_all_handles_along() {
        let builder = Conditioner::builder();
        let text = builder.random_weights(Family::Sdxl, SyntheticSize::Tiny, 5);
        let text = text.unwrap();
        let before = text.encode("a barn").unwrap();
        let tanh = || text.encode(Request::new("a barn").gelu(Gelu::Tanh));
        let before_tanh = tanh().unwrap();
        let other = beside(&text);
        let running = text.placed();
        let [old, old_other] = [&text, &other].map(|one| Arc::downgrade(&one.placed()));
        let seats = [Arc::clone(&text.inner.seat), Arc::clone(&other.inner.seat)];
        text.inner.home.carry(&seats, &Device::Cpu).unwrap();
        assert_eq!(text.cache_stats().entries, 0);
        assert!(old_other.upgrade().is_none() && old.upgrade().is_some());
        drop(running);
        assert!(old.upgrade().is_none());
        for (one, other) in text.encoders().zip(other.encoders()) {
            assert_eq!(embedding(&one), embedding(&other));
        }
        for part in &text.placed().parts {
            let other = part.with(part.activation(Gelu::Tanh));
            assert_eq!(embedding(&part.clip), embedding(other));
        }
        assert_eq!(context(&before_tanh), context(&tanh().unwrap()));
        let after = text.encode("a barn").unwrap();
        assert_eq!(context(&before), context(&after));
    }

    /// Another handle of the same load, in a seat of its own.
    fn beside(text: &Conditioner) -> Conditioner {
        let placed = text.placed();
        let (home, device) = (&text.inner.home, placed.device.clone());
        let seat = home.seat(placed.parts.iter().map(Part::clone).collect(), device);
        Conditioner {
            inner: Arc::new(text.inner.with(Vec::new(), seat, Vec::new())),
        }
    }

    fn context(one: &Conditioning) -> Vec<f32> {
        let context = one.context().flatten_all().unwrap();
        context.to_vec1().unwrap()
    }
}

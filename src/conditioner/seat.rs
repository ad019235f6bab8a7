//! WHERE THE ENCODERS ARE, what all handles of one load share, and moving them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use candle_core::Device;

use crate::encoder::Move;
use crate::error::Result;
use crate::kernels::{self, Kernels};

use super::cache::{Cache, CacheStats};
use super::carried::Carried;
use super::choice::Choice;
use super::plan::Tower;
use super::turns::Turns;
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

impl Placed {
    /// The encoders as planning sees them.
    pub(super) fn towers(&self) -> Vec<Tower> {
        let tower = |part: &Part| Tower {
            id: part.id,
            width: part.clip.config().width,
        };
        self.parts.iter().map(tower).collect()
    }
}

impl Seat {
    fn new(placed: Placed) -> Arc<Seat> {
        Arc::new(Seat {
            placed: RwLock::new(Arc::new(placed)),
        })
    }

    pub(super) fn placed(&self) -> Arc<Placed> {
        Arc::clone(&self.placed.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn place(&self, placed: Arc<Placed>) {
        *self.placed.write().unwrap_or_else(PoisonError::into_inner) = placed;
    }
}

/// What the handles of one load share: the cache, and the knowledge of each other.
///
/// No lock is held while encoders are made or moved. Both use rayon, and a thread that waits for its part
/// there is handed other tasks, which may want to make or move some, too. So each looks at what is there,
/// works, and looks again before anything is swapped.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) cache: Cache,
    choice: Choice,
    /// Held to look at all of them, and to swap them.
    seats: Mutex<Vec<Weak<Seat>>>,
    turns: Turns,
}

impl Home {
    pub(super) fn new(cache: Cache, choice: Choice) -> Home {
        Home {
            cache,
            choice,
            seats: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// A place for encoders, which moves with all others.
    pub(super) fn seat(&self, parts: Vec<Part>, device: Device) -> Arc<Seat> {
        let seat = Seat::new(Placed { parts, device });
        add(&mut self.locked(), &seat);
        seat
    }

    /// The same for encoders that were made from those of `base`, which were placed as in `then`. If those
    /// have moved since, these follow.
    pub(super) fn seat_beside(
        &self,
        base: &Seat,
        then: &Arc<Placed>,
        parts: Vec<Part>,
    ) -> Result<Arc<Seat>> {
        let device = then.device.clone();
        let seat = Seat::new(Placed { parts, device });
        let now = {
            let mut seats = self.locked();
            add(&mut seats, &seat);
            base.placed()
        };
        if Arc::ptr_eq(&now, then) {
            return Ok(seat);
        }
        let there = seat.placed().after(then, &now)?;
        let _seats = self.locked();
        // Who has moved the base since has moved this along.
        if Arc::ptr_eq(&base.placed(), &now) {
            seat.place(Arc::new(there));
        }
        Ok(seat)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Weak<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many places there are.
    #[cfg(test)]
    pub(super) fn n_living(&self) -> usize {
        self.seen().len()
    }

    /// All encoders where they were at one moment.
    fn seen(&self) -> Vec<(Arc<Seat>, Arc<Placed>)> {
        let seats = self.locked();
        let living = seats.iter().filter_map(Weak::upgrade);
        living
            .map(|seat| {
                let placed = seat.placed();
                (seat, placed)
            })
            .collect()
    }

    /// Moves all encoders, or none.
    fn carry_to(&self, device: &Device) -> Result<()> {
        let _turn = self.turns.wait();
        let is_there = |placed: &Arc<Placed>| placed.device.same_device(device);
        if self.seen().iter().all(|(_, placed)| is_there(placed)) {
            return Ok(());
        }
        self.carry(device, &self.choice.kernels(device)?)
    }

    pub(super) fn carry(&self, device: &Device, kernels: &Arc<dyn Kernels>) -> Result<()> {
        let all = || self.carry_all(Carried::new(device, kernels));
        let dtype = |placed: &Placed| placed.parts.first().map(|part| part.clip.dtype());
        let dtype = self.seen().iter().find_map(|(_, placed)| dtype(placed));
        let left = match dtype {
            Some(dtype) => kernels::while_expecting(&**kernels, dtype, all),
            None => all(),
        }?;
        self.cache.clear();
        for device in &left {
            // All has moved; that a pool keeps what it has is no failure.
            let _ = kernels::release_unused(device);
        }
        Ok(())
    }

    /// One after the other, those that are made meanwhile, too; the devices that are left.
    fn carry_all(&self, mut carried: Carried<'_>) -> Result<Vec<Device>> {
        loop {
            let seen = self.seen();
            carried.note(&seen);
            let mut unknown = seen.into_iter().filter(|(seat, _)| !carried.knows(seat));
            if let Some((seat, here)) = unknown.next() {
                drop(unknown);
                carried.add(seat, &here)?;
            } else if let Some(left) = self.put_down(&carried) {
                return Ok(left);
            }
        }
    }

    /// Swaps all at once and gives the devices that are left, if nothing was added or moved since.
    fn put_down(&self, carried: &Carried<'_>) -> Option<Vec<Device>> {
        let seats = self.locked();
        let living = seats.iter().filter_map(Weak::upgrade);
        let both = living.map(|seat| carried.of(&seat).map(|there| (seat, there)));
        let both: Vec<(Arc<Seat>, Arc<Placed>)> = both.collect::<Option<_>>()?;
        let each = both.into_iter();
        let left = each.map(|(seat, there)| {
            let left = seat.placed().device.clone();
            seat.place(there);
            left
        });
        Some(left.collect())
    }
}

fn add(seats: &mut Vec<Weak<Seat>>, seat: &Arc<Seat>) {
    seats.retain(|seat| seat.strong_count() > 0);
    seats.push(Arc::downgrade(seat));
}

impl Placed {
    pub(super) fn moved(&self, kernels: &Arc<dyn Kernels>, go: &mut Move<'_>) -> Result<Placed> {
        let there = self.parts.iter().map(|part| {
            let clip = part.clip.moved(go, Arc::clone(kernels))?;
            Ok(Part::new(part.id, part.identity.clone(), clip))
        });
        Ok(Placed {
            parts: there.collect::<Result<_>>()?,
            device: go.device().clone(),
        })
    }

    /// These where `now` is, which are those of `then` after a move: what they share with the ones they
    /// share with the others.
    fn after(&self, then: &Placed, now: &Placed) -> Result<Placed> {
        let each = self.parts.iter().zip(then.parts.iter().zip(&now.parts));
        let there = each.map(|(part, (then, now))| {
            let clip = part.clip.after(&then.clip, &now.clip)?;
            Ok(Part::new(part.id, part.identity.clone(), clip))
        });
        Ok(Placed {
            parts: there.collect::<Result<_>>()?,
            device: now.device.clone(),
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
mod tests;

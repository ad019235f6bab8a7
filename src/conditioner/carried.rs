//! ENCODERS + A DEVICE → WHAT THEY ARE THERE, of all handles of a load, while others may make or move some.

use std::sync::{Arc, Weak};

use candle_core::Device;

use crate::encoder::Move;
use crate::error::Result;
use crate::kernels::Kernels;

use super::seat::{Placed, Seat};

/// Encoders on their way to one device. Nothing of them is swapped yet.
pub(super) struct Carried<'a> {
    go: Move<'a>,
    kernels: &'a Arc<dyn Kernels>,
    all: Vec<One>,
}

struct One {
    seat: Arc<Seat>,
    /// What was there when it was last looked at; kept alive by nobody but those who use it.
    from: Weak<Placed>,
    there: Arc<Placed>,
}

impl<'a> Carried<'a> {
    pub(super) fn new(device: &'a Device, kernels: &'a Arc<dyn Kernels>) -> Carried<'a> {
        Carried {
            go: Move::to(device),
            kernels,
            all: Vec::new(),
        }
    }

    /// Whether it was moved.
    pub(super) fn knows(&self, seat: &Arc<Seat>) -> bool {
        self.all.iter().any(|one| Arc::ptr_eq(&one.seat, seat))
    }

    /// Moves what was seen of a seat.
    pub(super) fn add(&mut self, seat: Arc<Seat>, here: &Arc<Placed>) -> Result<()> {
        let there = Arc::new(here.moved(self.kernels, &mut self.go)?);
        let from = Arc::downgrade(here);
        self.all.push(One { seat, from, there });
        Ok(())
    }

    /// Encoders that somebody else has moved since are the same still; where they are now is noted for those
    /// that were made from them there.
    pub(super) fn note(&mut self, seen: &[(Arc<Seat>, Arc<Placed>)]) {
        for one in &mut self.all {
            let mut seen = seen.iter().filter(|(seat, _)| Arc::ptr_eq(&one.seat, seat));
            if let Some((_, now)) = seen.next().filter(|(_, now)| !one.is_from(now)) {
                for (part, there) in now.parts.iter().zip(&one.there.parts) {
                    self.go.know(&part.clip, &there.clip);
                }
                one.from = Arc::downgrade(now);
            }
        }
    }

    /// What came of a seat, if it is as it was.
    pub(super) fn of(&self, seat: &Arc<Seat>) -> Option<Arc<Placed>> {
        let one = self.all.iter().find(|one| Arc::ptr_eq(&one.seat, seat))?;
        let there = one.is_from(&seat.placed()).then_some(&one.there)?;
        Some(Arc::clone(there))
    }
}

impl One {
    fn is_from(&self, placed: &Arc<Placed>) -> bool {
        std::ptr::eq(self.from.as_ptr(), Arc::as_ptr(placed))
    }
}

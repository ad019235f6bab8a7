//! Room for what a run makes on its way, kept from run to run: to get it anew from the system costs a
//! page fault for each of its pages, and the new pages lie worse in the caches or better, by chance.

use std::sync::{Mutex, PoisonError};

use super::aligned::{Aligned, LINE};
use super::attention::SCORES;
use super::panel::COLUMNS;
use super::unit::Units;

/// Rooms that wait at most: as many runs at once find one.
const KEPT: usize = 2;

/// Rooms that no run uses now.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<Aligned>>);

/// How much room a run takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    unit: Units,
    /// Windows of a group.
    windows: usize,
    /// Groups at once.
    leaders: usize,
    width: usize,
    mlp: usize,
    threads: usize,
}

/// The parts of a room.
pub(super) struct Divided<'a> {
    /// One for each group that is under way.
    pub(super) rooms: Vec<Rooms<'a>>,
    /// One for each thread.
    pub(super) threads: Vec<&'a mut [f32]>,
}

/// Panels of a group between operations.
#[derive(Debug)]
pub(super) struct Rooms<'a> {
    /// The residual stream.
    pub(super) x: &'a mut [f32],
    /// What the next product takes: normed, or mixed by attention.
    pub(super) taken: &'a mut [f32],
    pub(super) query_key_value: &'a mut [f32],
    /// What the MLP's second product takes.
    pub(super) inner: &'a mut [f32],
    /// A second form of `taken`.
    pub(super) second: &'a mut [f32],
}

impl Need {
    /// Of groups of so many windows, so many of them at once, on the threads of the caller's pool.
    pub(super) fn new(
        unit: Units,
        (windows, leaders): (usize, usize),
        (width, mlp): (usize, usize),
    ) -> Need {
        Need {
            unit,
            windows,
            leaders,
            width,
            mlp,
            threads: rayon::current_num_threads(),
        }
    }

    /// Lengths of the panels, and of a thread's room, in whole cache lines.
    fn lengths(self) -> ([usize; 5], usize) {
        let panels = |features: usize| self.windows * features * COLUMNS;
        let of = [
            panels(self.width),
            panels(self.width),
            panels(3 * self.width),
            self.unit.only_room(self.windows, self.mlp),
            self.unit.second_room(self.windows, self.width),
        ];
        let whole = |length: usize| length.next_multiple_of(LINE);
        (of.map(whole), whole(self.unit.room().max(SCORES)))
    }

    /// The parts of a room that is large enough. What they hold is left over from other runs.
    pub(super) fn divide(self, mut room: &mut [f32]) -> Divided<'_> {
        let (panels, thread) = self.lengths();
        let mut next = |length: usize| {
            let (part, rest) = std::mem::take(&mut room).split_at_mut(length);
            room = rest;
            part
        };
        let mut group = || {
            let [x, taken, query_key_value, inner, second] = panels.map(&mut next);
            Rooms {
                x,
                taken,
                query_key_value,
                inner,
                second,
            }
        };
        Divided {
            rooms: (0..self.leaders).map(|_| group()).collect(),
            threads: (0..self.threads).map(|_| next(thread)).collect(),
        }
    }

    fn length(self) -> usize {
        let (panels, thread) = self.lengths();
        self.leaders * panels.iter().sum::<usize>() + self.threads * thread
    }
}

impl Shelf {
    /// Calls `work` with a room that is large enough, and keeps the room.
    pub(super) fn with<T>(&self, need: Need, work: impl FnOnce(&mut [f32]) -> T) -> T {
        let length = need.length();
        let mut room = self.take(length).unwrap_or_else(|| Aligned::zeros(length));
        let made = work(&mut room);
        self.put(room);
        made
    }

    /// The smallest that is large enough.
    fn take(&self, length: usize) -> Option<Aligned> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|room| room.len() >= length)?;
        Some(kept.remove(place))
    }

    /// Smallest first; the largest stay.
    fn put(&self, room: Aligned) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.partition_point(|other| other.len() < room.len());
        kept.insert(place, room);
        if kept.len() > KEPT {
            kept.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::isa::{self, Isa};
    use super::*;

    /// The best vector unit. Says so where there is none.
    fn vectors() -> Option<&'static Isa> {
        let isa = isa::available().into_iter().next();
        if isa.is_none() {
            let why = "NOT RUN: it takes a CPU with AVX-512, AVX2 or NEON";
            writeln!(std::io::stderr(), "{why}").unwrap();
        }
        isa
    }

    #[test]
    fn a_room_serves_the_next_run_and_the_largest_stay() {
        let Some(isa) = vectors() else { return };
        let need = |windows| Need::new(Units::vector(isa), (windows, 1), (64, 256));
        let shelf = Shelf::default();
        let place = |windows| shelf.with(need(windows), |room| (room.as_ptr().addr(), room.len()));
        let large = place(3);
        assert_eq!(place(1), large);
        assert!(shelf.with(need(3), |_| place(2)).1 < large.1);
        let kept = || {
            shelf
                .0
                .lock()
                .unwrap()
                .iter()
                .map(|room| room.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(), [need(2).length(), large.1]);
        shelf.with(need(4), |_| ());
        assert_eq!(kept(), [large.1, need(4).length()]);
    }

    #[test]
    fn parts_do_not_overlap_and_begin_on_cache_lines() {
        let Some(isa) = vectors() else { return };
        let need = Need::new(Units::vector(isa), (2, 2), (64, 256));
        let mut room = Aligned::zeros(need.length());
        let Divided { rooms, threads } = need.divide(&mut room);
        assert_eq!(rooms.len(), 2);
        let panels = rooms.into_iter().flat_map(|rooms| {
            let Rooms {
                x,
                taken,
                query_key_value,
                inner,
                second,
            } = rooms;
            [x, taken, query_key_value, inner, second]
        });
        let mut ranges: Vec<(usize, usize)> = panels
            .chain(threads)
            .map(|part| (part.as_ptr().addr(), size_of_val(part)))
            .collect();
        ranges.sort_unstable();
        assert!(ranges.iter().all(|(start, _)| start % 64 == 0));
        assert!(
            ranges
                .windows(2)
                .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
        );
    }
}

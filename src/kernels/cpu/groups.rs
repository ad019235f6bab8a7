//! The windows of a run, divided into groups that go through the layers by themselves.

use std::sync::{Mutex, PoisonError};

use super::panel::ROWS;
use super::rooms::{Divided, Need, Shelf};
use super::shared::SharedMut;
use super::stack::Stack;
use super::team::Team;
use super::unit::{Products, Units};

/// Windows of the largest group: enough that reading a matrix costs little beside using it, few enough
/// that their activations stay in the caches.
pub(super) const GROUP: usize = 8;

/// The same for a vector unit, which is slower than what it reads: a tile's rows pass so many windows.
const FEW: usize = 2;

/// How windows are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Division {
    /// Windows of a group; the last may have fewer.
    each: usize,
    groups: usize,
    /// Groups that are under way at once.
    leaders: usize,
}

impl Division {
    /// The matrix unit waits for memory, so it takes all windows along, and the threads share what there is
    /// to do. A vector unit does not: a thread that has windows of its own waits for nobody, and what it
    /// makes stays in its own cache.
    fn new(products: Products, windows: usize, threads: usize) -> Division {
        let together = match products {
            #[cfg(target_arch = "x86_64")]
            Products::Matrix(_) => None,
            _ => Some(FEW),
        };
        let share = windows.div_ceil(threads);
        let each = together
            .map_or(windows.min(GROUP), |few| share.min(few))
            .max(1);
        let groups = windows.div_ceil(each);
        let leaders = together.map_or(1, |_| groups.min(threads));
        Division {
            each,
            groups,
            leaders,
        }
    }
}

/// Takes so many windows through all layers, of which there is one at least; the states after those in
/// `keep`, `[windows, 77, width]` each.
pub(super) fn through(
    (unit, shelf): (Units, &Shelf),
    stack: &Stack<'_>,
    windows: usize,
    keep: &[usize],
) -> Vec<Vec<f32>> {
    let division = Division::new(unit.products, windows, rayon::current_num_threads());
    let Division {
        each,
        groups,
        leaders,
    } = division;
    let need = Need::new(unit, (each, leaders), (stack.width, stack.mlp()));
    let mut kept = vec![vec![0.0; windows * ROWS * stack.width]; keep.len()];
    let places = kept.iter_mut().map(|values| SharedMut::new(values));
    let places: Vec<_> = keep.iter().copied().zip(places).collect();
    shelf.with(need, |room| {
        let Divided { rooms, threads } = need.divide(room);
        let rooms: Vec<_> = rooms.into_iter().map(Mutex::new).collect();
        let team = Team::new(threads, leaders, groups);
        team.work(|group, lead| {
            let room = rooms[lead.number].lock();
            let mut room = room.unwrap_or_else(PoisonError::into_inner);
            let some = group * each..windows.min((group + 1) * each);
            stack.group(some, &places, &mut room, lead);
        });
    });
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_windows_of_their_own_where_there_are_enough() {
        let division = |windows, threads| {
            let Division {
                each,
                groups,
                leaders,
            } = Division::new(Products::Vector, windows, threads);
            [each, groups, leaders]
        };
        assert_eq!(division(1, 2), [1, 1, 1]);
        assert_eq!(division(2, 2), [1, 2, 2]);
        assert_eq!(division(2, 16), [1, 2, 2]);
        assert_eq!(division(3, 2), [2, 2, 2]);
        assert_eq!(division(33, 4), [2, 17, 4]);
        assert_eq!(division(5, 1), [2, 3, 1]);
    }
}

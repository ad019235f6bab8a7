//! WHERE WEIGHTS LIE: on large pages, from the start of a cache line. Room for whole weights is hundreds of MiB that are filled once: by pages of 4 KiB the
//! system spends longer handing them out than the file takes to read.
#![allow(
    unsafe_code,
    clippy::allow_attributes,
    reason = "the advice is a call of the system; elsewhere than on Linux there is none"
)]

/// Bytes of a large page on most machines; smaller room can hold none.
pub(crate) const LARGE: usize = 2 << 20;

/// Bytes of a cache line: where a matrix begins on one, its rows do not straddle two.
pub(crate) const LINE: usize = 64;

/// Room for so many values that are about to be written, on large pages if it fills some, and how many
/// values to skip: the first that is meant begins on a cache line.
pub(crate) fn room<T: Copy + Default>(n_values: usize) -> (Vec<T>, usize) {
    let spare = LINE / size_of::<T>().max(1);
    let mut values = vec![T::default(); n_values.saturating_add(spare)];
    prefer_large(&mut values);
    // Where the pointer's place is not known, nothing is skipped.
    let skipped = Some(values.as_ptr().align_offset(LINE));
    let skipped = skipped.filter(|skipped| *skipped <= spare).unwrap_or(0);
    (values, skipped)
}

/// Asks the system to back this room with large pages. To be called before the room is written to;
/// changes no value. Where the system has none, or refuses, nothing happens.
pub(crate) fn prefer_large<T>(room: &mut [T]) {
    if size_of_val(room) >= LARGE {
        advise(room);
    }
}

#[cfg(target_os = "linux")]
fn advise<T>(room: &mut [T]) {
    // SAFETY: the name is one that the system knows; the call touches no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Some(page) = usize::try_from(page)
        .ok()
        .filter(|page| page.is_power_of_two())
    else {
        return;
    };
    let bytes = size_of_val(room);
    let skipped = room.as_ptr().addr().wrapping_neg() & (page - 1);
    let inside = bytes.saturating_sub(skipped) & !(page - 1);
    let start = room.as_mut_ptr().cast::<u8>().wrapping_add(skipped);
    // SAFETY: the pages lie wholly in `room`, which is borrowed alone; this advice never changes what
    // they hold, and its failure leaves them as they were.
    unsafe { libc::madvise(start.cast(), inside, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_room: &mut [T]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_on_a_cache_line_and_all_have_room() {
        for n_values in [0, 1, 31, 1000, LARGE / 2 + 7] {
            let (values, skipped) = room::<u16>(n_values);
            assert!(values[skipped..].as_ptr().addr().is_multiple_of(LINE));
            assert!(values.len() - skipped >= n_values);
            let (values, skipped) = room::<f32>(n_values);
            assert!(values[skipped..].as_ptr().addr().is_multiple_of(LINE));
            assert!(values.len() - skipped >= n_values);
        }
    }

    #[test]
    fn the_advice_changes_no_value() {
        for (from, to) in [(0, 0), (0, 9), (1, LARGE / 8 + 1), (4099, LARGE)] {
            let mut values: Vec<usize> = (0..to).collect();
            let from = from.min(to);
            prefer_large(&mut values[from..]);
            assert!(
                values
                    .iter()
                    .enumerate()
                    .all(|(index, value)| index == *value)
            );
        }
    }
}

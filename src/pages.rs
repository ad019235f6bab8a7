//! LARGE PAGES. Room for whole weights is hundreds of MiB that are filled once: by pages of 4 KiB the
//! system spends longer handing them out than the file takes to read.
#![allow(
    unsafe_code,
    clippy::allow_attributes,
    reason = "the advice is a call of the system; elsewhere than on Linux there is none"
)]

/// Bytes of a large page on most machines; smaller room can hold none.
pub(crate) const LARGE: usize = 2 << 20;

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

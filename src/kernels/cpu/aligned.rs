//! A buffer that begins on a cache line, or on a large page if it fills one.

use std::alloc::{self, Layout};
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use crate::pages;

/// Values of a cache line.
pub(super) const LINE: usize = pages::LINE / size_of::<f32>();

/// Zeros at first.
#[derive(Debug)]
pub(super) struct Aligned {
    start: NonNull<f32>,
    length: usize,
    layout: Layout,
}

// SAFETY: it owns its values alone, and they are plain numbers.
unsafe impl Send for Aligned {}
// SAFETY: as above; to change them takes an exclusive borrow.
unsafe impl Sync for Aligned {}

impl Aligned {
    pub(super) fn zeros(length: usize) -> Aligned {
        let bytes = size_of::<f32>().saturating_mul(length.max(1));
        let align = if bytes >= pages::LARGE {
            pages::LARGE
        } else {
            size_of::<f32>() * LINE
        };
        let Ok(layout) = Layout::from_size_align(bytes, align) else {
            panic!("{length} values are more than any machine has room for");
        };
        // SAFETY: the layout has room for one value at least.
        let Some(start) = NonNull::new(unsafe { alloc::alloc(layout) }) else {
            alloc::handle_alloc_error(layout);
        };
        let place = start.as_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: these bytes are ours alone.
        let room = unsafe { slice::from_raw_parts_mut(place, bytes) };
        pages::prefer_large(room);
        room.fill(MaybeUninit::new(0));
        Aligned {
            start: start.cast(),
            length,
            layout,
        }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: it was allocated so.
        unsafe { alloc::dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: so many values were written when it was made.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_where_it_should_and_is_zero() {
        for length in [0, 1, 17, pages::LARGE / 4 - 1, pages::LARGE / 4, 700_001] {
            let mut room = Aligned::zeros(length);
            let align = if length >= pages::LARGE / 4 {
                pages::LARGE
            } else {
                64
            };
            assert_eq!(room.as_ptr().addr() % align, 0, "{length}");
            assert_eq!(room.len(), length);
            assert!(room.iter().all(|value| *value == 0.0));
            room.fill(1.0);
        }
    }
}

//! A slice that several threads write, each its own part.

use std::marker::PhantomData;

/// A mutable slice handed to tasks that promise to write disjoint parts of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedMut<'a> {
    start: *mut f32,
    length: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a slice of plain numbers; who dereferences a pointer from `at` answers for races.
unsafe impl Send for SharedMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> SharedMut<'a> {
        SharedMut {
            start: slice.as_mut_ptr(),
            length: slice.len(),
            slice: PhantomData,
        }
    }

    /// A pointer to `length` values from `offset` on.
    ///
    /// # Panics
    ///
    /// Where they are not inside of the slice.
    pub(super) fn at(self, offset: usize, length: usize) -> *mut f32 {
        assert!(
            offset
                .checked_add(length)
                .is_some_and(|end| end <= self.length),
            "a task must stay inside of its slice"
        );
        // SAFETY: inside of the slice, as was just checked.
        unsafe { self.start.add(offset) }
    }
}

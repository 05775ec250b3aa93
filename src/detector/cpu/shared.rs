//! A buffer that the workers of one section write together, each its own part.
//!
//! Borrowing cannot say "these strided blocks are mine"; this type lets the caller promise it, in one place.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice, cut up by promise instead of by the compiler.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `get` and `range` only, whose callers promise that no two threads touch the same element.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The element `i`; panics beyond the end.
    ///
    /// # Safety
    /// While the reference lives, nobody else accesses this element.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises what the compiler cannot see")]
    pub(super) unsafe fn get(&self, i: usize) -> &mut T {
        assert!(i < self.len, "block {i} of {}: this is a bug", self.len);
        // SAFETY: inside the slice, and unaliased by the caller's promise.
        unsafe { &mut *self.start.add(i) }
    }

    /// The elements of `range`; panics beyond the end.
    ///
    /// # Safety
    /// While the reference lives, nobody else accesses these elements.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller promises what the compiler cannot see")]
    pub(super) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "blocks {range:?} of {}: this is a bug",
            self.len
        );
        // SAFETY: inside the slice, and unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

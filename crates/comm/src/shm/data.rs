//! The bytes of a ring.

use std::{marker::PhantomData, ptr, slice};

/// Memory that a writer and a reader share. It does not know which part is whose: the ring does.
pub(super) struct Data<'a> {
    start: *mut u8,
    capacity: usize,
    segment: PhantomData<&'a ()>,
}

impl<'a> Data<'a> {
    /// # Safety
    /// So many bytes from `start` on can be read and written for `'a`.
    pub(super) unsafe fn new(start: *mut u8, capacity: usize) -> Self {
        Data { start, capacity, segment: PhantomData }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// # Safety
    /// The bytes fit behind `place`, and nobody else reads or writes there.
    pub(super) unsafe fn write(&self, place: usize, bytes: &[u8]) {
        // SAFETY: as the caller promises, within the memory that `new` was promised.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(place), bytes.len()) }
    }

    /// Hands out `count` bytes.
    ///
    /// # Safety
    /// They lie within the capacity, were written, and nobody writes there until `sink` returns.
    pub(super) unsafe fn read(&self, place: usize, count: usize, sink: &mut dyn FnMut(&[u8])) {
        // SAFETY: as the caller promises.
        sink(unsafe { slice::from_raw_parts(self.start.add(place), count) });
    }
}

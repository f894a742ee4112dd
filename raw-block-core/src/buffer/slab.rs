//! The memory of a pool: equal slots of an arena, and the loans of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::Arena;

#[derive(Debug)]
pub(super) struct Slab {
    pub(super) arena: Arc<Arena>,
    /// The distance of two slots in bytes.
    stride: usize,
    pub(super) count: usize,
    /// The numbers of the free slots, the lowest first: buffers that are taken together are
    /// adjacent.
    free: Mutex<BinaryHeap<Reverse<usize>>>,
}

/// The right to one slot, until it is dropped.
pub(super) struct Loan {
    slab: Arc<Slab>,
    number: usize,
}

impl Slab {
    /// Divides an arena of `stride * count` bytes.
    pub(super) fn new(arena: Arena, stride: usize, count: usize) -> Self {
        let free = Mutex::new((0..count).map(Reverse).collect());
        Self { arena: Arc::new(arena), stride, count, free }
    }

    /// Lends the free slot with the lowest address. Its `stride` bytes are initialised, and nothing
    /// else accesses them until the loan is dropped.
    pub(super) fn take(self: &Arc<Self>) -> Option<(NonNull<u8>, Loan)> {
        let Reverse(number) = self.free().pop()?;
        // SAFETY: `number` is below `count`, so the sum is inside the arena's `stride * count`
        // bytes.
        let start = unsafe { self.arena.start().add(number * self.stride) };
        Some((start, Loan { slab: Arc::clone(self), number }))
    }

    /// The number of free slots.
    pub(super) fn available(&self) -> usize {
        self.free().len()
    }

    fn free(&self) -> MutexGuard<'_, BinaryHeap<Reverse<usize>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.slab.free().push(Reverse(self.number));
    }
}

//! The table of registered buffers of the template ring.
//!
//! The kernel pins the pages of an entry when the entry is set, which takes some 50 ms per GiB. So
//! the table has free slots, and a registration sets only its own.

use std::io;
use std::sync::Arc;

use io_uring::IoUring;
use raw_block_core::backend::Arena;

use crate::ring::width::{RawRing, Standard, Width};

/// The kernel registers at most this many bytes in one slot (`io_uring_register(2)`).
const MAX_SLOT_BYTES: usize = 1 << 30;
/// The slots of a table that is not empty.
const MIN_SLOTS: usize = 64;
/// The maximum number of slots (`IORING_MAX_REG_BUFFERS` in `io_uring/rsrc.c`).
const MAX_SLOTS: usize = 1 << 14;

/// A free slot.
const FREE: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// The registered arenas, and their slots in the kernel's table.
#[derive(Default)]
pub(crate) struct BufferTable {
    registered: Vec<Registered>,
    /// The number of slots that the kernel has; 0 if it has no table.
    len: usize,
}

struct Registered {
    /// Kept alive because the kernel writes to these pages, whatever is mapped at their addresses
    /// by then.
    arena: Arc<Arena>,
    /// The slot of each piece of the arena.
    slots: Vec<usize>,
}

impl BufferTable {
    /// Registers an arena.
    ///
    /// # Errors
    /// Those of the kernel; the other arenas stay registered then.
    pub(crate) fn register(&mut self, ring: &IoUring, arena: Arc<Arena>) -> io::Result<()> {
        let pieces: Vec<_> = pieces(&arena).collect();
        let slots: Vec<_> = self.free_slots().take(pieces.len()).collect();
        if slots.len() < pieces.len() {
            return self.grow(ring, arena, pieces.len());
        }
        for (set, (&slot, &piece)) in slots.iter().zip(&pieces).enumerate() {
            if let Err(error) = set_slot(ring, slot, piece) {
                self.free(ring, &slots[..set]);
                return Err(error);
            }
        }
        self.registered.push(Registered { arena, slots });
        Ok(())
    }

    /// Ends one registration of an arena, if there is one.
    pub(crate) fn unregister(&mut self, ring: &IoUring, arena: &Arc<Arena>) {
        let is_it = |registered: &Registered| Arc::ptr_eq(&registered.arena, arena);
        let Some(position) = self.registered.iter().position(is_it) else { return };
        let ended = self.registered.remove(position);
        if self.registered.is_empty() {
            self.unregister_all(ring);
        } else {
            self.free(ring, &ended.slots);
        }
    }

    /// Ends all registrations.
    pub(crate) fn unregister_all(&mut self, ring: &IoUring) {
        let _ = replace::<Standard>(ring, &[]);
        self.len = 0;
        self.registered.clear();
    }

    /// The kernel's table; the position of an entry is its slot.
    pub(crate) fn entries(&self) -> Vec<libc::iovec> {
        let mut table = vec![FREE; self.len];
        if !table.is_empty() {
            for Registered { arena, slots } in &self.registered {
                slots.iter().zip(pieces(arena)).for_each(|(&slot, piece)| table[slot] = piece);
            }
        }
        table
    }

    fn free_slots(&self) -> impl Iterator<Item = usize> + use<> {
        let mut free = vec![true; self.len];
        for &slot in self.registered.iter().flat_map(|registered| &registered.slots) {
            if let Some(free) = free.get_mut(slot) {
                *free = false;
            }
        }
        free.into_iter().enumerate().filter_map(|(slot, free)| free.then_some(slot))
    }

    /// Registers an arena of this number of pieces in a longer table, which pins all arenas again.
    fn grow(&mut self, ring: &IoUring, arena: Arc<Arena>, pieces: usize) -> io::Result<()> {
        let slots = || self.registered.iter().flat_map(|registered| &registered.slots);
        let needed = slots().count() + pieces;
        let end = slots().max().map_or(0, |last| last + 1);
        let before = self.len;
        // The kernel refuses a table that is too long.
        self.len = needed.next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS).max(needed).max(end);
        let slots = self.free_slots().take(pieces).collect();
        self.registered.push(Registered { arena, slots });
        let grown = replace::<Standard>(ring, &self.entries());
        if grown.is_err() {
            self.registered.pop();
            self.len = before;
            self.restore(ring);
        }
        grown
    }

    fn free(&mut self, ring: &IoUring, slots: &[usize]) {
        if self.len > 0 && slots.iter().any(|&slot| set_slot(ring, slot, FREE).is_err()) {
            self.restore(ring);
        }
    }

    /// Makes the kernel's table what it should be. If that fails, the queues work without
    /// registered memory.
    fn restore(&mut self, ring: &IoUring) {
        if replace::<Standard>(ring, &self.entries()).is_err() {
            self.len = 0;
        }
    }
}

/// The entries of an arena.
fn pieces(arena: &Arena) -> impl Iterator<Item = libc::iovec> {
    arena.ranges().iter().flat_map(|&(start, len)| {
        (0..len).step_by(MAX_SLOT_BYTES).map(move |at| libc::iovec {
            iov_base: start.as_ptr().wrapping_add(at).cast(),
            iov_len: (len - at).min(MAX_SLOT_BYTES),
        })
    })
}

/// Replaces a ring's table of registered buffers.
pub(crate) fn replace<W: Width>(ring: &RawRing<W>, table: &[libc::iovec]) -> io::Result<()> {
    let _ = ring.submitter().unregister_buffers();
    if table.is_empty() {
        return Ok(());
    }
    // SAFETY: the table names memory of arenas. The device keeps the arenas alive, the rings keep
    // the device alive, and it drops the template ring before the arenas.
    unsafe { ring.submitter().register_buffers(table) }
}

/// Sets one slot. The kernel reports the number of slots that it has set, so several in one call
/// could fail in part.
fn set_slot(ring: &IoUring, slot: usize, entry: libc::iovec) -> io::Result<()> {
    let slot = u32::try_from(slot).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the entry is free, or names memory of an arena, as in `replace`.
    unsafe { ring.submitter().register_buffers_update(slot, &[entry], None) }
}

//! The order of slots and payloads within a segment.

use super::entry::Entry;
use super::layout::Layout;
use crate::format::damage::ensure;

/// Checks that entries, in the order of their numbers, claim blocks in order and no block twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    block_size: u32,
    /// The block after the last one that slots may have.
    limit: u32,
    /// The header block of the last entry; 0 before the first.
    header: u32,
    /// The block after those that were claimed.
    next: u32,
    /// Whether the last entry is alone in its slot.
    alone: bool,
}

impl Order {
    /// Begins with only the header of a segment claimed, which has this many entries.
    pub(super) fn new(layout: &Layout, entries: u32) -> Self {
        let limit = layout.table_block(entries);
        Self { block_size: layout.block_size, limit, header: 0, next: 1, alone: true }
    }

    /// Claims the blocks of the next entry, which was checked as an object or a tombstone.
    pub(super) fn claim(&mut self, entry: &Entry) -> Result<(), &'static str> {
        const TWICE: &str = "two entries claim one block, or claim blocks out of order";
        let header = entry.header_block();
        if header != self.header {
            ensure(header >= self.next, TWICE)?;
            (self.header, self.next) = (header, header.saturating_add(1));
        } else {
            ensure(!self.alone && entry.is_object() && !entry.is_inline(), TWICE)?;
        }
        self.alone = !entry.is_object() || entry.is_inline();
        let blocks = entry.payload_blocks(self.block_size);
        if blocks > 0 {
            ensure(entry.block.get() >= self.next, TWICE)?;
            self.next = entry.block.get().saturating_add(blocks);
        }
        ensure(self.next <= self.limit, "an entry claims blocks past those of its segment")
    }
}

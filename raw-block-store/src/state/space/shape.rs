//! Sizes in blocks: of the store's segments, and of what is put into them.

use crate::format::{self, Entry, Layout};

/// Bytes of an entry.
#[expect(clippy::cast_possible_truncation, reason = "it is 48")]
const ENTRY_LEN: u32 = format::ENTRY_LEN as u32;

/// The sizes of a store that decide whether something fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Number of segments.
    pub(crate) segments: u32,
    /// Blocks of a segment.
    pub(crate) segment_blocks: u32,
    /// Bytes of a block: a power of two.
    pub(crate) block_size: u32,
    /// Bytes of a slot header for entries, keys, metadata and inline payloads.
    pub(crate) header_capacity: u32,
    /// Entries that one block of a table holds.
    pub(crate) entries_per_table_block: u32,
    /// The most blocks of payloads that share a slot.
    pub(crate) shared_blocks: u32,
    /// How far past the lowest incomplete slot of a segment another one may begin, in blocks.
    pub(crate) window: u32,
}

/// The lengths of one object to put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Bytes of key and metadata together.
    pub(crate) names: u32,
    /// Bytes of the payload.
    pub(crate) payload_len: u32,
}

/// The places of the parts of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Whether its payload lies in the slot header. Then it is alone in its slot.
    pub(crate) inline: bool,
    /// Whether it shares a slot with others of its batch.
    pub(crate) shared: bool,
    /// Blocks of its payload that do not lie in the header.
    pub(crate) blocks: u32,
    /// Bytes of the header that it takes, without an inline payload.
    pub(crate) header_bytes: u32,
}

impl Demand {
    /// The lengths of an object that is in the store.
    pub(crate) fn of(entry: &Entry) -> Self {
        Self { names: entry.names_len(), payload_len: entry.payload_len.get() }
    }
}

impl Shape {
    /// The shape of a store with this layout.
    pub(crate) fn of(layout: &Layout) -> Self {
        let block_size = layout.block_size;
        debug_assert!(block_size.is_power_of_two());
        Self {
            segments: layout.segment_count,
            segment_blocks: layout.segment_blocks,
            block_size,
            header_capacity: layout.names_limit(),
            entries_per_table_block: layout.entries_per_table_block(),
            shared_blocks: layout.shared_blocks(),
            window: layout.window(),
        }
    }

    /// The shape of a store with this many segments of this many blocks.
    #[cfg(test)]
    pub(crate) fn new(segments: u32, segment_blocks: u32, block_size: u32) -> Self {
        Self::of(&Layout {
            block_size,
            segment_blocks,
            segment_count: segments,
            segments_offset: 0,
            container_offset: [0; 3],
            container_len: 0,
            last_superblock_offset: 0,
            member: [0; 16],
            hash_key: [0; 16],
        })
    }

    /// Open segments of new objects, and of kept ones, that there may be.
    pub(crate) fn open_limit(&self) -> usize {
        match self.segments {
            ..32 => 1,
            32..128 => 2,
            _ => 4,
        }
    }

    /// Blocks of the table of a segment with this number of entries.
    pub(crate) fn table_blocks(&self, entries: u32) -> u32 {
        entries.div_ceil(self.entries_per_table_block)
    }

    /// The most blocks that one slot has: with one entry in a segment.
    pub(crate) fn largest_slot(&self) -> u32 {
        self.segment_blocks.saturating_sub(2)
    }

    /// The places of the parts of an object.
    pub(crate) fn fit(&self, demand: Demand) -> Fit {
        let Demand { names, payload_len } = demand;
        let header_bytes = ENTRY_LEN.saturating_add(names);
        // One without payload shares a slot instead.
        let inline =
            payload_len > 0 && header_bytes.saturating_add(payload_len) <= self.header_capacity;
        let blocks = if inline { 0 } else { self.blocks_of(payload_len) };
        Fit { inline, shared: !inline && blocks <= self.shared_blocks, blocks, header_bytes }
    }

    fn blocks_of(&self, bytes: u32) -> u32 {
        let shift = self.block_size.trailing_zeros();
        (bytes >> shift) + u32::from(bytes & (self.block_size - 1) != 0)
    }

    /// Whether the object shares a slot with others of its batch.
    pub(crate) fn is_shared(&self, demand: Demand) -> bool {
        self.fit(demand).shared
    }

    /// Blocks of a slot with this object alone.
    pub(crate) fn blocks_alone(&self, demand: Demand) -> u32 {
        1 + self.fit(demand).blocks
    }
}

//! The sizes and places of a store on its device, and what follows from them.

use super::sizes::{ENTRY_LEN, RECORD_LEN, SLOT_HEADER_LEN, TABLE_HEADER_LEN, body_capacity};
use crate::format::damage::ensure;
use crate::format::is_block_size;
use crate::mutant;

/// Number of checkpoint containers.
pub const CONTAINERS: usize = 3;

/// The fewest segments of a store.
pub const MIN_SEGMENT_COUNT: u32 = 8;

/// The most segments of a store.
pub const MAX_SEGMENT_COUNT: u32 = 1 << 24;

/// The fewest blocks of a segment.
pub const MIN_SEGMENT_BLOCKS: u32 = 8;

/// The most blocks of a segment.
pub const MAX_SEGMENT_BLOCKS: u32 = 1 << 24;

/// Blocks of a segment that the payload of its only object cannot use: the segment's header, the
/// slot's header and one block of table.
const BLOCKS_BESIDE_LARGEST: u32 = 3;

/// The sizes and places of a store on one device, and the identity that its structures carry.
///
/// Offsets and lengths are in bytes. [`Layout::of`] makes one from a superblock that
/// [`Superblock::read`](super::Superblock::read) returned, [`Layout::plan`] one for a new store.
/// The other methods rely on the rules that these two check. For a layout that breaks them they
/// return an arbitrary number, but do not panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Size of a block, a power of two from 512 to 65536.
    pub block_size: u32,
    /// Blocks of a segment, a power of two from [`MIN_SEGMENT_BLOCKS`] to [`MAX_SEGMENT_BLOCKS`].
    pub segment_blocks: u32,
    /// Number of segments, from [`MIN_SEGMENT_COUNT`] to [`MAX_SEGMENT_COUNT`].
    pub segment_count: u32,
    /// Where segment 0 begins.
    pub segments_offset: u64,
    /// Where the checkpoint containers begin.
    pub container_offset: [u64; CONTAINERS],
    /// Length of each container.
    pub container_len: u64,
    /// Where the last copy of the superblock begins.
    pub last_superblock_offset: u64,
    /// Identity of the member. All its structures carry it.
    pub member: [u8; 16],
    /// Secret from which keyed hashes are derived, the same on all members of a set.
    pub hash_key: [u8; 16],
}

/// The largest total length of the payloads in one slot, in bytes.
const SHARED_SLOT_LEN: u32 = 4 << 20;

/// How far past the lowest incomplete slot of a segment another one may begin, in bytes.
const WINDOW_LEN: u32 = 32 << 20;

#[expect(clippy::cast_possible_truncation, reason = "the lengths of structures are short")]
impl Layout {
    /// The largest total length of the payloads in one slot, in blocks.
    #[must_use]
    pub fn shared_blocks(&self) -> u32 {
        if mutant::simulates() {
            return 8;
        }
        SHARED_SLOT_LEN.checked_div(self.block_size).unwrap_or(0).max(1)
    }

    /// How far past the lowest incomplete slot of a segment another one may begin, in blocks.
    /// Recovery searches that far for a slot header where one is missing.
    #[must_use]
    pub fn window(&self) -> u32 {
        if mutant::simulates() {
            return 12;
        }
        WINDOW_LEN.checked_div(self.block_size).unwrap_or(0).max(1)
    }

    /// Length in bytes of a segment.
    #[must_use]
    pub fn segment_size(&self) -> u64 {
        u64::from(self.segment_blocks) * u64::from(self.block_size)
    }

    /// Where a segment begins.
    #[must_use]
    pub fn segment_offset(&self, segment: u32) -> u64 {
        self.segment_size().saturating_mul(segment.into()).saturating_add(self.segments_offset)
    }

    /// Where a block of a segment begins.
    #[must_use]
    pub fn block_offset(&self, segment: u32, block: u32) -> u64 {
        let within = u64::from(block) * u64::from(self.block_size);
        self.segment_offset(segment).saturating_add(within)
    }

    /// Entries in one block of a table.
    #[must_use]
    pub fn entries_per_table_block(&self) -> u32 {
        let len = self.block_size.saturating_sub(TABLE_HEADER_LEN as u32);
        (len / ENTRY_LEN as u32).max(1)
    }

    /// Blocks of the table of a segment with this many entries.
    #[must_use]
    pub fn table_blocks(&self, entries: u32) -> u32 {
        entries.div_ceil(self.entries_per_table_block())
    }

    /// Blocks that slots may use in a segment with this many entries: all except the header and the
    /// table.
    #[must_use]
    pub fn usable_blocks(&self, entries: u32) -> u32 {
        self.segment_blocks.saturating_sub(1).saturating_sub(self.table_blocks(entries))
    }

    /// The block at which the table of a segment with this many entries begins. Slots end at or
    /// before it.
    #[must_use]
    pub fn table_block(&self, entries: u32) -> u32 {
        self.segment_blocks.saturating_sub(self.table_blocks(entries))
    }

    /// Length in bytes of the largest payload: that of an object alone in its segment.
    #[must_use]
    pub fn largest_payload(&self) -> u32 {
        let blocks = self.segment_blocks.saturating_sub(BLOCKS_BESIDE_LARGEST);
        let len = u64::from(blocks) * u64::from(self.block_size);
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Bytes of a slot header block for entries, keys, metadata and inline payloads.
    #[must_use]
    pub fn names_limit(&self) -> u32 {
        self.block_size.saturating_sub(SLOT_HEADER_LEN as u32)
    }

    /// The most sequences that can be allocated after the newest checkpoint that a recovery finds
    /// and before the next one: one per segment that is opened, one per entry, and as many deletes
    /// without tombstones as there are segments.
    #[must_use]
    pub fn max_sequences(&self) -> u64 {
        u64::from(self.segment_count) * (u64::from(self.segment_blocks) + 2)
    }

    /// The largest total length of the records of all segments, in bytes: with a live bit for every
    /// block.
    #[must_use]
    pub fn max_body_len(&self) -> u64 {
        let words = u64::from(self.segment_blocks.div_ceil(u64::BITS));
        u64::from(self.segment_count) * (RECORD_LEN as u64 + words * size_of::<u64>() as u64)
    }

    /// The least length in bytes of a container: the header of a checkpoint, and the longest body.
    #[must_use]
    pub fn min_container_len(&self) -> u64 {
        let blocks = 1 + self.max_body_len().div_ceil(body_capacity(self.block_size).max(1) as u64);
        blocks.saturating_mul(self.block_size.into())
    }

    /// Whether `block` has the length of a block.
    pub(super) fn check_block_len(&self, block: &[u8]) -> Result<(), &'static str> {
        ensure(
            is_block_size(self.block_size) && block.len() == self.block_size as usize,
            "the block has not the block size of the store",
        )
    }

    /// Whether a segment with this number exists.
    pub(super) fn check_segment(&self, segment: u32) -> Result<(), &'static str> {
        ensure(segment < self.segment_count, "the store has no such segment")
    }
}

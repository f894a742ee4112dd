//! The table of a full segment: its entries, in its last blocks.

use core::mem::offset_of;
use core::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::entry::{Entry, check_generation};
use super::layout::Layout;
use super::order::Order;
use super::sizes::TABLE_HEADER_LEN;
use crate::format::damage::{ensure, ensure_zero, number};
use crate::format::limits::check_checkpoint;
use crate::format::preamble::{Kind, Preamble, seal};
use crate::format::{Damage, EncodeError};
use crate::mutant::Mutant;

const KIND: Kind = Kind { magic: *b"RAWBLKST", name: "table block" };

/// The beginning of a block of a table. Entries follow it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TableBlock {
    /// Magic `RAWBLKST`, checksum over the whole block, version, identity of the member.
    pub preamble: Preamble,
    /// Generation of the segment.
    pub generation: U64,
    /// Number of the checkpoint that wrote the table.
    pub checkpoint: U64,
    /// Position among the blocks of the table, from 0.
    pub index: U32,
    /// Number of blocks of the table.
    pub blocks: U32,
    /// Number of entries in this block.
    pub count: U32,
    /// Zero.
    pub reserved: [u8; 4],
}

const _: () = assert!(size_of::<TableBlock>() == TABLE_HEADER_LEN);
const _: () = assert!(offset_of!(TableBlock, preamble) == 0);
const _: () = assert!(offset_of!(TableBlock, generation) == 32);
const _: () = assert!(offset_of!(TableBlock, checkpoint) == 40);
const _: () = assert!(offset_of!(TableBlock, index) == 48);
const _: () = assert!(offset_of!(TableBlock, blocks) == 52);
const _: () = assert!(offset_of!(TableBlock, count) == 56);
const _: () = assert!(offset_of!(TableBlock, reserved) == 60);

/// The identity of a table, as a checkpoint records it. A generation belongs to one segment of a
/// member.
///
/// # Examples
/// ```
/// use raw_block_store::format::{Layout, TableId};
///
/// # use raw_block_store::format::LayoutRequest;
/// # let (segment_size, largest_object) = (Some(1 << 20), None);
/// # let request =
/// #     LayoutRequest { capacity: 1 << 30, block_size: 4096, segment_size, largest_object };
/// let layout = Layout::plan(&request)?;
/// let table = TableId { generation: 7, checkpoint: 1, entries: 100 };
/// assert_eq!(table.numbers(&layout, 1), 84..100, "84 entries fit a block of 4096 bytes");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId {
    /// Generation of the segment.
    pub generation: u64,
    /// Number of the checkpoint that wrote the table.
    pub checkpoint: u64,
    /// Number of entries in the whole table, not 0.
    pub entries: u32,
}

impl TableId {
    /// The entry numbers of the block at this position of the table.
    #[must_use]
    pub fn numbers(&self, layout: &Layout, index: u32) -> Range<u32> {
        let per_block = layout.entries_per_table_block();
        let first = per_block.saturating_mul(index).min(self.entries);
        first..first.saturating_add(per_block).min(self.entries)
    }

    fn check(&self, layout: &Layout, index: u32) -> Result<(), &'static str> {
        check_generation(self.generation)?;
        check_checkpoint(self.checkpoint)?;
        ensure(self.entries <= layout.segment_blocks, "a segment has more entries than blocks")?;
        ensure(!self.numbers(layout, index).is_empty(), "the table has no such block")
    }
}

impl TableBlock {
    /// The entries of the block at this position ([`TableId::numbers`]), for the caller to fill and
    /// then to [`seal`](Self::seal).
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if the block has another length than the blocks of the store, or if
    /// the table has no block at this position.
    pub fn entries_mut<'a>(
        block: &'a mut [u8],
        layout: &Layout,
        table: &TableId,
        index: u32,
    ) -> Result<&'a mut [Entry], EncodeError> {
        layout
            .check_block_len(block)
            .and_then(|()| table.check(layout, index))
            .map_err(EncodeError::Invalid)?;
        let count = table.numbers(layout, index).len();
        let (_, rest) = block.split_at_mut(TABLE_HEADER_LEN);
        match <[Entry]>::mut_from_prefix_with_elems(rest, count) {
            Ok((entries, _)) => Ok(entries),
            Err(_) => Err(EncodeError::Invalid("the entries do not fit into the block")),
        }
    }

    /// Completes a block whose entries are in place: writes the fixed part, zeroes the rest,
    /// computes the checksum.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`TableBlock::read`] would refuse the result.
    pub fn seal(
        block: &mut [u8],
        layout: &Layout,
        table: &TableId,
        index: u32,
    ) -> Result<(), EncodeError> {
        let entries = Self::entries_mut(block, layout, table, index)?;
        check_entries(entries, layout, table).map_err(EncodeError::Invalid)?;
        let end = TABLE_HEADER_LEN + size_of_val(entries);
        let count: u32 = number(entries.len() as u64)?;
        let prefix = Self {
            preamble: Preamble::new(&KIND, &layout.member),
            generation: table.generation.into(),
            checkpoint: table.checkpoint.into(),
            index: index.into(),
            blocks: layout.table_blocks(table.entries).into(),
            count: count.into(),
            reserved: [0; 4],
        };
        block[..TABLE_HEADER_LEN].copy_from_slice(prefix.as_bytes());
        block[end..].fill(0);
        seal(block);
        Ok(())
    }

    /// Reads the block at this position of a table: the entries of [`TableId::numbers`].
    ///
    /// # Errors
    /// The first rule that the block breaks. [`Damage::WrongPlace`] reports the generation, then
    /// the checkpoint, then the position and the number of blocks.
    pub fn read<'a>(
        block: &'a [u8],
        layout: &Layout,
        table: &TableId,
        index: u32,
    ) -> Result<&'a [Entry], Damage> {
        layout.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (prefix, rest) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a table block"))?;
        KIND.check(block)?.check_store(&layout.member)?;
        let blocks = layout.table_blocks(table.entries);
        for (found, expected) in [
            (prefix.generation.get(), table.generation),
            (prefix.checkpoint.get(), table.checkpoint),
            (prefix.index.get().into(), index.into()),
            (prefix.blocks.get().into(), blocks.into()),
        ] {
            if found != expected && !Mutant::TableOfOtherCheckpointUsed.is_on() {
                return Err(Damage::WrongPlace { found, expected });
            }
        }
        table.check(layout, index).map_err(Damage::Inconsistent)?;
        let count = table.numbers(layout, index).len();
        let (entries, tail) = <[Entry]>::ref_from_prefix_with_elems(rest, count)
            .map_err(|_| Damage::Inconsistent("the entries do not fit into the block"))?;
        ensure(
            prefix.count.get() as usize == count,
            "the table block has another number of entries",
        )
        .and_then(|()| check_entries(entries, layout, table))
        .and_then(|()| ensure_zero(&prefix.reserved))
        .and_then(|()| ensure_zero(tail))
        .map_err(Damage::Inconsistent)?;
        Ok(entries)
    }
}

fn check_entries(entries: &[Entry], layout: &Layout, table: &TableId) -> Result<(), &'static str> {
    let mut order = Order::new(layout, table.entries);
    for entry in entries {
        if entry.is_empty() {
            ensure(*entry == Entry::EMPTY, "an entry without an object is not zero")?;
            continue;
        }
        if entry.is_tombstone() {
            entry.check_tombstone()?;
        } else {
            entry.check_object(layout)?;
        }
        order.claim(entry)?;
    }
    Ok(())
}

//! The tables of full segments.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};
use zerocopy::FromBytes;

use super::damages::{Damages, UnreadableBlock, is_readable};
use crate::Error;
use crate::error::Context;
use crate::format::{Entry, Layout, TableBlock, TableId};
use crate::mutant;

/// Bytes of tables that are read at once, unless one has more.
fn max_batch_len() -> usize {
    mutant::limit(8 << 20, 16 << 10)
}
/// Tables that are read at once.
const BATCH: usize = 128;
/// What the store does when reading fails.
const READ: &str = "read the tables of segments";

/// A table that a checkpoint names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) segment: u32,
    pub(super) id: TableId,
}

impl Table {
    fn first_block(&self, layout: &Layout) -> u32 {
        layout.table_block(self.id.entries)
    }

    fn len(&self, layout: &Layout) -> usize {
        layout.table_blocks(self.id.entries) as usize * layout.block_size as usize
    }
}

/// The table that lies in a segment, whether a checkpoint names it or not: for a mutation.
pub(super) fn find_unnamed(
    dispatcher: &Dispatcher,
    layout: &Layout,
    segment: u32,
    generation: u64,
) -> Option<TableId> {
    let mut block = AlignedBuf::zeroed(layout.block_size as usize).ok()?;
    let offset = layout.block_offset(segment, layout.segment_blocks - 1);
    dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut block)]).all().ok()?;
    let (last, _) = TableBlock::ref_from_prefix(&block).ok()?;
    let before = last.index.get().checked_mul(layout.entries_per_table_block())?;
    let entries = before.checked_add(last.count.get())?;
    let id = TableId { generation, checkpoint: last.checkpoint.get(), entries };
    TableBlock::read(&block, layout, &id, last.index.get()).ok()?;
    Some(id)
}

/// Reads tables in batches. Calls `each` with the entries of every table, in order of number; with
/// `None` if the table cannot be used.
///
/// # Errors
/// [`Error::Device`] when the device cannot be used, and the error of `each`.
pub(super) fn read(
    dispatcher: &Dispatcher,
    layout: &Layout,
    tables: &[Table],
    damages: &mut Damages<'_>,
    mut each: impl FnMut(&Table, Option<&[&[Entry]]>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = AlignedBuf::default();
    let mut rest = tables;
    while !rest.is_empty() {
        let (batch, left) = rest.split_at(batch_len(layout, rest));
        rest = left;
        let total: usize = batch.iter().map(|table| table.len(layout)).sum();
        if buffer.len() < total {
            let all: usize = tables.iter().map(|table| table.len(layout)).sum();
            buffer = AlignedBuf::zeroed(total.max(all.min(max_batch_len()))).context(READ)?;
        }
        let mut reads = Vec::with_capacity(batch.len());
        let mut unused = &mut buffer[..];
        for table in batch {
            let (part, left) = unused.split_at_mut(table.len(layout));
            unused = left;
            let offset = layout.block_offset(table.segment, table.first_block(layout));
            reads.push(ReadAt::new(offset, part));
        }
        let results = dispatcher.read_buffers(&mut reads);
        let mut read = &buffer[..];
        for (table, result) in batch.iter().zip(results) {
            let (bytes, left) = read.split_at(table.len(layout));
            read = left;
            match is_readable(result)? {
                Ok(()) => each(table, entries(layout, table, bytes, damages).as_deref())?,
                Err(error) => {
                    let (segment, block) = (table.segment, table.first_block(layout));
                    damages.note_unreadable("a table", &UnreadableBlock { segment, block, error });
                    each(table, None)?;
                }
            }
        }
    }
    Ok(())
}

/// How many of these tables are read together.
fn batch_len(layout: &Layout, tables: &[Table]) -> usize {
    let mut total = 0;
    let fits = |table: &&Table| {
        let before = total;
        total += table.len(layout);
        before == 0 || total <= max_batch_len()
    };
    tables.iter().take(BATCH).take_while(fits).count()
}

/// The entries of each block of a table, if all blocks are valid.
fn entries<'b>(
    layout: &Layout,
    table: &Table,
    bytes: &'b [u8],
    damages: &mut Damages<'_>,
) -> Option<Vec<&'b [Entry]>> {
    let mut parts = Vec::new();
    for (at, bytes) in (0..).zip(bytes.chunks_exact(layout.block_size as usize)) {
        match TableBlock::read(bytes, layout, &table.id, at) {
            Ok(entries) => parts.push(entries),
            Err(damage) => {
                let block = table.first_block(layout) + at;
                damages.note_damage("a table", table.segment, block, &damage);
                return None;
            }
        }
    }
    Some(parts)
}

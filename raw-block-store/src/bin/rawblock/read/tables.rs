//! The tables of segments.

use anyhow::Result;
use raw_block_store::format::{Damage, Entry, TableBlock, TableId};
use zerocopy::FromBytes;

use super::{Block, Flaw, Reader};

/// The table at the end of a segment.
pub(crate) struct Table {
    pub(crate) segment: u32,
    pub(crate) id: TableId,
}

impl Reader<'_> {
    /// Finds the table at the end of each of these segments by its last block. Calls `visit` with
    /// where that block begins, and the table or why there is none.
    pub(crate) fn tables(
        &self,
        segments: impl IntoIterator<Item = u32>,
        mut visit: impl FnMut(u32, u64, Result<Table, Flaw>) -> Result<()>,
    ) -> Result<()> {
        let last = self.layout.segment_blocks.saturating_sub(1);
        let place = |segment| (segment, self.layout.block_offset(segment, last));
        self.each_block(segments.into_iter().map(place), |segment, offset, block| {
            visit(segment, offset, self.table(segment, block))
        })
    }

    /// The table of which this is the last block.
    fn table(&self, segment: u32, block: &Block) -> Result<Table, Flaw> {
        const SHORT: Damage = Damage::Inconsistent("the block is shorter than a table block");
        let block = block.as_ref()?;
        let (last, _) = TableBlock::ref_from_prefix(block).map_err(|_| SHORT)?;
        let before = self.layout.entries_per_table_block().saturating_mul(last.index.get());
        let id = TableId {
            generation: last.generation.get(),
            checkpoint: last.checkpoint.get(),
            entries: before.saturating_add(last.count.get()),
        };
        // Whether the fields are valid is checked last.
        TableBlock::read(block, &self.layout, &id, last.index.get())?;
        Ok(Table { segment, id })
    }

    /// Reads the blocks of a table. Calls `visit` with the position and the place of each, the
    /// number of its first entry, and its entries or why it cannot be used.
    pub(crate) fn table_blocks(
        &self,
        table: &Table,
        mut visit: impl FnMut(u32, u64, u32, Result<&[Entry], Flaw>) -> Result<()>,
    ) -> Result<()> {
        let Table { segment, id } = table;
        let first = self.layout.table_block(id.entries);
        let blocks = 0..self.layout.table_blocks(id.entries);
        let place = |index| (index, self.layout.block_offset(*segment, first + index));
        self.each_block(blocks.map(place), |index, offset, block| {
            let entries = block
                .as_ref()
                .map_err(Flaw::from)
                .and_then(|block| Ok(TableBlock::read(block, &self.layout, id, index)?));
            visit(index, offset, id.numbers(&self.layout, index).start, entries)
        })
    }
}

//! Reading the body of a checkpoint, block by block.

use super::checkpoint::{BodyBlock, CheckpointHeader};
use super::layout::Layout;
use super::records::{SegmentRecord, check_live};
use super::sizes::{RECORD_LEN, body_capacity};
use crate::format::Damage;
use crate::format::damage::{ensure, ensure_zero};

/// Reads the body of a checkpoint, block by block, and yields its records.
#[derive(Debug)]
pub struct RecordReader {
    layout: Layout,
    number: u64,
    /// The next block.
    block: u64,
    /// Bytes of the stream that were not read.
    left: u64,
    /// The segment of the record that is read.
    segment: u32,
    /// Bytes of the next item that were read, and their number.
    item: [u8; RECORD_LEN],
    filled: usize,
    /// The record whose live bits are read.
    record: Option<SegmentRecord>,
    live: Vec<u64>,
}

impl RecordReader {
    /// Begins to read the body of the checkpoint with this header.
    #[must_use]
    pub fn new(layout: &Layout, header: &CheckpointHeader) -> Self {
        Self {
            layout: *layout,
            number: header.number.get(),
            block: 0,
            left: header.body_len.get(),
            segment: 0,
            item: [0; RECORD_LEN],
            filled: 0,
            record: None,
            live: Vec::new(),
        }
    }

    /// Number of blocks that were not read.
    #[must_use]
    pub fn blocks_left(&self) -> u64 {
        self.left.div_ceil(body_capacity(self.layout.block_size).max(1) as u64)
    }

    /// Reads the next block. Calls `each` with every record that ends in it: the segment, the
    /// record, and its live bits, 64 entries a word.
    ///
    /// # Errors
    /// The first rule that the block or a record breaks. The reader cannot be used afterwards.
    pub fn take(
        &mut self,
        block: &[u8],
        mut each: impl FnMut(u32, &SegmentRecord, &[u64]),
    ) -> Result<(), Damage> {
        let stream = BodyBlock::read(block, &self.layout, self.number, self.block)?;
        self.block += 1;
        let len = self.left.min(stream.len() as u64);
        ensure(len > 0, "the body of the checkpoint ended before").map_err(Damage::Inconsistent)?;
        self.left -= len;
        let (mut bytes, tail) = stream.split_at(usize::try_from(len).unwrap_or(stream.len()));
        ensure_zero(tail).map_err(Damage::Inconsistent)?;
        while !bytes.is_empty() {
            let wanted = if self.record.is_some() { size_of::<u64>() } else { RECORD_LEN };
            let (now, rest) = bytes.split_at(bytes.len().min(wanted - self.filled));
            self.item[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = rest;
            if self.filled == wanted {
                self.filled = 0;
                self.take_item(&mut each).map_err(Damage::Inconsistent)?;
            }
        }
        Ok(())
    }

    /// Checks, after the last block, that every segment has a record.
    ///
    /// # Errors
    /// [`Damage::Inconsistent`].
    pub fn finish(&self) -> Result<(), Damage> {
        let is_whole = self.left == 0 && self.filled == 0 && self.record.is_none();
        ensure(is_whole, "the body of the checkpoint ends within a record")
            .and_then(|()| {
                ensure(
                    self.segment == self.layout.segment_count,
                    "the checkpoint has no record of some segments",
                )
            })
            .map_err(Damage::Inconsistent)
    }

    /// Reads a record, or a word of live bits.
    fn take_item(
        &mut self,
        each: &mut impl FnMut(u32, &SegmentRecord, &[u64]),
    ) -> Result<(), &'static str> {
        let record = if let Some(record) = self.record.take() {
            let [word, ..] = self.item.as_chunks::<{ size_of::<u64>() }>().0 else {
                return Err("a word of live bits is not whole");
            };
            self.live.push(u64::from_le_bytes(*word));
            record
        } else {
            ensure(
                self.segment < self.layout.segment_count,
                "the checkpoint has more records than the store has segments",
            )?;
            self.live.clear();
            SegmentRecord::read(&self.item, &self.layout)?
        };
        if self.live.len() < record.words() {
            self.record = Some(record);
            return Ok(());
        }
        check_live(record.entries, &self.live)?;
        each(self.segment, &record, &self.live);
        self.segment += 1;
        Ok(())
    }
}

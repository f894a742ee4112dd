//! The bounds of the fields of a superblock.

use core::str;

use zerocopy::little_endian::U64;

use super::{SUPERBLOCK_CELL_LEN, Superblock, superblock_offsets};
use crate::format::damage::{ensure, ensure_zero};
use crate::format::layout::{
    Layout, MAX_SEGMENT_BLOCKS, MAX_SEGMENT_COUNT, MIN_SEGMENT_BLOCKS, MIN_SEGMENT_COUNT,
};
use crate::format::{MAX_SEQUENCE, is_block_size};

impl Superblock {
    /// The rules for the fields, for reading and for writing.
    pub(super) fn check_bounds(&self) -> Result<(), &'static str> {
        ensure(self.generation != U64::ZERO, "the generation is 0")?;
        ensure(self.generation.get() <= MAX_SEQUENCE, "the generation is too high")?;
        ensure(
            match self.state.get() {
                0 => (1..=MAX_SEQUENCE).contains(&self.checkpoint.get()),
                1 => self.checkpoint.get() <= MAX_SEQUENCE,
                _ => false,
            },
            "the state is neither open nor clean with a checkpoint",
        )?;
        ensure(
            is_block_size(self.block_size.get()),
            "the block size is not a power of two from 512 to 65536",
        )?;
        ensure(
            self.segment_blocks.get().is_power_of_two()
                && (MIN_SEGMENT_BLOCKS..=MAX_SEGMENT_BLOCKS).contains(&self.segment_blocks.get()),
            "the blocks of a segment are not a power of two from 8 to 2^24",
        )?;
        ensure(
            (MIN_SEGMENT_COUNT..=MAX_SEGMENT_COUNT).contains(&self.segment_count.get()),
            "the number of segments is not from 8 to 2^24",
        )?;
        self.check_regions()?;
        ensure(self.is_label_valid(), "the label is not padded UTF-8")?;
        self.check_members()?;
        // A compatible feature that this software does not know may use them.
        if self.features_compatible == U64::ZERO && self.unknown_read_only_features() == 0 {
            ensure_zero(&self.reserved)?;
        }
        Ok(())
    }

    /// Regions have the order of the layout and begin at block boundaries. They overlap neither
    /// each other nor the copies of the superblock.
    fn check_regions(&self) -> Result<(), &'static str> {
        const OVERFLOW: &str = "the regions reach beyond the device";
        let layout = Layout::of(self);
        let block_size = u64::from(layout.block_size);
        let [_, second, last] =
            superblock_offsets(self.device_len.get()).ok_or("the device is too short")?;
        ensure(
            layout.last_superblock_offset == last,
            "the last superblock is not at the end of the device",
        )?;
        ensure(
            layout.container_len >= layout.min_container_len(),
            "the checkpoint containers are too short for the segments",
        )?;
        let segments_len = layout.segment_size().checked_mul(layout.segment_count.into());
        let segments = (layout.segments_offset, segments_len.ok_or(OVERFLOW)?);
        let containers = layout.container_offset.map(|offset| (offset, layout.container_len));
        let mut end = second + SUPERBLOCK_CELL_LEN as u64;
        for (offset, len) in containers.into_iter().chain([segments]) {
            ensure(offset >= end, "the regions overlap or are out of order")?;
            ensure(
                offset.is_multiple_of(block_size) && len.is_multiple_of(block_size),
                "a region does not consist of whole blocks",
            )?;
            end = offset.checked_add(len).ok_or(OVERFLOW)?;
        }
        ensure(end <= last, OVERFLOW)
    }

    fn is_label_valid(&self) -> bool {
        let len = self.label.iter().position(|byte| *byte == 0);
        let (text, padding) = self.label.split_at(len.unwrap_or(self.label.len()));
        str::from_utf8(text).is_ok() && padding.iter().all(|byte| *byte == 0)
    }
}

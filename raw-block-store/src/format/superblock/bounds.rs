//! The bounds of the fields of a superblock.

use core::str;

use zerocopy::little_endian::U64;

use super::super::checkpoint::container_len;
use super::super::damage::{ensure, ensure_zero};
use super::super::limits::{MAX_SEQUENCE, MAX_SLOT_COUNT, MAX_SLOT_SIZE, is_block_size};
use super::{SUPERBLOCK_CELL_LEN, Superblock, superblock_offsets};

impl Superblock {
    /// The rules that the fields have to keep, for reading as for writing.
    pub(super) fn check_bounds(&self) -> Result<(), &'static str> {
        ensure(self.generation != U64::ZERO, "the generation is 0")?;
        ensure(self.generation.get() <= MAX_SEQUENCE, "the generation is too high")?;
        ensure(
            match self.state.get() {
                0 | 2 => self.clean_checkpoint != U64::ZERO,
                1 => self.clean_checkpoint == U64::ZERO,
                _ => false,
            },
            "the state is neither open nor clean with a checkpoint",
        )?;
        ensure(
            is_block_size(self.block_size.get()),
            "the block size is not a power of two from 512 to 65536",
        )?;
        let slot_size = self.slot_size.get();
        ensure(
            slot_size != 0
                && slot_size <= MAX_SLOT_SIZE
                && slot_size.is_multiple_of(self.block_size.into()),
            "the slot size is not a number of whole blocks up to 4 GiB",
        )?;
        ensure(
            (1..=MAX_SLOT_COUNT).contains(&self.slot_count.get()),
            "the slot count is not from 1 to 2^32",
        )?;
        self.check_regions()?;
        ensure(self.is_label_valid(), "the label is not padded UTF-8")?;
        // A compatible feature that this software does not know may use them.
        if self.features_compatible == U64::ZERO && self.unknown_read_only_features() == 0 {
            ensure_zero(&self.reserved)?;
        }
        Ok(())
    }

    /// Regions come in the order of the layout, on block boundaries, apart from
    /// one another and from the copies of the superblock.
    fn check_regions(&self) -> Result<(), &'static str> {
        const OVERFLOW: &str = "the regions reach beyond the device";
        let block_size: u64 = self.block_size.into();
        let slot_count = self.slot_count.get();

        let [_, second, last] =
            superblock_offsets(self.device_len.get()).ok_or("the device is too short")?;
        ensure(
            self.last_superblock_offset.get() == last,
            "the last superblock is not at the end of the device",
        )?;
        let container = container_len(slot_count, self.block_size.get()).ok_or(OVERFLOW)?;
        ensure(
            self.checkpoint_len.get() >= container,
            "the checkpoint containers are too short for the slots",
        )?;
        ensure(self.delete_log_len != U64::ZERO, "the delete log has no block")?;
        let slots_len = slot_count.checked_mul(self.slot_size.get()).ok_or(OVERFLOW)?;

        let mut end = second + SUPERBLOCK_CELL_LEN as u64;
        for (offset, len) in [
            (self.checkpoint_offset[0].get(), self.checkpoint_len.get()),
            (self.checkpoint_offset[1].get(), self.checkpoint_len.get()),
            (self.delete_log_offset.get(), self.delete_log_len.get()),
            (self.slots_offset.get(), slots_len),
        ] {
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

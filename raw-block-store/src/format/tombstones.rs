//! Slots of tombstones: which keys were deleted, in one block.

use zerocopy::IntoBytes;

use super::entry::KeyHash;
use super::layout::Layout;
use super::sizes::SLOT_HEADER_LEN;
use super::slot::clear;
use super::slot_header::{SlotHeader, SlotPlace, TOMBSTONES};
use crate::format::EncodeError;
use crate::format::damage::{fits, number};

/// Number of deleted keys that fit into one slot of tombstones.
#[must_use]
pub fn tombstones_per_slot(block_size: u32) -> usize {
    (block_size as usize).saturating_sub(SLOT_HEADER_LEN) / size_of::<KeyHash>()
}

impl SlotHeader {
    /// Fills `block` with the tombstones of these keys, all deleted with this sequence. They share
    /// one entry number, [`SlotPlace::first_entry`], and one block.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] if there are more than [`tombstones_per_slot`],
    /// [`EncodeError::Invalid`] if [`SlotHeader::read`] would refuse the result.
    pub fn encode_tombstones(
        block: &mut [u8],
        layout: &Layout,
        place: &SlotPlace,
        sequence: u64,
        key_hashes: &[KeyHash],
    ) -> Result<(), EncodeError> {
        layout.check_block_len(block).map_err(EncodeError::Invalid)?;
        let len = (SLOT_HEADER_LEN as u64).saturating_add(size_of_val(key_hashes) as u64);
        fits("the key hashes of the slot", len, block.len() as u64)?;
        let end = SLOT_HEADER_LEN + size_of_val(key_hashes);
        block[SLOT_HEADER_LEN..end].copy_from_slice(key_hashes.as_bytes());
        clear(&mut block[end..]);
        let count = number(key_hashes.len() as u64)?;
        Self::new(layout, place, TOMBSTONES, count, number(len)?, sequence).finish(block, layout)
    }
}

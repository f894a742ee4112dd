//! Where things lie on the device.

use crate::format::Superblock;

/// Where a slot of the store begins, in bytes.
pub(crate) fn slot_offset(store: &Superblock, slot: u64) -> u64 {
    // A superblock that was read or written has all its slots inside the device.
    store.slots_offset.get() + slot * store.slot_size.get()
}

/// The length in bytes of a buffer for `blocks` blocks: no more than about `limit`, but at least one block.
pub(crate) fn buffer_len(store: &Superblock, blocks: u64, limit: usize) -> usize {
    let block_size = store.block_size.get() as usize;
    let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
    (limit / block_size).min(blocks).max(1) * block_size
}

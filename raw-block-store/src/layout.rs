//! Where things lie on the device.

use crate::format::Superblock;

/// Where a slot of the store begins, in bytes.
pub(crate) fn slot_offset(store: &Superblock, slot: u64) -> u64 {
    // A superblock that was read or written has all its slots inside the device.
    store.slots_offset.get() + slot * store.slot_size.get()
}

/// `bytes` rounded down to whole blocks of the store, but at least one block.
pub(crate) fn whole_blocks(store: &Superblock, bytes: usize) -> usize {
    let block_size = store.block_size.get() as usize;
    (bytes / block_size).max(1) * block_size
}

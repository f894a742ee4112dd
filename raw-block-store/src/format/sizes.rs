//! Lengths in bytes of the parts of structures on which a layout depends.

/// Length of the entry of an object.
pub const ENTRY_LEN: usize = 48;

/// Length of the fixed part of a slot header. Entries follow it, or key hashes.
pub const SLOT_HEADER_LEN: usize = 80;

/// Length of the fixed part of a block of a table. Entries follow it.
pub const TABLE_HEADER_LEN: usize = 64;

/// Length of the fixed part of a body block of a checkpoint. The stream of records follows it.
pub const BODY_HEADER_LEN: usize = 48;

/// Length of the record of a segment in a checkpoint, without its live bits.
pub const RECORD_LEN: usize = 32;

/// Bytes of the stream of records in one block of the body of a checkpoint.
#[must_use]
pub fn body_capacity(block_size: u32) -> usize {
    (block_size as usize).saturating_sub(BODY_HEADER_LEN)
}

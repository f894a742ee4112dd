//! What a store looks like on its device: the structures of format version 1,
//! and how each is written and read.
//!
//! ```text
//! superblock 0 | superblock 1 | checkpoint 0 | checkpoint 1 | delete log | slot 0 | ... | superblock 2
//! ```
//!
//! `docs/format.md` describes every byte. The rules common to all structures:
//!
//! - Numbers are little-endian. The types declared here are the bytes on the
//!   device; there are no others to convert to and from.
//! - Every structure begins with the same [`Preamble`]: magic, checksum,
//!   version, UUID of the store. Magic and checksum stand in the same place in
//!   all versions, and the checksum covers the same bytes, so that the version
//!   can be verified before it is believed.
//! - A checksum covers all that follows it in its structure. No field is used
//!   before the checksum over it was verified.
//! - Every structure says where it belongs: a valid block in the wrong place is
//!   not valid.
//! - Every reader checks in the same order: length of the block, magic,
//!   checksum, version, features (of the superblock), UUID, place, bounds of
//!   every field. The first rule that is broken is returned as [`Damage`]. What
//!   a reader returns has kept them all.
//! - What a reader would refuse, its writer refuses with [`EncodeError`]. A
//!   writer fills the whole block it is given, unused bytes with zeroes.
//! - Reserved bytes are zero.
//!
//! All but the superblock itself are read and written on behalf of a store, and
//! take the [`Superblock`] that says which: its UUID, its block size, its number
//! of slots and their size. It is a superblock that [`Superblock::read`]
//! returned, or one that [`Superblock::encode`] accepted.
//!
//! Nothing here does I/O, allocates or panics, whatever the device holds.

mod checkpoint;
mod checksum;
pub(crate) mod damage;
mod delete_log;
mod entry;
pub(crate) mod limits;
pub(crate) mod preamble;
mod slot;
mod superblock;
#[cfg(test)]
mod tests;

pub use checkpoint::{
    CheckpointBlock, CheckpointHeader, body_blocks, container_len, entries_per_block,
};
pub use checksum::{crc32c, payload_checksum};
pub use damage::{Damage, EncodeError};
pub use delete_log::{DeleteLogBlock, DeleteRecord, records_per_block};
pub use entry::ObjectEntry;
pub use limits::{
    MAX_BLOCK_SIZE, MAX_SEQUENCE, MAX_SLOT_COUNT, MAX_SLOT_SIZE, MIN_BLOCK_SIZE, is_block_size,
};
pub use preamble::{Preamble, VERSION};
pub use slot::{SLOT_HEADER_LEN, SlotFields, SlotHeader, SlotView, fits_inline, max_payload};
pub use superblock::{
    SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock, SuperblockCopies, SuperblockState,
    superblock_offsets,
};

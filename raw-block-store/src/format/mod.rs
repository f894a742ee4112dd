//! The format on the device: the structures, and how each is encoded and read.
//!
//! ```text
//! superblock 0 | superblock 1 | container 0 | 1 | 2 | segment 0 | segment 1 | ... | superblock 2
//! ```
//!
//! `docs/format.md` describes every byte. The rules common to all structures:
//!
//! - Numbers are little-endian. The types declared here are the bytes on the device.
//! - Every structure begins with the same [`Preamble`]: magic, checksum, version,
//!   identity of the member. No field is used before the checksum over it was verified.
//! - Every structure says where it belongs: a valid block in the wrong place is not valid.
//! - Every reader checks in the same order: length of the block, magic, checksum, version,
//!   identity, keyed hash (of slot headers), place, bounds of every field. The first rule that is
//!   broken is returned as [`Damage`].
//! - A writer refuses with [`EncodeError`] what the reader would refuse; the content of the block
//!   is then undefined. A writer fills the whole block, unused bytes with zeroes.
//! - Reserved bytes are zero.
//!
//! All readers and writers, except those of the superblock, need the [`Layout`] of the store: the
//! sizes and places that the superblock contains.
//!
//! This module does no I/O, and does not panic on any contents of a device. Only the writer and the
//! reader of the body of a checkpoint allocate.

mod checkpoint;
mod checksum;
pub(crate) mod damage;
mod entry;
mod layout;
pub(crate) mod limits;
mod order;
mod plan;
pub(crate) mod preamble;
mod record_reader;
mod records;
mod segment_header;
mod sizes;
mod slot;
mod slot_header;
mod slot_view;
mod superblock;
mod table;
#[cfg(test)]
mod tests;
mod tombstones;

pub use checkpoint::{BodyBlock, CheckpointHeader};
pub use checksum::{
    PayloadHasher, PayloadPlace, crc32c, header_hash, payload_checksum, payload_hash,
};
pub use damage::{Damage, EncodeError};
pub use entry::{Entry, KeyHash};
pub use layout::{
    CONTAINERS, Layout, MAX_SEGMENT_BLOCKS, MAX_SEGMENT_COUNT, MIN_SEGMENT_BLOCKS,
    MIN_SEGMENT_COUNT,
};
pub use limits::{MAX_BLOCK_SIZE, MAX_SEQUENCE, MIN_BLOCK_SIZE, is_block_size};
pub use plan::LayoutRequest;
pub use preamble::{Preamble, VERSION};
pub use record_reader::RecordReader;
pub use records::{Body, RecordWriter, SETTLED_ALL, SegmentRecord};
pub use segment_header::{SegmentFields, SegmentHeader, Stream};
pub use sizes::{
    BODY_HEADER_LEN, ENTRY_LEN, RECORD_LEN, SLOT_HEADER_LEN, TABLE_HEADER_LEN, body_capacity,
};
pub use slot::SlotObject;
pub use slot_header::{SlotHeader, SlotPlace};
pub use slot_view::{ObjectView, SlotView};
pub use superblock::{
    BUCKETS, MAX_MEMBERS, Member, SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock,
    SuperblockCopies, SuperblockState, superblock_offsets,
};
pub use table::{TableBlock, TableId};
pub use tombstones::tombstones_per_slot;

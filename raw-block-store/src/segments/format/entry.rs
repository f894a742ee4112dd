//! The 48 bytes that name one object.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One object: which key, which write of it, how long its parts are, and where its payload lies.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub(crate) struct Entry {
    /// Keyed 128-bit hash of the key.
    pub(crate) key_hash: [u8; 16],
    /// Sequence of the write; 0 means that there is no object.
    pub(crate) sequence: U64,
    /// Checksum of the payload.
    pub(crate) checksum: U64,
    /// Length of the payload in bytes.
    pub(crate) payload_len: U32,
    /// Length of the key in bytes; 0 in the entry of a tombstone slot.
    pub(crate) key_len: U16,
    /// Length of the metadata in bytes.
    pub(crate) metadata_len: U16,
    /// Block of the payload within the segment.
    pub(crate) block: U32,
    /// Blocks from there back to the header of the slot.
    pub(crate) blocks_back: U32,
}

const _: () = assert!(size_of::<Entry>() == 48);

impl Entry {
    /// The entry of a number without an object: all zero.
    pub(crate) const EMPTY: Self = Self {
        key_hash: [0; 16],
        sequence: U64::ZERO,
        checksum: U64::ZERO,
        payload_len: U32::ZERO,
        key_len: U16::ZERO,
        metadata_len: U16::ZERO,
        block: U32::ZERO,
        blocks_back: U32::ZERO,
    };
}

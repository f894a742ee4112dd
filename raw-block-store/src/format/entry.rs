//! The 32 bytes that name one object, in the header of its slot as well as in
//! the checkpoint.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::ensure;
use super::limits::MAX_SEQUENCE;
use super::slot::{SLOT_HEADER_LEN, fits_inline, max_payload};
use super::superblock::Superblock;

/// One object: which key, which write of it, and how long its parts are.
///
/// A slot holds the object that a checkpoint names if the entry in its header
/// equals the entry in the checkpoint.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ObjectEntry {
    /// Keyed 128-bit hash of the key. Nothing in this module computes it.
    pub key_hash: [u8; 16],
    /// Sequence of the write; 0 means that there is no object.
    pub sequence: U64,
    /// Length of the payload in bytes.
    pub payload_len: U32,
    /// Length of the key in bytes, at least 1.
    pub key_len: U16,
    /// Length of the metadata in bytes.
    pub metadata_len: U16,
}

const _: () = assert!(size_of::<ObjectEntry>() == 32);
const _: () = assert!(offset_of!(ObjectEntry, key_hash) == 0);
const _: () = assert!(offset_of!(ObjectEntry, sequence) == 16);
const _: () = assert!(offset_of!(ObjectEntry, payload_len) == 24);
const _: () = assert!(offset_of!(ObjectEntry, key_len) == 28);
const _: () = assert!(offset_of!(ObjectEntry, metadata_len) == 30);

impl ObjectEntry {
    /// The entry of a slot without a live object: all zero.
    pub const NONE: Self = Self {
        key_hash: [0; 16],
        sequence: U64::ZERO,
        payload_len: U32::ZERO,
        key_len: U16::ZERO,
        metadata_len: U16::ZERO,
    };

    /// Whether there is an object.
    pub fn is_live(&self) -> bool {
        self.sequence != U64::ZERO
    }

    /// Length in bytes of the slot header with key and metadata. An
    /// [inline](Self::is_inline) payload begins there.
    pub fn header_len(&self) -> u64 {
        SLOT_HEADER_LEN as u64 + u64::from(self.key_len) + u64::from(self.metadata_len)
    }

    /// Whether the payload lies in the header block, directly after the metadata:
    /// if and only if it fits there. Otherwise it begins at the second block of
    /// the slot.
    pub fn is_inline(&self, block_size: u32) -> bool {
        let (key_len, metadata_len) = (self.key_len.get().into(), self.metadata_len.get().into());
        fits_inline(key_len, metadata_len, self.payload_len.into(), block_size)
    }

    /// Length in bytes of what the object takes of its slot: the header block and,
    /// unless it is inline, the payload, in whole blocks.
    pub fn slot_len(&self, block_size: u32) -> usize {
        let behind = if self.is_inline(block_size) { 0 } else { self.payload_len.get() as usize };
        (block_size as usize + behind).next_multiple_of(block_size as usize)
    }

    /// The rules that the entry of an object has to keep in this store.
    pub(super) fn check_bounds(&self, store: &Superblock) -> Result<(), &'static str> {
        let block_size = store.block_size.get();
        ensure(self.is_live(), "the sequence of an object is 0")?;
        ensure(self.sequence.get() <= MAX_SEQUENCE, "the sequence of an object is too high")?;
        ensure(self.key_len != U16::ZERO, "the key is empty")?;
        ensure(
            self.header_len() <= block_size.into(),
            "key and metadata do not fit into the header block",
        )?;
        ensure(
            self.is_inline(block_size)
                || u64::from(self.payload_len) <= max_payload(store.slot_size.get(), block_size),
            "the payload does not fit into the slot",
        )
    }
}

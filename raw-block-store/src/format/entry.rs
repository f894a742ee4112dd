//! The 48 bytes that describe one object.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{PayloadPlace, payload_checksum};
use super::layout::Layout;
use super::sizes::{ENTRY_LEN, SLOT_HEADER_LEN};
use crate::format::Damage;
use crate::format::MAX_SEQUENCE;
use crate::format::damage::ensure;

/// Keyed 128-bit hash of a key.
pub type KeyHash = [u8; 16];

/// One object: its key hash, the sequence of its write, the lengths of its parts, and the place of
/// its payload.
///
/// The header of its slot, the table of its segment and the index in memory contain the same entry.
/// In the latter two, a tombstone slot has an entry without a key, and a number without an object
/// has an entry of zeroes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Entry {
    /// Keyed 128-bit hash of the key. Nothing in this module computes it.
    pub key_hash: KeyHash,
    /// Sequence of the write; 0 means that there is no object.
    pub sequence: U64,
    /// Checksum of the payload; see [`payload_checksum`].
    pub checksum: U64,
    /// Length of the payload in bytes.
    pub payload_len: U32,
    /// Length of the key in bytes; 0 in the entry of a tombstone slot.
    pub key_len: U16,
    /// Length of the metadata in bytes.
    pub metadata_len: U16,
    /// Block of the payload within the segment; that of the slot header if the payload uses no
    /// block.
    pub block: U32,
    /// Blocks from there back to the header of the slot; 0 if the payload uses no block.
    pub blocks_back: U32,
}

const _: () = assert!(size_of::<Entry>() == ENTRY_LEN);
const _: () = assert!(offset_of!(Entry, key_hash) == 0);
const _: () = assert!(offset_of!(Entry, sequence) == 16);
const _: () = assert!(offset_of!(Entry, checksum) == 24);
const _: () = assert!(offset_of!(Entry, payload_len) == 32);
const _: () = assert!(offset_of!(Entry, key_len) == 36);
const _: () = assert!(offset_of!(Entry, metadata_len) == 38);
const _: () = assert!(offset_of!(Entry, block) == 40);
const _: () = assert!(offset_of!(Entry, blocks_back) == 44);

impl Entry {
    /// The entry of a number without an object: all zero.
    pub const EMPTY: Self = Self {
        key_hash: [0; 16],
        sequence: U64::ZERO,
        checksum: U64::ZERO,
        payload_len: U32::ZERO,
        key_len: U16::ZERO,
        metadata_len: U16::ZERO,
        block: U32::ZERO,
        blocks_back: U32::ZERO,
    };

    /// The entry of the tombstone slot in this block, with this sequence.
    #[must_use]
    pub fn tombstone(sequence: u64, block: u32) -> Self {
        Self { sequence: sequence.into(), block: block.into(), ..Self::EMPTY }
    }

    /// Whether there is neither an object nor a tombstone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sequence == U64::ZERO
    }

    /// Whether this is the entry of a tombstone slot.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        !self.is_empty() && self.key_len == U16::ZERO
    }

    /// Whether this is the entry of an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        !self.is_empty() && self.key_len != U16::ZERO
    }

    /// Whether the payload lies in the header block, after the metadata.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        self.blocks_back == U32::ZERO && self.payload_len != U32::ZERO
    }

    /// The block of the slot header within the segment.
    #[must_use]
    pub fn header_block(&self) -> u32 {
        self.block.get().saturating_sub(self.blocks_back.get())
    }

    /// Blocks of the payload: none if it is inline or empty.
    #[must_use]
    pub fn payload_blocks(&self, block_size: u32) -> u32 {
        if self.blocks_back == U32::ZERO {
            0
        } else {
            self.payload_len.get().div_ceil(block_size.max(1))
        }
    }

    /// Bytes of key and metadata together.
    #[must_use]
    pub fn names_len(&self) -> u32 {
        u32::from(self.key_len.get()) + u32::from(self.metadata_len.get())
    }

    /// Offset of an inline payload in its header block, in bytes. The object is alone in the block.
    #[must_use]
    pub fn inline_offset(&self) -> usize {
        SLOT_HEADER_LEN + ENTRY_LEN + self.names_len() as usize
    }

    /// The place of the payload, as its checksum covers it.
    #[must_use]
    pub fn place(&self, segment: u32, generation: u64) -> PayloadPlace {
        PayloadPlace { segment, generation, block: self.block.get(), sequence: self.sequence.get() }
    }

    /// Checks a payload that was read from this segment in this generation.
    ///
    /// # Errors
    /// [`Damage::Inconsistent`] if its length differs from that of the entry, [`Damage::Checksum`]
    /// if it is not the payload that was written there.
    pub fn verify_payload(
        &self,
        layout: &Layout,
        segment: u32,
        generation: u64,
        payload: &[u8],
    ) -> Result<(), Damage> {
        ensure(
            payload.len() as u64 == u64::from(self.payload_len),
            "the payload has another length than its entry says",
        )
        .map_err(Damage::Inconsistent)?;
        let computed = payload_checksum(layout, &self.place(segment, generation), payload);
        if self.checksum == computed {
            Ok(())
        } else {
            Err(Damage::Checksum { stored: self.checksum.get(), computed })
        }
    }

    /// The rules for the entry of an object, in any structure.
    pub(super) fn check_object(&self, layout: &Layout) -> Result<(), &'static str> {
        check_sequence(self.sequence.get())?;
        ensure(self.key_len != U16::ZERO, "the key is empty")?;
        let inline = if self.is_inline() { self.payload_len.get() } else { 0 };
        let len = u64::from(self.names_len()) + u64::from(inline) + ENTRY_LEN as u64;
        ensure(
            len <= layout.names_limit().into(),
            "key, metadata and inline payload do not fit into the header block",
        )?;
        ensure(
            self.blocks_back == U32::ZERO || self.payload_len != U32::ZERO,
            "a payload without a byte takes a block",
        )?;
        ensure(
            self.block.get() > self.blocks_back.get(),
            "the slot header is not in front of the payload",
        )
    }

    /// The rules for the entry of a tombstone slot.
    pub(super) fn check_tombstone(&self) -> Result<(), &'static str> {
        check_sequence(self.sequence.get())?;
        ensure(self.block != U32::ZERO, "a tombstone lies in the block of the segment's header")?;
        ensure(
            *self == Self::tombstone(self.sequence.get(), self.block.get()),
            "the entry of a tombstone slot names an object",
        )
    }
}

/// The rule for sequences of changes, which begin with 1.
pub(super) fn check_sequence(sequence: u64) -> Result<(), &'static str> {
    ensure((1..=MAX_SEQUENCE).contains(&sequence), "the sequence of a change is 0 or too high")
}

/// The rule for generations, which are sequences.
pub(super) fn check_generation(generation: u64) -> Result<(), &'static str> {
    ensure((1..=MAX_SEQUENCE).contains(&generation), "the generation is 0 or too high")
}

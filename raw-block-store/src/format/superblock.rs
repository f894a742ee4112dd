//! The superblock: what the store is, where its parts lie, how it was left.

mod bounds;
mod copies;

use core::mem::offset_of;
use core::str;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::{Damage, EncodeError, ensure, fits};
use super::limits::is_block_size;
use super::preamble::{Kind, Preamble, seal};

/// Length in bytes of the cell that holds one copy, whatever the block size, so
/// that a copy is found before the block size is known.
pub const SUPERBLOCK_CELL_LEN: usize = 4096;

/// Number of copies on a device.
pub const SUPERBLOCK_COPIES: usize = 3;

pub use copies::{SuperblockCopies, superblock_offsets};

const KIND: Kind = Kind { magic: *b"RAWBLKSB", name: "superblock" };

/// One copy of the superblock: the first 512 bytes of its cell.
///
/// All copies of one generation are identical.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Superblock {
    /// Magic `RAWBLKSB`, checksum over all 512 bytes, version, UUID.
    pub preamble: Preamble,
    /// Features that software may ignore, also when it writes.
    pub features_compatible: U64,
    /// Features that software must know before it writes.
    pub features_read_only_compatible: U64,
    /// Features that software must know before it reads.
    pub features_incompatible: U64,
    /// Grows with every write of the superblock; the newest copy wins. Never 0.
    pub generation: U64,
    /// 0 clean, 1 open, 2 clean but not verified; see [`Superblock::state`].
    pub state: U32,
    /// Block size in bytes: a power of two from 512 to 65536.
    pub block_size: U32,
    /// Number of the checkpoint that a clean store is opened from; 0 while open.
    pub clean_checkpoint: U64,
    /// When the store was formatted, in nanoseconds since the Unix epoch.
    pub created_unix_ns: U64,
    /// Key of the keyed hash that turns keys into 128-bit key hashes.
    pub hash_key: [u8; 16],
    /// Size of a slot in bytes: whole blocks, at most 4 GiB.
    pub slot_size: U64,
    /// Number of slots: 1 to 2^32.
    pub slot_count: U64,
    /// Length in bytes of the device when it was formatted.
    pub device_len: U64,
    /// Where the two checkpoint containers begin, in bytes.
    pub checkpoint_offset: [U64; 2],
    /// Length of each checkpoint container in bytes.
    pub checkpoint_len: U64,
    /// Where the delete log begins, in bytes.
    pub delete_log_offset: U64,
    /// Length of the delete log in bytes: at least one block.
    pub delete_log_len: U64,
    /// Where slot 0 begins, in bytes.
    pub slots_offset: U64,
    /// Where the last copy of the superblock begins, in bytes.
    pub last_superblock_offset: U64,
    /// A name for people: UTF-8, filled up with zeroes.
    pub label: [u8; 64],
    /// Zero.
    pub reserved: [u8; 264],
}

const _: () = assert!(size_of::<Superblock>() == 512);
const _: () = assert!(offset_of!(Superblock, preamble) == 0);
const _: () = assert!(offset_of!(Superblock, features_compatible) == 32);
const _: () = assert!(offset_of!(Superblock, features_read_only_compatible) == 40);
const _: () = assert!(offset_of!(Superblock, features_incompatible) == 48);
const _: () = assert!(offset_of!(Superblock, generation) == 56);
const _: () = assert!(offset_of!(Superblock, state) == 64);
const _: () = assert!(offset_of!(Superblock, block_size) == 68);
const _: () = assert!(offset_of!(Superblock, clean_checkpoint) == 72);
const _: () = assert!(offset_of!(Superblock, created_unix_ns) == 80);
const _: () = assert!(offset_of!(Superblock, hash_key) == 88);
const _: () = assert!(offset_of!(Superblock, slot_size) == 104);
const _: () = assert!(offset_of!(Superblock, slot_count) == 112);
const _: () = assert!(offset_of!(Superblock, device_len) == 120);
const _: () = assert!(offset_of!(Superblock, checkpoint_offset) == 128);
const _: () = assert!(offset_of!(Superblock, checkpoint_len) == 144);
const _: () = assert!(offset_of!(Superblock, delete_log_offset) == 152);
const _: () = assert!(offset_of!(Superblock, delete_log_len) == 160);
const _: () = assert!(offset_of!(Superblock, slots_offset) == 168);
const _: () = assert!(offset_of!(Superblock, last_superblock_offset) == 176);
const _: () = assert!(offset_of!(Superblock, label) == 184);
const _: () = assert!(offset_of!(Superblock, reserved) == 248);

/// How the store was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperblockState {
    /// Closed in order. The checkpoint with this number, never 0, names every
    /// object, and nothing was written after it.
    Clean {
        /// Number of that checkpoint.
        checkpoint: u64,
        /// Whether no object is left that a recovery found and nobody verified since.
        verified: bool,
    },
    /// Being written, or not closed in order: to be recovered.
    Open,
}

impl Superblock {
    /// A superblock with magic, version and this UUID; the rest is zero and for
    /// the caller to fill in.
    pub fn new(uuid: &[u8; 16]) -> Self {
        Self { preamble: Preamble::new(&KIND, uuid), ..Self::new_zeroed() }
    }

    /// Reads the copy at the beginning of `cell` and checks everything about it
    /// that can be checked without the device.
    ///
    /// # Errors
    /// The first rule that the copy breaks.
    pub fn read(cell: &[u8]) -> Result<&Self, Damage> {
        let (superblock, _) = Self::ref_from_prefix(cell)
            .map_err(|_| Damage::Inconsistent("the cell is shorter than a superblock"))?;
        KIND.check(superblock.as_bytes())?;
        // Version 1 has no incompatible features, so every one is unknown.
        let bits = superblock.features_incompatible.get();
        if bits != 0 {
            return Err(Damage::UnknownFeatures { bits });
        }
        superblock.check_bounds().map_err(Damage::Inconsistent)?;
        Ok(superblock)
    }

    /// Fills `cell` with this copy: the superblock with its checksum, then
    /// zeroes.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`Superblock::read`] would refuse the result,
    /// or if the cell has not [`SUPERBLOCK_CELL_LEN`] bytes.
    pub fn encode(&self, cell: &mut [u8]) -> Result<(), EncodeError> {
        let check = || {
            ensure(cell.len() == SUPERBLOCK_CELL_LEN, "the cell of a superblock has 4096 bytes")?;
            ensure(
                self.features_incompatible == U64::ZERO,
                "the superblock has unknown incompatible features",
            )?;
            self.check_bounds()
        };
        check().map_err(EncodeError::Invalid)?;

        let superblock = Self { preamble: Preamble::new(&KIND, &self.preamble.uuid), ..*self };
        let (fixed, rest) = cell.split_at_mut(size_of::<Self>());
        fixed.copy_from_slice(superblock.as_bytes());
        rest.fill(0);
        seal(fixed);
        Ok(())
    }

    /// How the store was left.
    pub fn state(&self) -> SuperblockState {
        match (self.state.get(), self.clean_checkpoint.get()) {
            (word @ (0 | 2), checkpoint) if checkpoint != 0 => {
                SuperblockState::Clean { checkpoint, verified: word == 0 }
            }
            _ => SuperblockState::Open,
        }
    }

    /// Sets `state` and `clean_checkpoint`.
    pub fn set_state(&mut self, state: SuperblockState) {
        let (word, checkpoint) = match state {
            SuperblockState::Clean { checkpoint, verified: true } => (0, checkpoint),
            SuperblockState::Clean { checkpoint, verified: false } => (2, checkpoint),
            SuperblockState::Open => (1, 0),
        };
        self.state = word.into();
        self.clean_checkpoint = checkpoint.into();
    }

    /// The label; empty if it is not valid UTF-8, which [`Superblock::read`]
    /// excludes.
    pub fn label(&self) -> &str {
        let len = self.label.iter().position(|byte| *byte == 0);
        let text = &self.label[..len.unwrap_or(self.label.len())];
        str::from_utf8(text).unwrap_or_default()
    }

    /// Sets the label.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] beyond 64 bytes, [`EncodeError::Invalid`] if
    /// the label contains a NUL character.
    pub fn set_label(&mut self, label: &str) -> Result<(), EncodeError> {
        ensure(!label.contains('\0'), "a label contains no NUL").map_err(EncodeError::Invalid)?;
        fits("the label", label.len() as u64, self.label.len() as u64)?;
        let (text, rest) = self.label.split_at_mut(label.len());
        text.copy_from_slice(label.as_bytes());
        rest.fill(0);
        Ok(())
    }

    /// The features of this store without which it must not be written. Version
    /// 1 knows none: unless this is 0, the store may only be read.
    pub fn unknown_read_only_features(&self) -> u64 {
        self.features_read_only_compatible.get()
    }

    /// Where this slot begins on the device, in bytes, or `None` beyond the last.
    pub fn slot_offset(&self, slot: u64) -> Option<u64> {
        if slot >= self.slot_count.get() {
            return None;
        }
        let within = slot.checked_mul(self.slot_size.get())?;
        self.slots_offset.get().checked_add(within)
    }

    /// Whether `block` has the length of this store's blocks.
    pub(super) fn check_block_len(&self, block: &[u8]) -> Result<(), &'static str> {
        let block_size = self.block_size.get();
        ensure(
            is_block_size(block_size) && block.len() == block_size as usize,
            "the block has not the block size of the store",
        )
    }
}

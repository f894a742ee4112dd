//! The superblock: identity, layout and members of the store, and whether it was closed.

mod bounds;
mod copies;
mod members;

use core::mem::offset_of;
use core::str;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use copies::{SuperblockCopies, superblock_offsets};
pub use members::{BUCKETS, MAX_MEMBERS, Member};

use super::layout::{CONTAINERS, Layout};
use crate::format::damage::{ensure, fits};
use crate::format::preamble::{Kind, Preamble, seal};
use crate::format::{Damage, EncodeError};

/// Length in bytes of the cell that holds one copy. It does not depend on the block size, so that a
/// copy is found before the block size is known.
pub const SUPERBLOCK_CELL_LEN: usize = 4096;

/// Number of copies on a device.
pub const SUPERBLOCK_COPIES: usize = 3;

const KIND: Kind = Kind { magic: *b"RAWBLKSB", name: "superblock" };

/// One copy of the superblock, which fills its cell. All copies of one generation are identical.
///
/// The identity in its preamble is that of the member, the device on which it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Superblock {
    /// Magic `RAWBLKSB`, checksum over the whole cell, version, identity of the member.
    pub preamble: Preamble,
    /// Features that software may ignore, also when it writes.
    pub features_compatible: U64,
    /// Features that software must know before it writes.
    pub features_read_only_compatible: U64,
    /// Features that software must know before it reads.
    pub features_incompatible: U64,
    /// Grows with every write of the superblock; the newest copy wins. Never 0.
    pub generation: U64,
    /// 0 clean, 1 open; see [`Superblock::state`].
    pub state: U32,
    /// Block size in bytes: a power of two from 512 to 65536.
    pub block_size: U32,
    /// Number of the checkpoint that a clean store is opened from; of an open one, of the oldest
    /// that a recovery may use.
    pub checkpoint: U64,
    /// When the member was formatted, in nanoseconds since the Unix epoch.
    pub created_unix_ns: U64,
    /// Key of the keyed hash that turns keys into 128-bit key hashes, and secret of the keyed
    /// hashes of slot headers. The same on all members of a set.
    pub hash_key: [u8; 16],
    /// Identity of the set of members, the same on all of them.
    pub set: [u8; 16],
    /// Length in bytes of the device when it was formatted.
    pub device_len: U64,
    /// Where the checkpoint containers begin, in bytes.
    pub container_offset: [U64; CONTAINERS],
    /// Length in bytes of each container.
    pub container_len: U64,
    /// Where segment 0 begins, in bytes.
    pub segments_offset: U64,
    /// Blocks of a segment: a power of two.
    pub segment_blocks: U32,
    /// Number of segments.
    pub segment_count: U32,
    /// Where the last copy of the superblock begins, in bytes.
    pub last_superblock_offset: U64,
    /// A name for people: UTF-8, padded with zeroes.
    pub label: [u8; 64],
    /// Version of the member table (`members` and `homes`); grows with every change, never 0.
    pub members_version: U64,
    /// The members. An unused row is zero.
    pub members: [Member; MAX_MEMBERS],
    /// For each bucket of keys, the row of its home in `members`.
    pub homes: [u8; BUCKETS],
    /// Zero.
    pub reserved: [u8; 2048],
}

const _: () = assert!(size_of::<Superblock>() == SUPERBLOCK_CELL_LEN);
const _: () = assert!(offset_of!(Superblock, preamble) == 0);
const _: () = assert!(offset_of!(Superblock, features_compatible) == 32);
const _: () = assert!(offset_of!(Superblock, features_read_only_compatible) == 40);
const _: () = assert!(offset_of!(Superblock, features_incompatible) == 48);
const _: () = assert!(offset_of!(Superblock, generation) == 56);
const _: () = assert!(offset_of!(Superblock, state) == 64);
const _: () = assert!(offset_of!(Superblock, block_size) == 68);
const _: () = assert!(offset_of!(Superblock, checkpoint) == 72);
const _: () = assert!(offset_of!(Superblock, created_unix_ns) == 80);
const _: () = assert!(offset_of!(Superblock, hash_key) == 88);
const _: () = assert!(offset_of!(Superblock, set) == 104);
const _: () = assert!(offset_of!(Superblock, device_len) == 120);
const _: () = assert!(offset_of!(Superblock, container_offset) == 128);
const _: () = assert!(offset_of!(Superblock, container_len) == 152);
const _: () = assert!(offset_of!(Superblock, segments_offset) == 160);
const _: () = assert!(offset_of!(Superblock, segment_blocks) == 168);
const _: () = assert!(offset_of!(Superblock, segment_count) == 172);
const _: () = assert!(offset_of!(Superblock, last_superblock_offset) == 176);
const _: () = assert!(offset_of!(Superblock, label) == 184);
const _: () = assert!(offset_of!(Superblock, members_version) == 248);
const _: () = assert!(offset_of!(Superblock, members) == 256);
const _: () = assert!(offset_of!(Superblock, homes) == 1024);
const _: () = assert!(offset_of!(Superblock, reserved) == 2048);

/// Whether the store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperblockState {
    /// Closed. The checkpoint with this number, never 0, names every object, and nothing was
    /// written after it.
    Clean {
        /// Number of that checkpoint.
        checkpoint: u64,
    },
    /// Open, or not closed: it needs a recovery.
    Open {
        /// No checkpoint with a lower number may be used. 0 while the store is made.
        oldest: u64,
    },
}

impl Layout {
    /// The layout in a superblock.
    #[must_use]
    pub fn of(superblock: &Superblock) -> Self {
        Self {
            block_size: superblock.block_size.get(),
            segment_blocks: superblock.segment_blocks.get(),
            segment_count: superblock.segment_count.get(),
            segments_offset: superblock.segments_offset.get(),
            container_offset: superblock.container_offset.map(U64::get),
            container_len: superblock.container_len.get(),
            last_superblock_offset: superblock.last_superblock_offset.get(),
            member: superblock.preamble.uuid,
            hash_key: superblock.hash_key,
        }
    }
}

impl Superblock {
    /// The superblock of a new store on one device, with the identity and the secret of its layout:
    /// open, in its first generation, all buckets at home on this member. The caller sets label and
    /// time.
    #[must_use]
    pub fn new(layout: &Layout, set: &[u8; 16], device_len: u64) -> Self {
        let mut superblock = Self {
            preamble: Preamble::new(&KIND, &layout.member),
            generation: U64::new(1),
            block_size: layout.block_size.into(),
            hash_key: layout.hash_key,
            set: *set,
            device_len: device_len.into(),
            container_offset: layout.container_offset.map(U64::new),
            container_len: layout.container_len.into(),
            segments_offset: layout.segments_offset.into(),
            segment_blocks: layout.segment_blocks.into(),
            segment_count: layout.segment_count.into(),
            last_superblock_offset: layout.last_superblock_offset.into(),
            members_version: U64::new(1),
            ..Self::new_zeroed()
        };
        superblock.members[0] = Member::first(&layout.member);
        superblock.set_state(SuperblockState::Open { oldest: 0 });
        superblock
    }

    /// Reads the copy in `cell` and checks everything about it that can be checked without the
    /// device.
    ///
    /// # Errors
    /// The first rule that the copy breaks.
    pub fn read(cell: &[u8]) -> Result<&Self, Damage> {
        let superblock = Self::ref_from_bytes(cell)
            .map_err(|_| Damage::Inconsistent("the cell of a superblock has 4096 bytes"))?;
        KIND.check(superblock.as_bytes())?;
        // Version 1 has no incompatible features, so every one is unknown.
        let bits = superblock.features_incompatible.get();
        if bits != 0 {
            return Err(Damage::UnknownFeatures { bits });
        }
        superblock.check_bounds().map_err(Damage::Inconsistent)?;
        Ok(superblock)
    }

    /// Fills `cell` with this copy and its checksum.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`Superblock::read`] would refuse the result, or if the length
    /// of the cell is not [`SUPERBLOCK_CELL_LEN`].
    pub fn encode(&self, cell: &mut [u8]) -> Result<(), EncodeError> {
        ensure(cell.len() == SUPERBLOCK_CELL_LEN, "the cell of a superblock has 4096 bytes")
            .and_then(|()| {
                let known = self.features_incompatible == U64::ZERO;
                ensure(known, "the superblock has unknown incompatible features")
            })
            .and_then(|()| self.check_bounds())
            .map_err(EncodeError::Invalid)?;
        cell.copy_from_slice(self.as_bytes());
        let preamble = Preamble::new(&KIND, &self.preamble.uuid);
        cell[..size_of::<Preamble>()].copy_from_slice(preamble.as_bytes());
        seal(cell);
        Ok(())
    }

    /// Whether the store was closed.
    #[must_use]
    pub fn state(&self) -> SuperblockState {
        match (self.state.get(), self.checkpoint.get()) {
            (0, checkpoint) if checkpoint != 0 => SuperblockState::Clean { checkpoint },
            (_, oldest) => SuperblockState::Open { oldest },
        }
    }

    /// Sets `state` and `checkpoint`.
    pub fn set_state(&mut self, state: SuperblockState) {
        let (word, checkpoint) = match state {
            SuperblockState::Clean { checkpoint } => (0, checkpoint),
            SuperblockState::Open { oldest } => (1, oldest),
        };
        self.state = word.into();
        self.checkpoint = checkpoint.into();
    }

    /// The label; empty if it is not valid UTF-8, which [`Superblock::read`] excludes.
    #[must_use]
    pub fn label(&self) -> &str {
        let len = self.label.iter().position(|byte| *byte == 0);
        let text = &self.label[..len.unwrap_or(self.label.len())];
        str::from_utf8(text).unwrap_or_default()
    }

    /// Sets the label.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] beyond 64 bytes, [`EncodeError::Invalid`] if the label contains a
    /// NUL character.
    pub fn set_label(&mut self, label: &str) -> Result<(), EncodeError> {
        ensure(!label.contains('\0'), "the label contains a NUL character")
            .map_err(EncodeError::Invalid)?;
        fits("the label", label.len() as u64, self.label.len() as u64)?;
        let (text, rest) = self.label.split_at_mut(label.len());
        text.copy_from_slice(label.as_bytes());
        rest.fill(0);
        Ok(())
    }

    /// The features that software must know before it writes to this store. Version 1 knows none:
    /// unless this is 0, the store may only be read.
    #[must_use]
    pub fn unknown_read_only_features(&self) -> u64 {
        self.features_read_only_compatible.get()
    }
}

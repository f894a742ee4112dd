//! The checkpoint: an image of the index, in one of two containers.
//!
//! A container is a header block and then as many body blocks as it takes to
//! hold one entry for every slot, in slot order.

use core::mem::offset_of;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::{Damage, EncodeError, ensure, ensure_zero};
use super::entry::ObjectEntry;
use super::limits::{MAX_SEQUENCE, check_checkpoint, is_block_size};
use super::preamble::{Kind, Preamble, seal};
use super::superblock::Superblock;

const HEADER: Kind = Kind { magic: *b"RAWBLKCK", name: "checkpoint header" };

const BODY: Kind = Kind { magic: *b"RAWBLKCB", name: "checkpoint body block" };

/// The header of a checkpoint, at the beginning of the first block of its
/// container. Writing it is what commits the checkpoint.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CheckpointHeader {
    /// Magic `RAWBLKCK`, checksum over the 128 bytes, version, UUID.
    pub preamble: Preamble,
    /// Number of the checkpoint, never 0 and never used twice.
    pub number: U64,
    /// Highest sequence for which the checkpoint speaks; slots and delete
    /// records with a higher one speak for themselves.
    pub covered_sequence: U64,
    /// The next unused sequence when the checkpoint was taken.
    pub next_sequence: U64,
    /// Number of entries in the body: the slot count.
    pub entry_count: U64,
    /// Number of entries that name an object.
    pub live_count: U64,
    /// Zero.
    pub reserved: [u8; 56],
}

const _: () = assert!(size_of::<CheckpointHeader>() == 128);
const _: () = assert!(offset_of!(CheckpointHeader, preamble) == 0);
const _: () = assert!(offset_of!(CheckpointHeader, number) == 32);
const _: () = assert!(offset_of!(CheckpointHeader, covered_sequence) == 40);
const _: () = assert!(offset_of!(CheckpointHeader, next_sequence) == 48);
const _: () = assert!(offset_of!(CheckpointHeader, entry_count) == 56);
const _: () = assert!(offset_of!(CheckpointHeader, live_count) == 64);
const _: () = assert!(offset_of!(CheckpointHeader, reserved) == 72);

impl CheckpointHeader {
    /// A header for a checkpoint of this store; number, sequences and live
    /// count are zero and for the caller to fill in.
    pub fn new(store: &Superblock) -> Self {
        Self {
            preamble: Preamble::new(&HEADER, &store.preamble.uuid),
            entry_count: store.slot_count,
            ..Self::new_zeroed()
        }
    }

    /// Fills `block` with this header and its checksum, then zeroes.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`CheckpointHeader::read`] would refuse the
    /// result.
    pub fn encode(&self, block: &mut [u8], store: &Superblock) -> Result<(), EncodeError> {
        store
            .check_block_len(block)
            .and_then(|()| self.check_bounds(store))
            .map_err(EncodeError::Invalid)?;
        let header = Self { preamble: Preamble::new(&HEADER, &store.preamble.uuid), ..*self };
        let (fixed, rest) = block.split_at_mut(size_of::<Self>());
        fixed.copy_from_slice(header.as_bytes());
        rest.fill(0);
        seal(fixed);
        Ok(())
    }

    /// Reads the header from the first block of a container.
    ///
    /// # Errors
    /// The first rule that the block breaks.
    pub fn read<'a>(block: &'a [u8], store: &Superblock) -> Result<&'a Self, Damage> {
        store.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (header, _) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a checkpoint header"))?;
        HEADER.check(header.as_bytes())?.check_store(&store.preamble.uuid)?;
        header.check_bounds(store).map_err(Damage::Inconsistent)?;
        Ok(header)
    }

    fn check_bounds(&self, store: &Superblock) -> Result<(), &'static str> {
        check_checkpoint(self.number.get())?;
        ensure(self.next_sequence.get() <= MAX_SEQUENCE, "the next sequence is too high")?;
        ensure(
            self.covered_sequence.get() < self.next_sequence.get(),
            "the next sequence is not above the covered one",
        )?;
        ensure(
            self.entry_count == store.slot_count,
            "the number of entries is not the number of slots",
        )?;
        ensure(
            self.live_count.get() <= self.entry_count.get(),
            "there are more live entries than entries",
        )?;
        ensure_zero(&self.reserved)
    }
}

/// The beginning of a body block. Entries follow it to the end of the block.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CheckpointBlock {
    /// Magic `RAWBLKCB`, checksum over the whole block, version, UUID.
    pub preamble: Preamble,
    /// Number of the checkpoint to which the block belongs.
    pub number: U64,
    /// Position among the body blocks, from 0.
    pub block_index: U64,
    /// Zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<CheckpointBlock>() == 64);
const _: () = assert!(offset_of!(CheckpointBlock, preamble) == 0);
const _: () = assert!(offset_of!(CheckpointBlock, number) == 32);
const _: () = assert!(offset_of!(CheckpointBlock, block_index) == 40);
const _: () = assert!(offset_of!(CheckpointBlock, reserved) == 48);

impl CheckpointBlock {
    /// The entries of the body block at this position, for the caller to fill:
    /// entry 0 is that of slot `index * entries_per_block(block_size)`. There
    /// are fewer than [`entries_per_block`] in the last block. [`seal`] comes
    /// afterwards.
    ///
    /// [`seal`]: CheckpointBlock::seal
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if the block has another length than the blocks
    /// of the store, or if there is no body block at this position.
    pub fn entries_mut<'a>(
        block: &'a mut [u8],
        store: &Superblock,
        index: u64,
    ) -> Result<&'a mut [ObjectEntry], EncodeError> {
        let split = store.check_block_len(block).and_then(|()| entries_len(store, index));
        let len = split.map_err(EncodeError::Invalid)?;
        block
            .get_mut(size_of::<Self>()..size_of::<Self>() + len)
            .and_then(|entries| <[ObjectEntry]>::mut_from_bytes(entries).ok())
            .ok_or(EncodeError::Invalid("the entries are not in the block"))
    }

    /// Completes a body block whose entries are in place: writes what precedes
    /// them, zeroes what follows them, computes the checksum.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`CheckpointBlock::read`] would refuse the
    /// result.
    pub fn seal(
        block: &mut [u8],
        store: &Superblock,
        number: u64,
        index: u64,
    ) -> Result<(), EncodeError> {
        check_checkpoint(number).map_err(EncodeError::Invalid)?;
        let entries = Self::entries_mut(block, store, index)?;
        check_entries(entries, store).map_err(EncodeError::Invalid)?;
        let end = size_of::<Self>() + size_of_val(entries);

        let prefix = Self {
            preamble: Preamble::new(&BODY, &store.preamble.uuid),
            number: number.into(),
            block_index: index.into(),
            reserved: [0; 16],
        };
        block[..size_of::<Self>()].copy_from_slice(prefix.as_bytes());
        block[end..].fill(0);
        seal(block);
        Ok(())
    }

    /// Reads the body block at this position of the checkpoint with this number:
    /// one entry for each of its slots.
    ///
    /// # Errors
    /// The first rule that the block breaks. [`Damage::WrongPlace`] is about
    /// the number first, then about the index.
    pub fn read<'a>(
        block: &'a [u8],
        store: &Superblock,
        number: u64,
        index: u64,
    ) -> Result<&'a [ObjectEntry], Damage> {
        store.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (prefix, rest) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a checkpoint block"))?;
        BODY.check(block)?.check_store(&store.preamble.uuid)?;
        for (found, expected) in [(prefix.number, number), (prefix.block_index, index)] {
            if found != expected {
                return Err(Damage::WrongPlace { found: found.get(), expected });
            }
        }
        let len = entries_len(store, index).map_err(Damage::Inconsistent)?;
        let (entries, tail) = rest
            .split_at_checked(len)
            .ok_or(Damage::Inconsistent("the entries are not in the block"))?;
        let entries = <[ObjectEntry]>::ref_from_bytes(entries)
            .map_err(|_| Damage::Inconsistent("the entries are not whole"))?;
        check_entries(entries, store)
            .and_then(|()| ensure_zero(&prefix.reserved))
            .and_then(|()| ensure_zero(tail))
            .map_err(Damage::Inconsistent)?;
        Ok(entries)
    }
}

/// Number of entries in a body block of this size in bytes.
pub fn entries_per_block(block_size: u32) -> u64 {
    u64::from(block_size).saturating_sub(size_of::<CheckpointBlock>() as u64)
        / size_of::<ObjectEntry>() as u64
}

/// Number of body blocks of a checkpoint of this many slots. `None` if the block
/// size is not one.
pub fn body_blocks(slot_count: u64, block_size: u32) -> Option<u64> {
    is_block_size(block_size).then(|| slot_count.div_ceil(entries_per_block(block_size)))
}

/// Length in bytes of a container for this many slots: the header block and the
/// body blocks. `None` if the block size is not one or the length overflows.
pub fn container_len(slot_count: u64, block_size: u32) -> Option<u64> {
    body_blocks(slot_count, block_size)?.checked_add(1)?.checked_mul(block_size.into())
}

/// Length in bytes of the entries in the body block at this position.
fn entries_len(store: &Superblock, index: u64) -> Result<usize, &'static str> {
    let per_block = entries_per_block(store.block_size.get());
    let first_slot = index.saturating_mul(per_block);
    let count = store.slot_count.get().saturating_sub(first_slot);
    ensure(count != 0, "there is no body block at this position")?;
    usize::try_from(count.min(per_block) * size_of::<ObjectEntry>() as u64)
        .map_err(|_| "the block is too large for this machine")
}

fn check_entries(entries: &[ObjectEntry], store: &Superblock) -> Result<(), &'static str> {
    entries.iter().try_for_each(|entry| {
        if entry.is_live() {
            entry.check_bounds(store)
        } else {
            ensure(*entry == ObjectEntry::NONE, "an entry without an object is not zero")
        }
    })
}

//! The delete log: a ring of blocks with records of deleted keys.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::{Damage, EncodeError, ensure, ensure_zero, fits, number};
use super::limits::{MAX_SEQUENCE, check_checkpoint};
use super::preamble::{Kind, Preamble, seal};
use super::superblock::Superblock;

const KIND: Kind = Kind { magic: *b"RAWBLKDL", name: "delete log block" };

/// The beginning of a block of the delete log. Records follow it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DeleteLogBlock {
    /// Magic `RAWBLKDL`, checksum over the whole block, version, UUID.
    pub preamble: Preamble,
    /// Position in the ring, from 0.
    pub block_index: U64,
    /// Number of the checkpoint that counted when the block was written, never 0.
    pub checkpoint: U64,
    /// Number of records in the block.
    pub count: U32,
    /// Zero.
    pub reserved: [u8; 12],
}

const _: () = assert!(size_of::<DeleteLogBlock>() == 64);
const _: () = assert!(offset_of!(DeleteLogBlock, preamble) == 0);
const _: () = assert!(offset_of!(DeleteLogBlock, block_index) == 32);
const _: () = assert!(offset_of!(DeleteLogBlock, checkpoint) == 40);
const _: () = assert!(offset_of!(DeleteLogBlock, count) == 48);
const _: () = assert!(offset_of!(DeleteLogBlock, reserved) == 52);

/// One deleted key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DeleteRecord {
    /// Keyed 128-bit hash of the key.
    pub key_hash: [u8; 16],
    /// Sequence of the deletion, never 0. Older writes of the key are void.
    pub sequence: U64,
}

const _: () = assert!(size_of::<DeleteRecord>() == 24);
const _: () = assert!(offset_of!(DeleteRecord, key_hash) == 0);
const _: () = assert!(offset_of!(DeleteRecord, sequence) == 16);

impl DeleteLogBlock {
    /// Fills `block` with the block at this position of the ring, written while
    /// the checkpoint with this number counts: these records, then zeroes.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] if there are more than [`records_per_block`],
    /// [`EncodeError::Invalid`] if [`DeleteLogBlock::read`] would refuse the
    /// result.
    pub fn encode(
        block: &mut [u8],
        store: &Superblock,
        index: u64,
        checkpoint: u64,
        records: &[DeleteRecord],
    ) -> Result<(), EncodeError> {
        store
            .check_block_len(block)
            .and_then(|()| check_index(store, index))
            .and_then(|()| check_checkpoint(checkpoint))
            .and_then(|()| check_records(records))
            .map_err(EncodeError::Invalid)?;

        let (first, rest) = block.split_at_mut(size_of::<Self>());
        let bytes = records.as_bytes();
        fits("the delete records", bytes.len() as u64, rest.len() as u64)?;
        let (place, tail) = rest.split_at_mut(bytes.len());
        let prefix = Self {
            preamble: Preamble::new(&KIND, &store.preamble.uuid),
            block_index: index.into(),
            checkpoint: checkpoint.into(),
            count: number::<u32>(records.len() as u64)?.into(),
            reserved: [0; 12],
        };
        first.copy_from_slice(prefix.as_bytes());
        place.copy_from_slice(bytes);
        tail.fill(0);
        seal(block);
        Ok(())
    }

    /// Reads the block at this position of the ring: what precedes its records,
    /// and the records.
    ///
    /// # Errors
    /// The first rule that the block breaks.
    pub fn read<'a>(
        block: &'a [u8],
        store: &Superblock,
        index: u64,
    ) -> Result<(&'a Self, &'a [DeleteRecord]), Damage> {
        store.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (prefix, rest) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a delete log block"))?;
        KIND.check(block)?.check_store(&store.preamble.uuid)?;
        if prefix.block_index != index {
            return Err(Damage::WrongPlace { found: prefix.block_index.get(), expected: index });
        }
        check_index(store, index).map_err(Damage::Inconsistent)?;
        let (records, tail) =
            <[DeleteRecord]>::ref_from_prefix_with_elems(rest, prefix.count.get() as usize)
                .map_err(|_| Damage::Inconsistent("more records than fit into the block"))?;
        check_records(records)
            .and_then(|()| ensure_zero(&prefix.reserved))
            .and_then(|()| ensure_zero(tail))
            .and_then(|()| check_checkpoint(prefix.checkpoint.get()))
            .map_err(Damage::Inconsistent)?;
        Ok((prefix, records))
    }
}

/// Number of records that fit into a block of this size in bytes.
pub fn records_per_block(block_size: u32) -> usize {
    (block_size as usize).saturating_sub(size_of::<DeleteLogBlock>()) / size_of::<DeleteRecord>()
}

fn check_index(store: &Superblock, index: u64) -> Result<(), &'static str> {
    let block_size: u64 = store.block_size.into();
    ensure(
        index < store.delete_log_len.get() / block_size.max(1),
        "there is no delete log block at this position",
    )
}

fn check_records(records: &[DeleteRecord]) -> Result<(), &'static str> {
    ensure(
        records.iter().all(|record| (1..=MAX_SEQUENCE).contains(&record.sequence.get())),
        "the sequence of a delete record is 0 or too high",
    )
}

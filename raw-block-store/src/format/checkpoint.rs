//! The blocks of a checkpoint: its header, and those of its body.
//!
//! A container is a header block, followed by body blocks. These carry the records of all segments
//! as one stream of bytes.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::Layout;
use super::sizes::{BODY_HEADER_LEN, body_capacity};
use crate::format::damage::{ensure, ensure_zero};
use crate::format::limits::check_checkpoint;
use crate::format::preamble::{Kind, Preamble, seal};
use crate::format::{Damage, EncodeError, MAX_SEQUENCE};

const HEADER: Kind = Kind { magic: *b"RAWBLKCK", name: "checkpoint header" };

const BODY: Kind = Kind { magic: *b"RAWBLKCB", name: "checkpoint body block" };

/// The header of a checkpoint, at the beginning of the first block of its container. Writing it
/// commits the checkpoint.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CheckpointHeader {
    /// Magic `RAWBLKCK`, checksum over the 128 bytes, version, identity of the member.
    pub preamble: Preamble,
    /// Number of the checkpoint, never 0 and never used twice.
    pub number: U64,
    /// Highest sequence that the checkpoint covers.
    pub covered_sequence: U64,
    /// The lowest sequence that was not allocated when the checkpoint was taken.
    pub next_sequence: U64,
    /// Length of the body in bytes, as a stream of records.
    pub body_len: U64,
    /// Number of records in the body, one per segment.
    pub segments: U32,
    /// Zero.
    pub reserved: [u8; 60],
}

const _: () = assert!(size_of::<CheckpointHeader>() == 128);
const _: () = assert!(offset_of!(CheckpointHeader, preamble) == 0);
const _: () = assert!(offset_of!(CheckpointHeader, number) == 32);
const _: () = assert!(offset_of!(CheckpointHeader, covered_sequence) == 40);
const _: () = assert!(offset_of!(CheckpointHeader, next_sequence) == 48);
const _: () = assert!(offset_of!(CheckpointHeader, body_len) == 56);
const _: () = assert!(offset_of!(CheckpointHeader, segments) == 64);
const _: () = assert!(offset_of!(CheckpointHeader, reserved) == 68);

impl CheckpointHeader {
    /// The header of a checkpoint with this number, whose body has this many bytes. Sequences are
    /// the covered one and the next one.
    #[must_use]
    pub fn new(layout: &Layout, number: u64, sequences: (u64, u64), body_len: u64) -> Self {
        Self {
            preamble: Preamble::new(&HEADER, &layout.member),
            number: number.into(),
            covered_sequence: sequences.0.into(),
            next_sequence: sequences.1.into(),
            body_len: body_len.into(),
            segments: layout.segment_count.into(),
            reserved: [0; 60],
        }
    }

    /// Fills `block` with this header and its checksum, then zeroes.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`CheckpointHeader::read`] would refuse the result.
    pub fn encode(&self, block: &mut [u8], layout: &Layout) -> Result<(), EncodeError> {
        layout
            .check_block_len(block)
            .and_then(|()| self.check_bounds(layout))
            .map_err(EncodeError::Invalid)?;
        let header = Self { preamble: Preamble::new(&HEADER, &layout.member), ..*self };
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
    pub fn read<'a>(block: &'a [u8], layout: &Layout) -> Result<&'a Self, Damage> {
        layout.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (header, _) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a checkpoint header"))?;
        HEADER.check(header.as_bytes())?.check_store(&layout.member)?;
        header.check_bounds(layout).map_err(Damage::Inconsistent)?;
        Ok(header)
    }

    /// Number of blocks of the body.
    #[must_use]
    pub fn body_blocks(&self, layout: &Layout) -> u64 {
        self.body_len.get().div_ceil(body_capacity(layout.block_size).max(1) as u64)
    }

    fn check_bounds(&self, layout: &Layout) -> Result<(), &'static str> {
        check_checkpoint(self.number.get())?;
        ensure(self.next_sequence.get() <= MAX_SEQUENCE, "the next sequence is too high")?;
        ensure(
            self.covered_sequence.get() < self.next_sequence.get(),
            "the next sequence is not above the covered one",
        )?;
        ensure(
            self.segments == layout.segment_count,
            "the number of records is not the number of segments",
        )?;
        ensure(
            self.body_len.get() <= layout.max_body_len(),
            "the body is longer than the records of all segments",
        )?;
        ensure_zero(&self.reserved)
    }
}

/// The beginning of a body block. The stream of records continues after it, to the end of the
/// block.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct BodyBlock {
    /// Magic `RAWBLKCB`, checksum over the whole block, version, identity of the member.
    pub preamble: Preamble,
    /// Number of the checkpoint to which the block belongs.
    pub number: U64,
    /// Position among the body blocks, from 0.
    pub index: U64,
}

const _: () = assert!(size_of::<BodyBlock>() == BODY_HEADER_LEN);
const _: () = assert!(offset_of!(BodyBlock, preamble) == 0);
const _: () = assert!(offset_of!(BodyBlock, number) == 32);
const _: () = assert!(offset_of!(BodyBlock, index) == 40);

impl BodyBlock {
    /// The bytes of the stream in a body block, for the caller to fill. [`seal`](Self::seal) comes
    /// afterwards. Empty if the block is too short.
    pub fn stream_mut(block: &mut [u8]) -> &mut [u8] {
        block.get_mut(size_of::<Self>()..).unwrap_or_default()
    }

    /// Completes a body block whose part of the stream is in place, unused bytes zeroed.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`BodyBlock::read`] would refuse the result.
    pub fn seal(
        block: &mut [u8],
        layout: &Layout,
        number: u64,
        index: u64,
    ) -> Result<(), EncodeError> {
        layout
            .check_block_len(block)
            .and_then(|()| check_checkpoint(number))
            .map_err(EncodeError::Invalid)?;
        let prefix = Self {
            preamble: Preamble::new(&BODY, &layout.member),
            number: number.into(),
            index: index.into(),
        };
        block[..size_of::<Self>()].copy_from_slice(prefix.as_bytes());
        seal(block);
        Ok(())
    }

    /// [Seals](Self::seal) all blocks of a piece of memory. The first block has this position.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if the piece does not consist of whole blocks, or as
    /// [`seal`](Self::seal).
    pub fn seal_all(
        piece: &mut [u8],
        layout: &Layout,
        number: u64,
        first: u64,
    ) -> Result<(), EncodeError> {
        let block_size = (layout.block_size as usize).max(1);
        ensure(
            piece.len().is_multiple_of(block_size),
            "the memory does not consist of whole blocks",
        )
        .map_err(EncodeError::Invalid)?;
        (first..)
            .zip(piece.chunks_exact_mut(block_size))
            .try_for_each(|(index, block)| Self::seal(block, layout, number, index))
    }

    /// Reads the body block at this position of the checkpoint with this number: its part of the
    /// stream, in the last block with the zeroes that follow.
    ///
    /// # Errors
    /// The first rule that the block breaks. [`Damage::WrongPlace`] reports the number first, then
    /// the position.
    pub fn read<'a>(
        block: &'a [u8],
        layout: &Layout,
        number: u64,
        index: u64,
    ) -> Result<&'a [u8], Damage> {
        layout.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (prefix, stream) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a body block"))?;
        BODY.check(block)?.check_store(&layout.member)?;
        for (found, expected) in [(prefix.number, number), (prefix.index, index)] {
            if found != expected {
                return Err(Damage::WrongPlace { found: found.get(), expected });
            }
        }
        Ok(stream)
    }
}

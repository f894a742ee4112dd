//! The header of a segment, in its first block.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::entry::check_generation;
use super::layout::Layout;
use crate::format::damage::{ensure, ensure_zero};
use crate::format::limits::check_checkpoint;
use crate::format::preamble::{Kind, Preamble, seal};
use crate::format::{Damage, EncodeError};

const KIND: Kind = Kind { magic: *b"RAWBLKSG", name: "segment header" };

/// The contents of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stream {
    /// New objects.
    #[default]
    New,
    /// Moved objects.
    Kept,
    /// Tombstones that fit nowhere else.
    Tombstones,
}

impl Stream {
    /// All streams, in the order of their numbers on the device, from 0.
    pub const ALL: [Self; 3] = [Self::New, Self::Kept, Self::Tombstones];

    /// The stream with this number on the device.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

/// The first 128 bytes of a segment.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SegmentHeader {
    /// Magic `RAWBLKSG`, checksum over the 128 bytes, version, identity of the member.
    pub preamble: Preamble,
    /// Generation: the sequence that the segment got when it was opened.
    pub generation: U64,
    /// Number of the segment.
    pub segment: U32,
    /// Its contents; see [`SegmentHeader::stream`].
    pub stream: U32,
    /// Number of the checkpoint that was committed when the segment was opened, never 0.
    pub checkpoint: U64,
    /// Zero.
    pub reserved: [u8; 72],
}

const _: () = assert!(size_of::<SegmentHeader>() == 128);
const _: () = assert!(offset_of!(SegmentHeader, preamble) == 0);
const _: () = assert!(offset_of!(SegmentHeader, generation) == 32);
const _: () = assert!(offset_of!(SegmentHeader, segment) == 40);
const _: () = assert!(offset_of!(SegmentHeader, stream) == 44);
const _: () = assert!(offset_of!(SegmentHeader, checkpoint) == 48);
const _: () = assert!(offset_of!(SegmentHeader, reserved) == 56);

/// The fields that [`SegmentHeader::encode`] writes.
///
/// # Examples
/// ```
/// use raw_block_store::format::{Layout, SegmentFields, SegmentHeader, Stream};
///
/// # use raw_block_store::format::LayoutRequest;
/// # let (segment_size, largest_object) = (Some(1 << 20), None);
/// # let request =
/// #     LayoutRequest { capacity: 1 << 30, block_size: 4096, segment_size, largest_object };
/// let layout = Layout::plan(&request)?;
/// let fields = SegmentFields { segment: 3, generation: 7, stream: Stream::New, checkpoint: 1 };
/// let mut block = [0; 4096];
/// SegmentHeader::encode(&mut block, &layout, &fields)?;
/// assert_eq!(SegmentHeader::read(&block, &layout, 3)?.generation.get(), 7);
/// assert!(SegmentHeader::read(&block, &layout, 4).is_err(), "it belongs to another segment");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFields {
    /// Number of the segment.
    pub segment: u32,
    /// Its generation, not 0.
    pub generation: u64,
    /// Its contents.
    pub stream: Stream,
    /// Number of the committed checkpoint, not 0.
    pub checkpoint: u64,
}

impl SegmentHeader {
    /// Fills `block`, the first of the segment, with its header and zeroes.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if [`SegmentHeader::read`] would refuse the result.
    pub fn encode(
        block: &mut [u8],
        layout: &Layout,
        fields: &SegmentFields,
    ) -> Result<(), EncodeError> {
        let header = Self {
            preamble: Preamble::new(&KIND, &layout.member),
            generation: fields.generation.into(),
            segment: fields.segment.into(),
            stream: (fields.stream as u32).into(),
            checkpoint: fields.checkpoint.into(),
            reserved: [0; 72],
        };
        layout
            .check_block_len(block)
            .and_then(|()| layout.check_segment(fields.segment))
            .and_then(|()| header.check_bounds())
            .map_err(EncodeError::Invalid)?;
        let (fixed, rest) = block.split_at_mut(size_of::<Self>());
        fixed.copy_from_slice(header.as_bytes());
        rest.fill(0);
        seal(fixed);
        Ok(())
    }

    /// Reads the header of this segment from its first block.
    ///
    /// # Errors
    /// The first rule that the block breaks.
    pub fn read<'a>(block: &'a [u8], layout: &Layout, segment: u32) -> Result<&'a Self, Damage> {
        layout.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (header, _) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a segment header"))?;
        KIND.check(header.as_bytes())?.check_store(&layout.member)?;
        if header.segment != segment {
            return Err(Damage::WrongPlace {
                found: header.segment.get().into(),
                expected: segment.into(),
            });
        }
        layout
            .check_segment(segment)
            .and_then(|()| header.check_bounds())
            .map_err(Damage::Inconsistent)?;
        Ok(header)
    }

    /// The contents of the segment.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::from_number(self.stream.get()).unwrap_or_default()
    }

    fn check_bounds(&self) -> Result<(), &'static str> {
        check_generation(self.generation.get())?;
        ensure(
            Stream::from_number(self.stream.get()).is_some(),
            "the stream of the segment is unknown",
        )?;
        check_checkpoint(self.checkpoint.get())?;
        ensure_zero(&self.reserved)
    }
}

//! The fixed part of a slot header.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::entry::check_generation;
use super::layout::Layout;
use super::sizes::SLOT_HEADER_LEN;
use crate::format::damage::ensure;
use crate::format::preamble::{Kind, Preamble};

pub(super) const KIND: Kind = Kind { magic: *b"RAWBLKSL", name: "slot header" };

/// The kind of a slot: the number in its header.
pub(super) const OBJECTS: u16 = 1;
/// The kind of a slot: the number in its header.
pub(super) const TOMBSTONES: u16 = 2;

/// The fixed part of the header of a slot, at the beginning of its first block.
///
/// In a slot of objects, the entries follow it, then the key and the metadata of each object in the
/// same order, then the payload if it is [inline](super::Entry::is_inline). In a slot of
/// tombstones, key hashes follow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SlotHeader {
    /// Magic `RAWBLKSL`, checksum over the 80 bytes, version, identity of the member.
    pub preamble: Preamble,
    /// XXH3-64, seeded with the secret of the store, of the `len - 40` bytes that follow it.
    pub keyed_hash: U64,
    /// Generation of the segment.
    pub generation: U64,
    /// Number of the segment.
    pub segment: U32,
    /// Block of this header within the segment.
    pub block: U32,
    /// Number of the first entry within the segment.
    pub first_entry: U32,
    /// Number of objects, or of deleted keys; not 0.
    pub count: U16,
    /// 1 objects, 2 tombstones.
    pub kind: U16,
    /// Blocks of the slot, including this one.
    pub blocks: U32,
    /// Offset in the block at which the last metadata, or the last key hash, ends.
    pub len: U32,
    /// Sequence of the tombstones; 0 in a slot of objects.
    pub sequence: U64,
}

const _: () = assert!(size_of::<SlotHeader>() == SLOT_HEADER_LEN);
const _: () = assert!(offset_of!(SlotHeader, preamble) == 0);
const _: () = assert!(offset_of!(SlotHeader, keyed_hash) == 32);
const _: () = assert!(offset_of!(SlotHeader, generation) == 40);
const _: () = assert!(offset_of!(SlotHeader, segment) == 48);
const _: () = assert!(offset_of!(SlotHeader, block) == 52);
const _: () = assert!(offset_of!(SlotHeader, first_entry) == 56);
const _: () = assert!(offset_of!(SlotHeader, count) == 60);
const _: () = assert!(offset_of!(SlotHeader, kind) == 62);
const _: () = assert!(offset_of!(SlotHeader, blocks) == 64);
const _: () = assert!(offset_of!(SlotHeader, len) == 68);
const _: () = assert!(offset_of!(SlotHeader, sequence) == 72);

/// The place of a slot, and its entry numbers.
///
/// # Examples
/// The header of a slot with one object, whose payload it contains:
/// ```
/// use raw_block_store::format::{Entry, SlotHeader, SlotObject, SlotPlace, payload_checksum};
/// # use raw_block_store::format::{Layout, LayoutRequest};
/// # let (segment_size, largest_object) = (Some(1 << 20), None);
/// # let request =
/// #     LayoutRequest { capacity: 1 << 30, block_size: 4096, segment_size, largest_object };
/// # let layout = Layout::plan(&request)?;
///
/// let place = SlotPlace { segment: 3, generation: 70, block: 9, blocks: 1, first_entry: 5 };
/// let payload = b"a payload";
/// let mut entry = Entry {
///     key_hash: [7; 16],
///     sequence: 1000.into(),
///     checksum: 0.into(),
///     payload_len: 9.into(),
///     key_len: 3.into(),
///     metadata_len: 0.into(),
///     block: place.block.into(),
///     blocks_back: 0.into(),
/// };
/// let at = entry.place(place.segment, place.generation);
/// entry.checksum = payload_checksum(&layout, &at, payload).into();
/// let objects = [SlotObject { entry, key: b"key", metadata: b"" }];
/// let mut block = vec![0; 4096];
/// SlotHeader::encode(&mut block, &layout, &place, objects.into_iter(), payload)?;
///
/// let view = SlotHeader::read(&block, &layout, place.segment, place.block)?;
/// let object = view.of_generation(place.generation)?.object(place.first_entry).unwrap();
/// assert_eq!((object.key, object.payload), (&b"key"[..], Some(&payload[..])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPlace {
    /// Number of the segment.
    pub segment: u32,
    /// Generation of the segment.
    pub generation: u64,
    /// Block of the header within the segment.
    pub block: u32,
    /// Blocks of the slot, including the header.
    pub blocks: u32,
    /// Number of the first entry within the segment.
    pub first_entry: u32,
}

impl SlotHeader {
    /// A header that is complete except for its hashes.
    pub(super) fn new(
        layout: &Layout,
        place: &SlotPlace,
        kind: u16,
        count: u16,
        len: u32,
        sequence: u64,
    ) -> Self {
        Self {
            preamble: Preamble::new(&KIND, &layout.member),
            keyed_hash: U64::ZERO,
            generation: place.generation.into(),
            segment: place.segment.into(),
            block: place.block.into(),
            first_entry: place.first_entry.into(),
            count: count.into(),
            kind: kind.into(),
            blocks: place.blocks.into(),
            len: len.into(),
            sequence: sequence.into(),
        }
    }

    /// How many entry numbers the slot has: one for all its tombstones.
    #[must_use]
    pub fn entry_numbers(&self) -> u32 {
        if self.kind == TOMBSTONES { 1 } else { self.count.get().into() }
    }

    /// The rules for the place of the slot, and the bounds of the other fields.
    pub(super) fn check_bounds(&self, layout: &Layout) -> Result<(), &'static str> {
        check_generation(self.generation.get())?;
        layout.check_segment(self.segment.get())?;
        ensure(self.count != U16::ZERO, "the slot holds nothing")?;
        ensure(self.block != U32::ZERO, "the slot lies in the block of the segment's header")?;
        ensure(self.blocks != U32::ZERO, "the slot has no block")?;
        let entries = u64::from(self.first_entry) + u64::from(self.entry_numbers());
        ensure(
            entries <= layout.segment_blocks.into(),
            "the entry numbers of the slot are out of range",
        )?;
        let end = u64::from(self.block) + u64::from(self.blocks);
        let limit = layout.table_block(u32::try_from(entries).unwrap_or(u32::MAX));
        ensure(end <= limit.into(), "the slot ends past its segment, or in its table")
    }
}

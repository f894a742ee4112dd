//! The slot header: what a slot holds, in the first block of the slot.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{crc32c, payload_checksum};
use super::damage::{Damage, EncodeError, ensure, ensure_zero, fits, number};
use super::entry::ObjectEntry;
use super::limits::check_checkpoint;
use super::preamble::{Kind, Preamble, check_crc32c, seal};
use super::superblock::Superblock;
use crate::fault::Fault;

/// Length in bytes of the fixed part of a slot header. The key follows it.
pub const SLOT_HEADER_LEN: usize = 128;

const KIND: Kind = Kind { magic: *b"RAWBLKSL", name: "slot header" };

const TOO_LONG: Damage = Damage::Inconsistent("the block ends before what it holds");

/// The fixed part of a slot header. Key, metadata and, if it is
/// [inline](ObjectEntry::is_inline), the payload follow it in this order
/// without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SlotHeader {
    /// Magic `RAWBLKSL`, checksum over the 128 bytes, version, UUID.
    pub preamble: Preamble,
    /// The object in the slot.
    pub entry: ObjectEntry,
    /// Number of the slot.
    pub slot: U64,
    /// Checksum of the payload; see [`payload_checksum`].
    pub payload_checksum: U64,
    /// CRC-32C of the key followed by the metadata.
    pub key_metadata_checksum: U32,
    /// Number of consecutive slots that the object takes: 1.
    pub span: U32,
    /// Number of the checkpoint that counted when the slot was written, never 0.
    pub checkpoint: U64,
    /// Zero.
    pub reserved: [u8; 32],
}

const _: () = assert!(size_of::<SlotHeader>() == SLOT_HEADER_LEN);
const _: () = assert!(offset_of!(SlotHeader, preamble) == 0);
const _: () = assert!(offset_of!(SlotHeader, entry) == 32);
const _: () = assert!(offset_of!(SlotHeader, slot) == 64);
const _: () = assert!(offset_of!(SlotHeader, payload_checksum) == 72);
const _: () = assert!(offset_of!(SlotHeader, key_metadata_checksum) == 80);
const _: () = assert!(offset_of!(SlotHeader, span) == 84);
const _: () = assert!(offset_of!(SlotHeader, checkpoint) == 88);
const _: () = assert!(offset_of!(SlotHeader, reserved) == 96);

/// What [`SlotHeader::encode`] writes.
#[derive(Debug, Clone, Copy)]
pub struct SlotFields<'a> {
    /// Number of the slot.
    pub slot: u64,
    /// Sequence of the write, not 0.
    pub sequence: u64,
    /// Number of the committed checkpoint, not 0.
    pub checkpoint: u64,
    /// Keyed hash of the key.
    pub key_hash: [u8; 16],
    /// The key, at least one byte.
    pub key: &'a [u8],
    /// The caller's metadata.
    pub metadata: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// A slot header that passed every check, with what follows it in its block.
#[derive(Debug, Clone, Copy)]
pub struct SlotView<'a> {
    /// The fixed part.
    pub header: &'a SlotHeader,
    /// The key.
    pub key: &'a [u8],
    /// The caller's metadata.
    pub metadata: &'a [u8],
    /// The payload if it is [inline](ObjectEntry::is_inline), not yet verified.
    pub inline_payload: Option<&'a [u8]>,
}

impl<'a> SlotView<'a> {
    /// The payload, not yet verified. `behind` is what follows the header block,
    /// at least as long as a payload that is not [inline](ObjectEntry::is_inline).
    ///
    /// # Panics
    /// When `behind` is shorter.
    pub fn payload(&self, behind: &'a [u8]) -> &'a [u8] {
        let len = self.header.entry.payload_len.get() as usize;
        self.inline_payload.unwrap_or_else(|| &behind[..len])
    }
}

impl SlotHeader {
    /// Fills `block`, the first of the slot, with the header, the key, the
    /// metadata, the payload if it is inline, and zeroes. Returns the entry of
    /// the object for the index.
    ///
    /// A payload that is not [inline](ObjectEntry::is_inline) is left to the
    /// caller to write, to the second block of the slot and on.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] if key and metadata do not fit into the block
    /// or the payload not into the slot, [`EncodeError::Invalid`] if a value is
    /// out of its bounds.
    pub fn encode(
        block: &mut [u8],
        store: &Superblock,
        fields: &SlotFields<'_>,
    ) -> Result<ObjectEntry, EncodeError> {
        store.check_block_len(block).map_err(EncodeError::Invalid)?;
        check_slot(store, fields.slot).map_err(EncodeError::Invalid)?;

        let block_size = store.block_size.get();
        let header_len = (SLOT_HEADER_LEN as u64)
            .saturating_add(fields.key.len() as u64)
            .saturating_add(fields.metadata.len() as u64);
        fits("the slot header with key and metadata", header_len, block_size.into())?;
        let payload_len = fields.payload.len() as u64;
        let room_inline = u64::from(block_size) - header_len;
        let room_behind = max_payload(store.slot_size.get(), block_size);
        fits("the payload", payload_len, room_inline.max(room_behind))?;

        let entry = ObjectEntry {
            key_hash: fields.key_hash,
            sequence: fields.sequence.into(),
            payload_len: number::<u32>(payload_len)?.into(),
            key_len: number::<u16>(fields.key.len() as u64)?.into(),
            metadata_len: number::<u16>(fields.metadata.len() as u64)?.into(),
        };
        entry.check_bounds(store).map_err(EncodeError::Invalid)?;

        let uuid = &store.preamble.uuid;
        let payload_checksum = payload_checksum(uuid, fields.slot, fields.sequence, fields.payload);
        let header = Self {
            preamble: Preamble::new(&KIND, uuid),
            entry,
            slot: fields.slot.into(),
            payload_checksum: payload_checksum.into(),
            key_metadata_checksum: crc32c([fields.key, fields.metadata]).into(),
            span: U32::new(1),
            checkpoint: fields.checkpoint.into(),
            reserved: [0; 32],
        };
        header.check_bounds(store).map_err(EncodeError::Invalid)?;
        let inline = if entry.is_inline(block_size) { fields.payload } else { &[] };
        let mut rest = &mut *block;
        for part in [header.as_bytes(), fields.key, fields.metadata, inline] {
            let (place, after) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = after;
        }
        clear(rest);
        seal(&mut block[..SLOT_HEADER_LEN]);
        Ok(entry)
    }

    /// Reads the header of this slot from `block`, the first of the slot.
    ///
    /// The payload is not looked at: see [`SlotHeader::verify_payload`]. Nor is
    /// the key hash compared with the key.
    ///
    /// # Errors
    /// The first rule that the block breaks.
    pub fn read<'a>(
        block: &'a [u8],
        store: &Superblock,
        slot: u64,
    ) -> Result<SlotView<'a>, Damage> {
        store.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (header, rest) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a slot header"))?;
        KIND.check(header.as_bytes())?.check_store(&store.preamble.uuid)?;
        if header.slot != slot && !Fault::OtherSlotsAccepted.is_on() {
            return Err(Damage::WrongPlace { found: header.slot.get(), expected: slot });
        }
        check_slot(store, slot).map_err(Damage::Inconsistent)?;
        header.check_bounds(store).map_err(Damage::Inconsistent)?;

        let key_len = header.entry.key_len.get().into();
        let both_len = key_len + usize::from(header.entry.metadata_len);
        let (both, rest) = rest.split_at_checked(both_len).ok_or(TOO_LONG)?;
        check_crc32c(header.key_metadata_checksum, both)?;
        let (key, metadata) = both.split_at_checked(key_len).ok_or(TOO_LONG)?;
        let inline_payload = if header.entry.is_inline(store.block_size.get()) {
            let len = header.entry.payload_len.get() as usize;
            Some(rest.get(..len).ok_or(TOO_LONG)?)
        } else {
            None
        };
        Ok(SlotView { header, key, metadata, inline_payload })
    }

    /// Checks the payload against this header.
    ///
    /// # Errors
    /// [`Damage::Inconsistent`] if it has not the length that the header says,
    /// [`Damage::Checksum`] if it is not the payload written with the header.
    pub fn verify_payload(&self, payload: &[u8]) -> Result<(), Damage> {
        ensure(
            payload.len() as u64 == u64::from(self.entry.payload_len),
            "the payload has another length than its header says",
        )
        .map_err(Damage::Inconsistent)?;
        let sequence = self.entry.sequence.get();
        let computed = payload_checksum(&self.preamble.uuid, self.slot.get(), sequence, payload);
        if self.payload_checksum == computed {
            Ok(())
        } else {
            Err(Damage::Checksum { stored: self.payload_checksum.get(), computed })
        }
    }

    fn check_bounds(&self, store: &Superblock) -> Result<(), &'static str> {
        self.entry.check_bounds(store)?;
        ensure(self.span == 1, "the span is not 1")?;
        check_checkpoint(self.checkpoint.get())?;
        ensure_zero(&self.reserved)
    }
}

/// The longest payload in bytes that fits behind the header block of a slot: 0
/// if the slot is a single block, which takes what [fits inline](fits_inline).
pub fn max_payload(slot_size: u64, block_size: u32) -> u64 {
    slot_size.saturating_sub(block_size.into())
}

/// Whether a payload of this length in bytes fits into the header block, beside
/// a key and metadata of these lengths. If it does, it lies there.
pub fn fits_inline(key_len: usize, metadata_len: usize, payload_len: u64, block_size: u32) -> bool {
    (SLOT_HEADER_LEN as u64)
        .saturating_add(key_len as u64)
        .saturating_add(metadata_len as u64)
        .saturating_add(payload_len)
        <= block_size.into()
}

/// Fills `bytes` with zeroes, unless they are zero already.
///
/// Behind the header of an object they mostly are, in memory that had another header before. To read that is
/// cheaper than to write it: the device has read the lines, so they are in other caches too.
fn clear(bytes: &mut [u8]) {
    // All are zero if the first is, and each equals the next.
    let is_zero = bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1];
    if !is_zero {
        bytes.fill(0);
    }
}

fn check_slot(store: &Superblock, slot: u64) -> Result<(), &'static str> {
    ensure(slot < store.slot_count.get(), "the store has no such slot")
}

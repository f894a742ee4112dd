//! The header of a slot: its objects, or the deleted keys.

use core::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use super::checksum::header_hash;
use super::entry::Entry;
use super::layout::Layout;
use super::sizes::SLOT_HEADER_LEN;
use super::slot_header::{KIND, OBJECTS, SlotHeader, SlotPlace};
use super::slot_view::SlotView;
use crate::format::damage::{ensure, fits, number};
use crate::format::preamble::seal;
use crate::format::{Damage, EncodeError};

/// Offset of the first byte that the keyed hash covers: after the hash itself.
const HASHED: usize = offset_of!(SlotHeader, generation);

/// One object of a slot, for [`SlotHeader::encode`].
#[derive(Clone, Copy, Debug)]
pub struct SlotObject<'a> {
    /// Its entry.
    pub entry: Entry,
    /// Its key.
    pub key: &'a [u8],
    /// Its metadata.
    pub metadata: &'a [u8],
}

impl SlotHeader {
    /// Fills `block`, the first of the slot, with the header of these objects, and zeroes.
    ///
    /// The caller writes the payloads, except an [inline](Entry::is_inline) one: `inline` is that
    /// payload, or empty.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] if the block does not hold them, [`EncodeError::Invalid`] if
    /// [`SlotHeader::read`] would refuse the result, or if the lengths of an entry differ from
    /// those of its key, its metadata or its inline payload.
    pub fn encode<'a>(
        block: &mut [u8],
        layout: &Layout,
        place: &SlotPlace,
        objects: impl ExactSizeIterator<Item = SlotObject<'a>>,
        inline: &[u8],
    ) -> Result<(), EncodeError> {
        const LENGTHS: &str = "an entry has another length than its key, metadata or payload";
        layout.check_block_len(block).map_err(EncodeError::Invalid)?;
        let (count, block_size) = (objects.len(), block.len() as u64);
        let names_start = (size_of::<Entry>() as u64)
            .saturating_mul(count as u64)
            .saturating_add(SLOT_HEADER_LEN as u64);
        fits("the entries of the slot", names_start, block_size)?;

        let (mut entry_at, mut at) = (SLOT_HEADER_LEN, number::<u32>(names_start)? as usize);
        for SlotObject { entry, key, metadata } in objects {
            let lens = (u64::from(entry.key_len.get()), u64::from(entry.metadata_len.get()));
            ensure(lens == (key.len() as u64, metadata.len() as u64), LENGTHS)
                .map_err(EncodeError::Invalid)?;
            let end = at + key.len() + metadata.len();
            fits("the slot header with keys and metadata", end as u64, block_size)?;
            block[entry_at..entry_at + size_of::<Entry>()].copy_from_slice(entry.as_bytes());
            entry_at += size_of::<Entry>();
            block[at..at + key.len()].copy_from_slice(key);
            block[at + key.len()..end].copy_from_slice(metadata);
            at = end;
            if entry.is_inline() {
                let is_same = entry.payload_len.get() as usize == inline.len();
                ensure(is_same, LENGTHS).map_err(EncodeError::Invalid)?;
            } else {
                ensure(inline.is_empty(), LENGTHS).map_err(EncodeError::Invalid)?;
            }
        }
        fits("the slot header with its payload", (at + inline.len()) as u64, block_size)?;
        block[at..at + inline.len()].copy_from_slice(inline);
        clear(&mut block[at + inline.len()..]);

        let header =
            Self::new(layout, place, OBJECTS, number(count as u64)?, number(at as u64)?, 0);
        header.finish(block, layout)
    }

    /// Reads the header of the slot in this block of this segment.
    ///
    /// Does not read payloads (see [`Entry::verify_payload`]), nor compare key hashes with keys.
    /// The caller checks the generation, for instance with [`SlotView::of_generation`].
    ///
    /// # Errors
    /// The first rule that the block breaks. [`Damage::WrongPlace`] reports the segment first, then
    /// the block.
    pub fn read<'a>(
        block: &'a [u8],
        layout: &Layout,
        segment: u32,
        number: u32,
    ) -> Result<SlotView<'a>, Damage> {
        layout.check_block_len(block).map_err(Damage::Inconsistent)?;
        let (header, _) = Self::ref_from_prefix(block)
            .map_err(|_| Damage::Inconsistent("the block is shorter than a slot header"))?;
        KIND.check(header.as_bytes())?.check_store(&layout.member)?;
        let hashed = block.get(HASHED..header.len.get() as usize).ok_or(Damage::Inconsistent(
            "the keys and metadata of the slot do not end within its block",
        ))?;
        let computed = header_hash(layout, hashed);
        if header.keyed_hash != computed {
            return Err(Damage::Checksum { stored: header.keyed_hash.get(), computed });
        }
        for (found, expected) in [(header.segment, segment), (header.block, number)] {
            if found != expected {
                return Err(Damage::WrongPlace {
                    found: found.get().into(),
                    expected: expected.into(),
                });
            }
        }
        SlotView::check(block, header, layout).map_err(Damage::Inconsistent)
    }

    /// Writes this header and its hashes into a block whose other bytes are complete, after
    /// checking the rules.
    pub(super) fn finish(mut self, block: &mut [u8], layout: &Layout) -> Result<(), EncodeError> {
        SlotView::check(block, &self, layout).map_err(EncodeError::Invalid)?;
        let fixed = block.first_chunk_mut::<SLOT_HEADER_LEN>();
        let fixed = fixed.ok_or(EncodeError::Invalid("the block is shorter than a slot header"))?;
        fixed.copy_from_slice(self.as_bytes());
        let hashed = block.get(HASHED..self.len.get() as usize).unwrap_or_default();
        self.keyed_hash = header_hash(layout, hashed).into();
        let (fixed, _) = block.split_at_mut(SLOT_HEADER_LEN);
        fixed.copy_from_slice(self.as_bytes());
        seal(fixed);
        Ok(())
    }
}

/// Fills `bytes` with zeroes, unless they are zero already.
///
/// Memory that had another header before is mostly zero after the header of a slot. Reading it is
/// cheaper than writing it: the device has read the cache lines, so other caches share them.
pub(super) fn clear(bytes: &mut [u8]) {
    // All are zero if the first is, and each equals the next.
    let is_zero = bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1];
    if !is_zero {
        bytes.fill(0);
    }
}

//! Staging puts: which transfers write a number of slots.

use raw_block_core::{WriteAt, WriteOptions};

use super::put::Put;
use crate::Error;
use crate::segments::format::{
    Entry, PayloadPlace, SegmentHeader, SlotHeader, SlotObject, SlotPlace, payload_checksum,
};
use crate::segments::placement::Placement;
use crate::segments::segment_header;
use crate::segments::state::StoreState;
use crate::segments::state::index::KeyHash;
use crate::segments::state::space::{Allocated, Allocation, Slot, Stream};

/// Payload bytes of a slot above which its payloads are submitted before their checksums are known, and its header
/// after them. Below, another submission costs more than the checksums.
const LATE_HEADER_LEN: u64 = 256 << 10;

/// What a transfer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The header of the segment of this slot.
    SegmentHeader(usize),
    /// The header of this slot.
    SlotHeader(usize),
    /// The payload of this object of the allocation, which is in this slot.
    Payload { slot: usize, object: usize },
}

/// Objects whose keys all differ, out of a longer batch.
#[derive(Clone, Copy)]
pub(super) struct PutBatch<'a> {
    /// The longer batch.
    pub(super) puts: &'a [Put<'a>],
    /// The position of each object in it.
    pub(super) positions: &'a [usize],
    /// The hash of the key of each object.
    pub(super) hashes: &'a [KeyHash],
}

impl PutBatch<'_> {
    /// The position of an object in the longer batch.
    pub(super) fn position(&self, index: u32) -> usize {
        self.positions[index as usize]
    }
}

/// The transfers that write the slots of an allocation.
pub(super) struct Stage<'a> {
    state: &'a StoreState,
    batch: &'a PutBatch<'a>,
    pub(super) allocation: &'a Allocation,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        state: &'a StoreState,
        batch: &'a PutBatch<'a>,
        allocation: &'a Allocation,
    ) -> Self {
        Self { state, batch, allocation }
    }

    fn put(&self, object: &Allocated) -> &'a Put<'a> {
        &self.batch.puts[self.batch.position(object.index)]
    }

    /// Blocks of memory that the headers take: one for each slot, and one for each segment that was opened.
    pub(super) fn header_blocks(&self) -> usize {
        let opened = self.allocation.slots.iter().filter(|slot| slot.opened.is_some()).count();
        self.allocation.slots.len() + opened
    }

    /// Whether the header of a slot is written after its payloads.
    pub(super) fn is_late(&self, slot: &Slot) -> bool {
        let payloads: u64 = self
            .allocation
            .objects_of(slot)
            .iter()
            .map(|object| u64::from(object.demand.payload_len))
            .sum();
        payloads > LATE_HEADER_LEN
    }

    /// The entries of the objects of a slot, with the checksums of their payloads.
    pub(super) fn entries(&self, slot: &Slot, entries: &mut [Entry]) {
        for (entry, object) in entries.iter_mut().zip(self.allocation.objects_of(slot)) {
            let put = self.put(object);
            let place = PayloadPlace {
                segment: slot.segment,
                generation: slot.generation,
                block: object.block,
                sequence: object.sequence,
            };
            *entry = Entry {
                key_hash: self.batch.hashes[object.index as usize],
                sequence: object.sequence.into(),
                checksum: payload_checksum(&self.state.layout, &place, put.payload).into(),
                payload_len: object.demand.payload_len.into(),
                key_len: len_of(put.key).into(),
                metadata_len: len_of(put.metadata).into(),
                block: object.block.into(),
                blocks_back: object.blocks_back.into(),
            };
        }
    }

    /// Fills the header block of a slot.
    pub(super) fn encode(
        &self,
        block: &mut [u8],
        slot: &Slot,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let objects = self.allocation.objects_of(slot);
        let inline = match objects {
            [object] if object.inline => self.put(object).payload,
            _ => &[],
        };
        let named = entries.iter().zip(objects).map(|(&entry, object)| {
            let put = self.put(object);
            SlotObject { entry, key: put.key, metadata: put.metadata }
        });
        SlotHeader::encode(block, &self.state.layout, &slot_place(slot), named, inline)?;
        Ok(())
    }

    /// Fills the header block of a segment that was opened.
    pub(super) fn encode_segment_header(&self, block: &mut [u8], slot: &Slot) -> Result<(), Error> {
        if let Some(opened) = &slot.opened {
            SegmentHeader::encode(block, &self.state.layout, &segment_header::fields(opened))?;
        }
        Ok(())
    }

    /// The write of a header block.
    pub(super) fn write_header<'b>(&self, slot: &Slot, block: u32, bytes: &'b [u8]) -> WriteAt<'b> {
        let offset = self.state.layout.block_offset(slot.segment, block);
        WriteAt::new(offset, bytes).with_options(self.options(slot))
    }

    /// The write of a payload that has blocks of its own.
    pub(super) fn write_payload(&self, slot: &Slot, object: &Allocated) -> Option<WriteAt<'a>> {
        if object.blocks_back == 0 {
            return None;
        }
        let payload = self.put(object).payload;
        let block_size = self.state.layout.block_size as usize;
        let offset = self.state.layout.block_offset(slot.segment, object.block);
        let len = payload.len().next_multiple_of(block_size) as u64;
        Some(WriteAt::new(offset, payload).padded_to(len).with_options(self.options(slot)))
    }

    fn options(&self, slot: &Slot) -> WriteOptions {
        let stream = if slot.tombstone { Stream::Tombstones } else { Stream::New };
        let stream = slot.opened.as_ref().map_or(stream, |opened| opened.stream);
        Placement::Stream(stream).options(self.state.dispatcher.geometry())
    }
}

/// Where a slot lies, for its header.
pub(super) fn slot_place(slot: &Slot) -> SlotPlace {
    SlotPlace {
        segment: slot.segment,
        generation: slot.generation,
        block: slot.block,
        blocks: slot.blocks,
        first_entry: slot.first_number,
    }
}

/// The length of a key or of metadata, which was checked.
fn len_of(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

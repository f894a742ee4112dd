//! Staging puts: which transfers write a number of slots.

use raw_block_core::{WriteAt, WriteOptions};

use super::put::Put;
use crate::Error;
use crate::format::{Entry, SegmentHeader, payload_checksum};
use crate::mutant;
use crate::placement::Placement;
use crate::segment_header;
use crate::slot_header::{self, Named};
use crate::state::StoreState;
use crate::state::index::KeyHash;
use crate::state::space::{Allocated, Allocation, Slot, Stream};

/// Payload bytes of a slot above which its payloads are submitted before their checksums are known, and its header
/// after them. Below, another submission costs more than the checksums.
fn late_header_len() -> u64 {
    mutant::limit(256 << 10, 2 << 10) as u64
}

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
    /// The hash of the key of each object of the longer batch.
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

    /// Blocks of memory that headers take which are submitted with their payloads, those of opened segments included; and
    /// that headers take which are submitted after their payloads.
    pub(super) fn header_blocks(&self) -> (usize, usize) {
        let slots = &self.allocation.slots;
        let opened = slots.iter().filter(|slot| slot.opened.is_some()).count();
        let late = slots.iter().filter(|slot| self.is_late(slot)).count();
        (slots.len() - late + opened, late)
    }

    /// Fills the header blocks that are submitted with their payloads: of each slot that of its segment, if it was
    /// opened, and its own.
    pub(super) fn encode_early(
        &self,
        memory: &mut [u8],
        entries: &mut [Entry],
    ) -> Result<(), Error> {
        let mut blocks = memory.chunks_exact_mut(self.block_size());
        for slot in &self.allocation.slots {
            if let Some(opened) = &slot.opened
                && let Some(block) = blocks.next()
            {
                SegmentHeader::encode(block, &self.state.layout, &segment_header::fields(opened))?;
            }
            if !self.is_late(slot)
                && let Some(block) = blocks.next()
            {
                self.encode(block, slot, &mut entries[slot.objects.clone()])?;
            }
        }
        Ok(())
    }

    /// Fills the other header blocks.
    pub(super) fn encode_late(
        &self,
        memory: &mut [u8],
        entries: &mut [Entry],
    ) -> Result<(), Error> {
        for ((_, slot), block) in self.late().zip(memory.chunks_exact_mut(self.block_size())) {
            self.encode(block, slot, &mut entries[slot.objects.clone()])?;
        }
        Ok(())
    }

    /// What is submitted first: the header blocks that [`encode_early`](Self::encode_early) filled, and all payloads.
    pub(super) fn early_writes<'b>(&'b self, memory: &'b [u8]) -> (Vec<WriteAt<'b>>, Vec<Target>) {
        let most = self.allocation.objects.len() + 2 * self.allocation.slots.len();
        let (mut writes, mut targets) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut blocks = memory.chunks_exact(self.block_size());
        for (at, slot) in self.allocation.slots.iter().enumerate() {
            if slot.opened.is_some()
                && let Some(block) = blocks.next()
            {
                writes.push(self.write_header(slot, 0, block));
                targets.push(Target::SegmentHeader(at));
            }
            if !self.is_late(slot)
                && let Some(block) = blocks.next()
            {
                writes.push(self.write_header(slot, slot.block, block));
                targets.push(Target::SlotHeader(at));
            }
            for object in slot.objects.clone() {
                if let Some(write) = self.write_payload(slot, &self.allocation.objects[object]) {
                    writes.push(write);
                    targets.push(Target::Payload { slot: at, object });
                }
            }
        }
        (writes, targets)
    }

    /// What is submitted after it: the header blocks that [`encode_late`](Self::encode_late) filled.
    pub(super) fn late_writes<'b>(&self, memory: &'b [u8]) -> (Vec<WriteAt<'b>>, Vec<Target>) {
        let blocks = memory.chunks_exact(self.block_size());
        let writes = self.late().zip(blocks).map(|((at, slot), block)| {
            (self.write_header(slot, slot.block, block), Target::SlotHeader(at))
        });
        writes.unzip()
    }

    fn block_size(&self) -> usize {
        self.state.layout.block_size as usize
    }

    /// The slots whose headers are written after their payloads.
    fn late(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.allocation.slots.iter().enumerate().filter(|(_, slot)| self.is_late(slot))
    }

    fn is_late(&self, slot: &Slot) -> bool {
        let objects = self.allocation.objects_of(slot).iter();
        let payloads: u64 = objects.map(|object| u64::from(object.demand.payload_len)).sum();
        payloads > late_header_len()
    }

    /// Computes the checksums of the payloads of a slot, and fills its header block and the entries of its objects.
    fn encode(&self, block: &mut [u8], slot: &Slot, entries: &mut [Entry]) -> Result<(), Error> {
        let objects = self.allocation.objects_of(slot);
        for (entry, object) in entries.iter_mut().zip(objects) {
            *entry = self.entry(slot, object);
        }
        let inline = match objects {
            [object] if object.inline => self.put(object).payload,
            _ => &[],
        };
        let named = entries.iter().zip(objects);
        let named = named.map(|(&entry, object)| (entry, self.named(object)));
        slot_header::encode(self.state, slot, block, named, inline)
    }

    fn named(&self, object: &Allocated) -> Named<'a> {
        let Put { key, metadata, .. } = *self.put(object);
        Named { key_hash: self.batch.hashes[self.batch.position(object.index)], key, metadata }
    }

    fn entry(&self, slot: &Slot, object: &Allocated) -> Entry {
        let place = slot_header::payload_place(slot, object);
        let checksum = payload_checksum(&self.state.layout, &place, self.put(object).payload);
        slot_header::entry(object, &self.named(object), checksum)
    }

    fn write_header<'b>(&self, slot: &Slot, block: u32, bytes: &'b [u8]) -> WriteAt<'b> {
        let offset = self.state.layout.block_offset(slot.segment, block);
        WriteAt::new(offset, bytes).with_options(self.options(slot))
    }

    /// The write of a payload that does not lie in the slot header.
    fn write_payload(&self, slot: &Slot, object: &Allocated) -> Option<WriteAt<'a>> {
        if object.blocks_back == 0 {
            return None;
        }
        let payload = self.put(object).payload;
        let offset = self.state.layout.block_offset(slot.segment, object.block);
        let len = payload.len().next_multiple_of(self.block_size()) as u64;
        Some(WriteAt::new(offset, payload).padded_to(len).with_options(self.options(slot)))
    }

    fn options(&self, slot: &Slot) -> WriteOptions {
        let stream = if slot.tombstone { Stream::Tombstones } else { Stream::New };
        let stream = slot.opened.as_ref().map_or(stream, |opened| opened.stream);
        Placement::Stream(stream).options(self.state.dispatcher.geometry())
    }
}

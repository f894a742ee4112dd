//! Staging puts: which transfers write a number of slots.

use std::borrow::Cow;

use raw_block_core::{WriteAt, WriteOptions};

use super::request::Put;
use crate::Error;
use crate::format::{Entry, SegmentHeader};
use crate::io::Placement;
use crate::io::segment_header;
use crate::io::slot_header::{self, ObjectName};
use crate::mutant;
use crate::state::StoreState;
use crate::state::index::KeyHash;
use crate::state::space::{AllocatedObject, Allocation, Slot, Stream};

/// Payload bytes of a slot above which its payloads are submitted before their checksums are known,
/// and its header while they are in flight. Below, another submission costs more than the
/// checksums: 512 KiB took 1.13 times as long with it on a virtio disk, 2 MiB as long.
fn late_header_len() -> usize {
    mutant::limit(1 << 20, 2 << 10)
}

/// What a transfer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteTarget {
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

    fn put(&self, object: &AllocatedObject) -> &'a Put<'a> {
        &self.batch.puts[self.batch.position(object.index)]
    }

    /// Bytes of the header blocks that are submitted with the payloads, and of those that are
    /// submitted later.
    pub(super) fn memory(&self) -> (usize, usize) {
        let slots = &self.allocation.slots;
        let opened = slots.iter().filter(|slot| slot.opened.is_some()).count();
        let late = self.late().count();
        ((opened + slots.len() - late) * self.block_size(), late * self.block_size())
    }

    /// Fills the header blocks that are submitted with the payloads: of each slot that of its
    /// segment, if it was opened, and its own.
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

    /// What is submitted first, in order.
    pub(super) fn early_targets(&self) -> impl Iterator<Item = WriteTarget> {
        self.allocation.slots.iter().enumerate().flat_map(move |(at, slot)| {
            let segment_header = slot.opened.as_ref().map(|_| WriteTarget::SegmentHeader(at));
            let slot_header = (!self.is_late(slot)).then_some(WriteTarget::SlotHeader(at));
            let payloads = slot.objects.clone().filter_map(move |object| {
                let has_blocks = self.allocation.objects[object].blocks_back > 0;
                has_blocks.then_some(WriteTarget::Payload { slot: at, object })
            });
            segment_header.into_iter().chain(slot_header).chain(payloads)
        })
    }

    /// The transfers of what is submitted first: the header blocks that
    /// [`encode_early`](Self::encode_early) filled, and all payloads.
    pub(super) fn early_writes<'b>(&'b self, memory: &'b [u8]) -> Vec<WriteAt<'b>> {
        let most = self.allocation.objects.len() + 2 * self.allocation.slots.len();
        let mut writes = Vec::with_capacity(most);
        let mut blocks = memory.chunks_exact(self.block_size());
        for target in self.early_targets() {
            let slot = self.slot(target);
            writes.extend(match target {
                WriteTarget::SegmentHeader(_) => {
                    blocks.next().map(|block| self.write_header(slot, 0, block))
                }
                WriteTarget::SlotHeader(_) => {
                    blocks.next().map(|block| self.write_header(slot, slot.block, block))
                }
                WriteTarget::Payload { object, .. } => {
                    Some(self.write_payload(slot, &self.allocation.objects[object]))
                }
            });
        }
        writes
    }

    /// The transfers of what is submitted after it: the header blocks that
    /// [`encode_late`](Self::encode_late) filled.
    pub(super) fn late_writes<'b>(&self, memory: &'b [u8]) -> Vec<WriteAt<'b>> {
        let blocks = self.late().zip(memory.chunks_exact(self.block_size()));
        blocks.map(|((_, slot), block)| self.write_header(slot, slot.block, block)).collect()
    }

    pub(super) fn late_targets(&self) -> impl Iterator<Item = WriteTarget> {
        self.late().map(|(at, _)| WriteTarget::SlotHeader(at))
    }

    /// The slot of a transfer.
    pub(super) fn slot(&self, target: WriteTarget) -> &'a Slot {
        let (WriteTarget::SegmentHeader(at)
        | WriteTarget::SlotHeader(at)
        | WriteTarget::Payload { slot: at, .. }) = target;
        &self.allocation.slots[at]
    }

    fn block_size(&self) -> usize {
        self.state.layout.block_size as usize
    }

    /// The slots whose headers are submitted later than their payloads.
    fn late(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.allocation.slots.iter().enumerate().filter(|(_, slot)| self.is_late(slot))
    }

    /// Bytes of the payloads of a slot, in whole blocks.
    fn payload_len(&self, slot: &Slot) -> usize {
        (slot.blocks as usize - 1) * self.block_size()
    }

    fn is_late(&self, slot: &Slot) -> bool {
        self.payload_len(slot) > late_header_len()
    }

    /// Computes the checksums of the payloads of a slot, and fills its header block and the entries
    /// of its objects.
    fn encode(&self, block: &mut [u8], slot: &Slot, entries: &mut [Entry]) -> Result<(), Error> {
        let objects = self.allocation.objects_of(slot);
        for (entry, object) in entries.iter_mut().zip(objects) {
            *entry = self.entry(slot, object);
        }
        let inline = match objects {
            [object] if object.inline => self.put(object).payload.contiguous(),
            _ => Cow::default(),
        };
        let named = entries.iter().zip(objects);
        let named = named.map(|(&entry, object)| (entry, self.named(object)));
        slot_header::encode(self.state, slot, block, named, &inline)
    }

    fn named(&self, object: &AllocatedObject) -> ObjectName<'a> {
        let Put { key, metadata, .. } = *self.put(object);
        ObjectName { key_hash: self.batch.hashes[self.batch.position(object.index)], key, metadata }
    }

    fn entry(&self, slot: &Slot, object: &AllocatedObject) -> Entry {
        let place = slot_header::payload_place(slot, object);
        let checksum = place.checksum(&self.state.layout, self.put(object).payload.hash());
        slot_header::entry(object, &self.named(object), checksum)
    }

    fn write_header<'b>(&self, slot: &Slot, block: u32, bytes: &'b [u8]) -> WriteAt<'b> {
        let offset = self.state.layout.block_offset(slot.segment, block);
        WriteAt::new(offset, bytes).with_options(self.options(slot))
    }

    fn write_payload(&self, slot: &Slot, object: &AllocatedObject) -> WriteAt<'a> {
        let payload = self.put(object).payload;
        let offset = self.state.layout.block_offset(slot.segment, object.block);
        let len = payload.len().next_multiple_of(self.block_size()) as u64;
        payload.write_at(offset).padded_to(len).with_options(self.options(slot))
    }

    fn options(&self, slot: &Slot) -> WriteOptions {
        let stream = if slot.tombstone { Stream::Tombstones } else { Stream::New };
        let stream = slot.opened.as_ref().map_or(stream, |opened| opened.stream);
        Placement::Stream(stream).options(self.state.dispatcher.geometry())
    }
}

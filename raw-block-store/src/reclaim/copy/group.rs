//! Copying several slots at once: one batch of reads, one of writes.

use raw_block_core::ReadAt;

use super::copier::{Copier, CopyOutcome, ObjectCopy};
use super::source::Fate;
use crate::Error;
use crate::format::{ObjectView, SlotHeader, SlotView, payload_hash};
use crate::io::slot_header::{self, ObjectName};
use crate::state::Scratch;
use crate::state::index::Located;
use crate::state::space::Slot;

/// Copies the objects of these slots.
///
/// # Errors
/// [`Error::Device`] if there is no memory, [`Error::Encode`].
pub(super) fn copy(
    copier: &Copier<'_>,
    slots: &[Slot],
    copies: &mut [CopyOutcome],
) -> Result<(), Error> {
    let mut group = Group::new(copier, slots)?;
    group.read();
    let Group { mut bytes, header_blocks, headers, mut objects, .. } = group;
    let headers = Headers::new(copier, &header_blocks, &headers);
    judge(copier, &headers, &mut bytes, &mut objects);
    let mut unreadable = objects.iter().filter(|of| of.fate == Fate::Unreadable).peekable();
    if unreadable.peek().is_some() {
        unreadable.for_each(|object| copies[object.at] = CopyOutcome::Unreadable);
        return Ok(());
    }
    encode(copier, slots, &headers, &mut bytes, &objects, copies)?;
    let mut writes = Vec::with_capacity(slots.len());
    let mut rest = &bytes[..];
    for slot in slots {
        let (bytes, later) = rest.split_at(copier.bytes(slot));
        writes.push(copier.write_at(slot, slot.block, bytes));
        rest = later;
    }
    let results = copier.state.dispatcher.write_buffers(&writes);
    for (slot, result) in slots.iter().zip(results) {
        match result {
            Ok(()) => copier.state.write_succeeded(),
            Err(error) => copier.write_failed(slot, &error, copies),
        }
    }
    Ok(())
}

/// Slots that are copied at once.
struct Group<'a> {
    copier: &'a Copier<'a>,
    /// The slots, one after the other.
    bytes: Scratch<'a>,
    /// The header blocks that name the objects where they are now, in order.
    header_blocks: Vec<u32>,
    headers: Scratch<'a>,
    objects: Vec<Object<'a>>,
}

struct Object<'a> {
    copying: ObjectCopy<'a>,
    /// Its position in the plan.
    at: usize,
    slot: &'a Slot,
    /// Where its payload begins in the bytes of the group, unless that is inline.
    offset: usize,
    fate: Fate,
    checksum: u64,
}

impl<'a> Group<'a> {
    fn new(copier: &'a Copier<'a>, slots: &'a [Slot]) -> Result<Self, Error> {
        let block_size = copier.block_size();
        let mut objects = Vec::new();
        let mut start = 0;
        for slot in slots {
            for (at, copying) in slot.objects.clone().zip(copier.objects(slot)) {
                let block = (copying.to.block - slot.block) as usize;
                objects.push(Object {
                    copying,
                    at,
                    slot,
                    offset: start + block * block_size,
                    fate: Fate::Move,
                    checksum: 0,
                });
            }
            start += copier.bytes(slot);
        }
        let mut header_blocks: Vec<u32> =
            objects.iter().map(|object| object.copying.from.object.entry.header_block()).collect();
        header_blocks.sort_unstable();
        header_blocks.dedup();
        let scratch = &copier.state.scratch;
        let headers = scratch.take(header_blocks.len() * block_size)?;
        Ok(Self { copier, bytes: scratch.take(start)?, header_blocks, headers, objects })
    }

    /// Reads payloads to where they are written from, and headers. What cannot be read is read once
    /// more.
    fn read(&mut self) {
        let Self { copier, bytes, header_blocks, headers, objects, .. } = self;
        let block_size = copier.block_size();
        let source = &copier.source;
        let mut reads: Vec<ReadAt<'_>> = Vec::with_capacity(objects.len() + header_blocks.len());
        for (&block, bytes) in header_blocks.iter().zip(headers.chunks_exact_mut(block_size)) {
            reads.push(source.read_at(block, bytes));
        }
        let (mut rest, mut start) = (&mut bytes[..], 0);
        let mut readers = Vec::with_capacity(objects.len());
        for (position, object) in objects.iter().enumerate() {
            let entry = &object.copying.from.object.entry;
            let len = copier.payload_len(entry);
            if len > 0 {
                let (_, after) = rest.split_at_mut(object.offset - start);
                let (payload, after) = after.split_at_mut(len);
                reads.push(source.read_at(entry.block.get(), payload));
                readers.push(position);
                (rest, start) = (after, object.offset + len);
            }
        }
        let results = copier.state.dispatcher.read_buffers(&mut reads);
        let mut results = results.into_iter();
        for (at, result) in results.by_ref().take(header_blocks.len()).enumerate() {
            let block = &mut headers[at * block_size..(at + 1) * block_size];
            if result.is_err() && !source.read_again(header_blocks[at], block) {
                // Zeroes are no header.
                block.fill(0);
            }
        }
        for (position, result) in readers.into_iter().zip(results) {
            let object = &mut objects[position];
            let entry = object.copying.from.object.entry;
            let len = copier.payload_len(&entry);
            let payload = &mut bytes[object.offset..object.offset + len];
            if result.is_err() && !source.read_again(entry.block.get(), payload) {
                object.fate = source.unreadable();
            }
        }
    }
}

/// The headers of the slots that objects are moved out of.
struct Headers<'h> {
    blocks: &'h [u32],
    /// Of each block its header, if it was read and is the one that was written there.
    views: Vec<Option<SlotView<'h>>>,
}

impl<'h> Headers<'h> {
    fn new(copier: &Copier<'_>, blocks: &'h [u32], bytes: &'h [u8]) -> Self {
        let (layout, source) = (&copier.state.layout, &copier.source);
        let view = |(&number, block): (&u32, &'h [u8])| {
            let view = SlotHeader::read(block, layout, source.segment, number);
            view.and_then(|view| view.of_generation(source.generation())).ok()
        };
        let views = blocks.iter().zip(bytes.chunks_exact(copier.block_size())).map(view);
        Self { blocks, views: views.collect() }
    }

    /// What a header says of an object.
    fn object(&self, object: &Located) -> Option<ObjectView<'h>> {
        let at = self.blocks.binary_search(&object.entry.header_block()).ok()?;
        self.views.get(at)?.as_ref()?.object(object.place.number)
    }
}

/// Verifies the payloads, and computes their checksums at the new places.
fn judge(copier: &Copier<'_>, headers: &Headers<'_>, bytes: &mut [u8], objects: &mut [Object<'_>]) {
    let block_size = copier.block_size();
    for object in objects.iter_mut().filter(|object| object.fate == Fate::Move) {
        let ObjectCopy { from, to } = object.copying;
        let entry = &from.object.entry;
        let Some(named) = headers.object(&from.object) else {
            object.fate = copier.source.unreadable();
            continue;
        };
        let len = entry.payload_len.get() as usize;
        let hash = if let Some(inline) = named.payload {
            payload_hash(inline)
        } else {
            let end = object.offset + len.next_multiple_of(block_size);
            let blocks = &mut bytes[object.offset..end];
            let mut hash = payload_hash(&blocks[..len]);
            if !copier.source.is_intact(entry, hash) {
                copier.source.read_again(entry.block.get(), blocks);
                hash = payload_hash(&blocks[..len]);
            }
            blocks[len..].fill(0);
            hash
        };
        if !copier.source.is_intact(entry, hash) {
            object.fate = copier.source.damaged(&from.object);
        }
        let place = slot_header::payload_place(object.slot, to);
        object.checksum = place.checksum(&copier.state.layout, hash);
    }
}

/// Fills the headers of the slots, and notes what was copied. An object that is dropped keeps its
/// number, with a checksum that nothing matches.
fn encode(
    copier: &Copier<'_>,
    slots: &[Slot],
    headers: &Headers<'_>,
    bytes: &mut [u8],
    objects: &[Object<'_>],
    copies: &mut [CopyOutcome],
) -> Result<(), Error> {
    let unknown = vec![0; copier.block_size()];
    let mut objects = objects.iter().peekable();
    let mut rest = bytes;
    for slot in slots {
        let (block, later) = rest.split_at_mut(copier.bytes(slot));
        rest = later;
        let (mut named, mut inline) = (Vec::with_capacity(slot.objects.len()), &[][..]);
        while let Some(object) = objects.next_if(|object| slot.objects.contains(&object.at)) {
            let from = &object.copying.from.object.entry;
            let view = headers.object(&object.copying.from.object);
            let (key, metadata) = view.map_or_else(
                || {
                    let lens = (from.key_len.get().into(), from.metadata_len.get().into());
                    (&unknown[..lens.0], &unknown[..lens.1])
                },
                |view| (view.key, view.metadata),
            );
            if from.is_inline() {
                let len = from.payload_len.get() as usize;
                inline = view.and_then(|view| view.payload).unwrap_or(&unknown[..len]);
            }
            let of = ObjectName { key_hash: from.key_hash, key, metadata };
            let entry = copier.entry(object.copying, &of, object.checksum, object.fate);
            named.push((entry, of));
            copies[object.at] = match object.fate {
                Fate::Drop | Fate::Unreadable => CopyOutcome::Dropped,
                Fate::Move => CopyOutcome::Written { entry, damaged: false },
                Fate::MoveDamaged => CopyOutcome::Written { entry, damaged: true },
            };
        }
        let block = &mut block[..copier.block_size()];
        slot_header::encode(copier.state, slot, block, named.into_iter(), inline)?;
    }
    Ok(())
}

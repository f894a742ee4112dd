//! Where the slots of a store lie on its device.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ops::Range;

use raw_block_store::format::{Layout, SegmentHeader, SlotHeader, Superblock};

/// A slot of an open or full segment. Ranges are in bytes of the device.
#[derive(Clone, Debug)]
pub(crate) struct FoundSlot {
    pub(crate) segment: u32,
    pub(crate) generation: u64,
    /// The block of its header within the segment.
    pub(crate) block: u32,
    pub(crate) blocks: u32,
    pub(crate) first_entry: u32,
    /// The block of its header.
    pub(crate) header: Range<u64>,
    /// Empty in a slot of tombstones.
    pub(crate) objects: Vec<FoundObject>,
}

/// An object of a slot.
#[derive(Clone, Debug)]
pub(crate) struct FoundObject {
    pub(crate) key: Vec<u8>,
    pub(crate) sequence: u64,
    /// The blocks of the payload; the bytes of an inline one.
    pub(crate) payload: Range<u64>,
    pub(crate) is_inline: bool,
}

impl FoundSlot {
    pub(crate) fn is_tombstone(&self) -> bool {
        self.objects.is_empty()
    }
}

/// The copy of the superblock at this offset of an image.
pub(crate) fn superblock_at(image: &[u8], offset: u64) -> Superblock {
    let start = usize::try_from(offset).unwrap();
    *Superblock::read(&image[start..start + 4096]).unwrap()
}

/// The layout of the store on an image.
pub(crate) fn layout_of(image: &[u8]) -> Layout {
    Layout::of(&superblock_at(image, 0))
}

/// A block of a segment, as a range of bytes of the device.
pub(crate) fn block_range(layout: &Layout, segment: u32, block: u32) -> Range<u64> {
    let start = layout.block_offset(segment, block);
    start..start + u64::from(layout.block_size)
}

/// The slots on an image of a device, by generation and block.
pub(crate) fn slots(image: &[u8]) -> Vec<FoundSlot> {
    let layout = layout_of(image);
    let mut slots = Vec::new();
    for segment in 0..layout.segment_count {
        let block = |block| &image[index(&block_range(&layout, segment, block))];
        let Ok(header) = SegmentHeader::read(block(0), &layout, segment) else { continue };
        let mut next = 1;
        while next < layout.segment_blocks {
            let slot = slot(&layout, segment, next, header.generation.get(), block(next));
            next += slot.as_ref().map_or(1, |slot| slot.blocks);
            slots.extend(slot);
        }
    }
    slots.sort_by_key(|slot| (slot.generation, slot.block));
    slots
}

fn slot(
    layout: &Layout,
    segment: u32,
    number: u32,
    generation: u64,
    block: &[u8],
) -> Option<FoundSlot> {
    let view = SlotHeader::read(block, layout, segment, number).ok()?;
    let view = view.of_generation(generation).ok()?;
    let header = block_range(layout, segment, number);
    let objects = view.objects().map(|object| {
        let entry = object.entry;
        let start = layout.block_offset(segment, entry.block.get());
        let blocks = u64::from(entry.payload_blocks(layout.block_size));
        let payload = if entry.is_inline() {
            let start = start + entry.inline_offset() as u64;
            start..start + u64::from(entry.payload_len)
        } else {
            start..start + blocks * u64::from(layout.block_size)
        };
        let sequence = entry.sequence.get();
        FoundObject { key: object.key.to_vec(), sequence, payload, is_inline: entry.is_inline() }
    });
    Some(FoundSlot {
        segment,
        generation,
        block: number,
        blocks: view.header.blocks.get(),
        first_entry: view.header.first_entry.get(),
        header,
        objects: objects.collect(),
    })
}

/// The newest object with this key, and its slot.
pub(crate) fn find(image: &[u8], key: &[u8]) -> (FoundSlot, FoundObject) {
    let objects = slots(image).into_iter().flat_map(|slot| {
        let objects = slot.objects.clone();
        objects.into_iter().map(move |object| (slot.clone(), object))
    });
    let of_key = objects.filter(|(_, object)| object.key == key);
    of_key.max_by_key(|(_, object)| object.sequence).unwrap()
}

/// A range of bytes of a device as a range of its image.
pub(crate) fn index(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

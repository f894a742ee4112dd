//! Edits of an image, and correct checksums for what was edited.

use raw_block_store::format::{
    Layout, PayloadPlace, SLOT_HEADER_LEN, SegmentHeader, SlotHeader, Superblock, payload_checksum,
};

use crate::image::{BLOCK, IMAGES};
use crate::{hash_slot, seal};

/// Length of the short structures: the headers of segments and checkpoints.
const SHORT: usize = 128;
/// Length of a copy of the superblock.
const CELL: usize = 4096;
/// Where an entry has the checksum of its payload.
const ENTRY_CHECKSUM: usize = 24;
const ENTRY_LEN: usize = 48;

/// Makes the next edit; `None` at the end of the input. `written` are the blocks that are worth it.
pub(crate) fn edit(
    image: &mut Vec<u8>,
    written: &[usize],
    input: &mut impl Iterator<Item = u8>,
) -> Option<()> {
    match input.next()? % 7 {
        // Bytes.
        0 => {
            let (at, len) = (byte(image, written, input)?, input.next()?);
            for (offset, byte) in input.take(len.into()).enumerate() {
                *image.get_mut(at + offset)? = byte;
            }
        }
        // A block from another place.
        1 => {
            let (from, to) = (block(image, written, input)?, block(image, written, input)?);
            let from = image.get(from..from + BLOCK)?.to_vec();
            image.get_mut(to..to + BLOCK)?.copy_from_slice(&from);
        }
        // A block that was lost.
        2 => {
            let at = block(image, written, input)?;
            image.get_mut(at..at + BLOCK)?.fill(0);
        }
        // Blocks from another time.
        3 => {
            let other = &IMAGES[usize::from(input.next()?) % IMAGES.len()].bytes;
            let (at, count) = (block(image, written, input)?, input.next()?);
            let end = (at + BLOCK * (1 + usize::from(count))).min(image.len()).min(other.len());
            image.get_mut(at..end)?.copy_from_slice(other.get(at..end)?);
        }
        // Bits.
        4 => {
            let (at, mask) = (byte(image, written, input)?, input.next()?);
            *image.get_mut(at)? ^= mask;
        }
        // The end of the device.
        5 => image.truncate(usize::from(number(input)?) * BLOCK),
        // A number of four bytes.
        _ => {
            let (at, change) = (byte(image, written, input)? & !3, input.next()?);
            let field = image.get_mut(at..)?.first_chunk_mut()?;
            let old = u32::from_le_bytes(*field);
            let new = match change {
                0..64 => old.wrapping_add(change.into()),
                64..128 => old.wrapping_sub(u32::from(change) - 64),
                128..192 => 1 << (change % 32),
                _ => u32::MAX - u32::from(change % 16),
            };
            *field = new.to_le_bytes();
        }
    }
    Some(())
}

fn number(input: &mut impl Iterator<Item = u8>) -> Option<u16> {
    Some(u16::from_le_bytes([input.next()?, input.next()?]))
}

/// Where a block begins: mostly one that is written.
fn block(image: &[u8], written: &[usize], input: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let number = usize::from(number(input)?);
    let any = number & 0x7FFF;
    if number == any {
        return Some(written.get(number % written.len().max(1))? * BLOCK);
    }
    Some(any % (image.len() / BLOCK).max(1) * BLOCK)
}

fn byte(image: &[u8], written: &[usize], input: &mut impl Iterator<Item = u8>) -> Option<usize> {
    Some(block(image, written, input)? + usize::from(number(input)?) % BLOCK)
}

/// Corrects all checksums and keyed hashes of an image. `original` is the image before the edits.
pub(crate) fn forge(image: &mut [u8], original: &[u8]) {
    let original = original.get(..CELL).and_then(|cell| Superblock::read(cell).ok());
    let Some(original) = original.map(Layout::of) else { return };
    for offset in [0, CELL as u64, original.last_superblock_offset] {
        if let Some(cell) = part(image, offset, CELL) {
            seal(cell);
        }
    }
    let changed = image.get(..CELL).and_then(|cell| Superblock::read(cell).ok());
    let layout = changed.map_or(original, Layout::of);
    let block_size = layout.block_size as usize;
    for container in layout.container_offset {
        if let Some(header) = part(image, container, SHORT) {
            seal(header);
        }
        for at in (block_size as u64..layout.container_len).step_by(block_size) {
            let Some(block) = part(image, container + at, block_size) else { break };
            seal(block);
        }
    }
    for segment in 0..layout.segment_count {
        let Some(bytes) = part(
            image,
            layout.segment_offset(segment),
            layout.segment_blocks as usize * block_size,
        ) else {
            return;
        };
        forge_segment(bytes, &layout, segment);
    }
}

/// Corrects the checksums of a segment: of its header, its table, and its slots with their
/// payloads.
fn forge_segment(bytes: &mut [u8], layout: &Layout, segment: u32) {
    let block_size = layout.block_size as usize;
    seal(&mut bytes[..SHORT]);
    let header = SegmentHeader::read(&bytes[..block_size], layout, segment);
    let generation = header.map_or(0, |header| header.generation.get());
    for number in 1..layout.segment_blocks {
        let start = number as usize * block_size;
        let block = &mut bytes[start..start + block_size];
        if block.starts_with(b"RAWBLKST") {
            seal(block);
        } else if block.starts_with(b"RAWBLKSL") {
            forge_slot(bytes, layout, segment, number, generation);
        }
    }
}

/// Corrects the hashes of a slot, and the checksums of its payloads.
fn forge_slot(bytes: &mut [u8], layout: &Layout, segment: u32, number: u32, generation: u64) {
    let block_size = layout.block_size as usize;
    let start = number as usize * block_size;
    let correct = |block: &mut [u8]| {
        hash_slot(block, layout);
        seal(&mut block[..SLOT_HEADER_LEN]);
    };
    correct(&mut bytes[start..start + block_size]);
    let Ok(view) = SlotHeader::read(&bytes[start..start + block_size], layout, segment, number)
    else {
        return;
    };
    let mut checksums = Vec::new();
    for object in view.objects() {
        let entry = object.entry;
        let from = entry.block.get() as usize * block_size;
        let payload =
            object.payload.or_else(|| bytes.get(from..)?.get(..entry.payload_len.get() as usize));
        let place = PayloadPlace {
            segment,
            generation,
            block: entry.block.get(),
            sequence: entry.sequence.get(),
        };
        checksums.push(payload_checksum(layout, &place, payload.unwrap_or(&[])));
    }
    for (at, checksum) in checksums.into_iter().enumerate() {
        let field = start + SLOT_HEADER_LEN + at * ENTRY_LEN + ENTRY_CHECKSUM;
        bytes[field..field + 8].copy_from_slice(&checksum.to_le_bytes());
    }
    correct(&mut bytes[start..start + block_size]);
}

/// A part of an image, if it has it.
fn part(image: &mut [u8], offset: u64, len: usize) -> Option<&mut [u8]> {
    let start = usize::try_from(offset).ok()?;
    image.get_mut(start..)?.get_mut(..len)
}

//! Images of stores whose structures lie: their checksums and keyed hashes are right.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ops::Range;

use raw_block_store::format::{CheckpointHeader, Layout, crc32c, header_hash};

use crate::common::BLOCK;
use crate::common::slots::{block_range, index, layout_of};

/// Bytes that the checksum of a short structure covers, preamble included.
pub(crate) const SHORT: usize = 128;
/// The same of a slot header.
const SLOT: usize = 80;
const CHECKSUM: Range<usize> = 8..12;
const KEYED_HASH: Range<usize> = 32..40;
/// Where a slot header says where its keyed hash ends.
const SLOT_LEN: Range<usize> = 68..72;

/// An image that is changed.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) image: Vec<u8>,
    /// The layout before any change.
    pub(crate) layout: Layout,
}

impl Forged {
    pub(crate) fn new(image: &[u8]) -> Self {
        Self { image: image.to_vec(), layout: layout_of(image) }
    }

    /// Changes the first `len` bytes at this offset of the device, and corrects their checksum.
    pub(crate) fn structure(&mut self, offset: u64, len: usize, change: impl FnOnce(&mut [u8])) {
        let start = usize::try_from(offset).unwrap();
        let structure = &mut self.image[start..start + len];
        change(structure);
        seal(structure);
    }

    /// Changes a slot header, and corrects its checksum and keyed hash.
    pub(crate) fn slot(&mut self, segment: u32, block: u32, change: impl FnOnce(&mut [u8])) {
        let range = index(&block_range(&self.layout, segment, block));
        let header = &mut self.image[range];
        change(header);
        let end = u32::from_le_bytes(header[SLOT_LEN].try_into().unwrap()) as usize;
        if let Some(hashed) = header.get(KEYED_HASH.end..end) {
            let hash = header_hash(&self.layout, hashed);
            header[KEYED_HASH].copy_from_slice(&hash.to_le_bytes());
        }
        seal(&mut header[..SLOT]);
    }

    /// Changes all copies of the superblock.
    pub(crate) fn superblocks(&mut self, change: impl Fn(&mut [u8])) {
        for offset in [0, 4096, self.layout.last_superblock_offset] {
            self.structure(offset, 4096, &change);
        }
    }

    /// The container of the newest checkpoint.
    pub(crate) fn newest_container(&self) -> u64 {
        let number = |&offset: &u64| {
            let start = usize::try_from(offset).unwrap();
            let header = CheckpointHeader::read(&self.image[start..start + BLOCK], &self.layout);
            header.map_or(0, |header| header.number.get())
        };
        self.layout.container_offset.into_iter().max_by_key(number).unwrap()
    }
}

fn seal(structure: &mut [u8]) {
    let checksum = crc32c([&structure[CHECKSUM.end..]]);
    structure[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// A little-endian number at this place of a structure, with this many bytes.
pub(crate) fn number(structure: &[u8], at: usize, width: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(&structure[at..at + width]);
    u64::from_le_bytes(bytes)
}

pub(crate) fn set(structure: &mut [u8], at: usize, width: usize, value: u64) {
    structure[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

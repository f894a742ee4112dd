//! What the fuzz targets share.
//!
//! A checksum would stop nearly every input of a fuzzer. So before the targets decode a block they
//! correct what a hostile author would correct as well: its [checksum](seal), and if the input says
//! so, its magic, version and UUID. What the checksum protects is then reached by every second
//! input, and the checksum itself by the others.

mod edit;
pub mod image;
pub mod script;

use raw_block_store::format::{
    Layout, LayoutRequest, Preamble, SLOT_HEADER_LEN, crc32c, header_hash,
};

/// Where the fields of a preamble lie.
const CHECKSUM: usize = 8;
const COVERED: usize = 12;
/// Where the keyed hash of a slot header lies.
const KEYED_HASH: usize = 32;
/// Where the bytes begin that it covers.
const HASHED: usize = 40;
/// Where the slot header says at which byte they end.
const LEN: std::ops::Range<usize> = 68..72;

/// The identity of the member.
pub const MEMBER: [u8; 16] = [0x5A; 16];

/// The layout of a store of at least 8 segments of 64 blocks.
#[must_use]
pub fn layout(block_size: u32) -> Layout {
    let segment_size = 64 * u64::from(block_size);
    let request = LayoutRequest {
        capacity: 12 * segment_size,
        block_size,
        segment_size: Some(segment_size),
        largest_object: None,
    };
    let layout = Layout::plan(&request).expect("there is space for 8 segments");
    layout.with_identity(&MEMBER, &[0xA5; 16])
}

/// Corrects the checksum of a structure.
pub fn seal(structure: &mut [u8]) {
    if structure.len() >= size_of::<Preamble>() {
        let checksum = crc32c([&structure[COVERED..]]);
        structure[CHECKSUM..COVERED].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Corrects the keyed hash of a slot header. No hostile author knows its secret, but what it
/// protects is to be tried.
pub fn hash_slot(block: &mut [u8], layout: &Layout) {
    let len = block[LEN].try_into().map_or(0, u32::from_le_bytes) as usize;
    if let Some(hashed) = block.get(HASHED..len) {
        let hash = header_hash(layout, hashed).to_le_bytes();
        block[KEYED_HASH..HASHED].copy_from_slice(&hash);
    }
}

/// What an input wants to be corrected, from its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Wants(u8);

impl Wants {
    /// Takes the first byte from the front of an input.
    pub fn take(input: &[u8]) -> Option<(Self, &[u8])> {
        input.split_first().map(|(&first, rest)| (Self(first), rest))
    }

    /// One of the layouts, by three bits.
    #[must_use]
    pub fn layout(self) -> Layout {
        layout((512 << (self.0 >> 5)).min(65536))
    }

    /// Corrects what is wanted of a structure with this magic.
    pub fn correct(self, structure: &mut [u8], magic: [u8; 8], uuid: &[u8; 16]) {
        if self.0 & 1 != 0 && structure.len() >= size_of::<Preamble>() {
            structure[..CHECKSUM].copy_from_slice(&magic);
            structure[COVERED..16].copy_from_slice(&1_u32.to_le_bytes());
            structure[16..32].copy_from_slice(uuid);
        }
        if self.0 & 2 != 0 {
            seal(structure);
        }
    }

    /// Corrects what is wanted of a slot header, the keyed hash included.
    pub fn correct_slot(self, block: &mut [u8], layout: &Layout) {
        hash_slot(block, layout);
        self.correct(&mut block[..SLOT_HEADER_LEN], *b"RAWBLKSL", &layout.member);
    }
}

/// A block as an input gives it: padded with zeroes, cut off where it is too long.
#[must_use]
pub fn block(input: &[u8], len: usize) -> Vec<u8> {
    let mut block = input[..input.len().min(len)].to_vec();
    block.resize(len, 0);
    block
}

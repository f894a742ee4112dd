//! What the fuzz targets share.
//!
//! A checksum would stop nearly every input of a fuzzer at the door. So the targets put right, before they decode
//! a block, what a hostile author would put right as well: its [checksum](seal), and if the input says so, its
//! magic, version and UUID. What lies behind is then reached by every second input, and the checksum itself by the
//! others.

pub mod image;
pub mod segments;

use raw_block_store::format::{Preamble, Superblock, SuperblockState, container_len, crc32c};

/// Where the fields of a preamble lie.
const CHECKSUM: usize = 8;
const COVERED: usize = 12;

/// Puts the checksum of a structure right.
pub fn seal(structure: &mut [u8]) {
    if structure.len() >= size_of::<Preamble>() {
        let checksum = crc32c([&structure[COVERED..]]);
        structure[CHECKSUM..COVERED].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// What an input wants to be put right, from its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Wants(u8);

impl Wants {
    /// Takes the first byte from the front of an input.
    pub fn take(input: &[u8]) -> Option<(Self, &[u8])> {
        input.split_first().map(|(&first, rest)| (Self(first), rest))
    }

    /// One of the stores, by three bits.
    #[must_use]
    pub fn store(self) -> Superblock {
        store(self.block_size())
    }

    /// One of the block sizes, by three bits.
    fn block_size(self) -> u32 {
        (512 << (self.0 >> 5)).min(65536)
    }

    /// Puts right what is wanted of a structure with this magic.
    pub fn put_right(self, structure: &mut [u8], magic: [u8; 8], uuid: &[u8; 16]) {
        if self.0 & 1 != 0 && structure.len() >= size_of::<Preamble>() {
            structure[..CHECKSUM].copy_from_slice(&magic);
            structure[COVERED..16].copy_from_slice(&1_u32.to_le_bytes());
            structure[16..32].copy_from_slice(uuid);
        }
        if self.0 & 2 != 0 {
            seal(structure);
        }
    }
}

/// A block as an input gives it: filled up with zeroes, cut off where it is too long.
#[must_use]
pub fn block(input: &[u8], len: usize) -> Vec<u8> {
    let mut block = input[..input.len().min(len)].to_vec();
    block.resize(len, 0);
    block
}

/// The superblock of a store of 20 slots for payloads of three blocks.
#[must_use]
pub fn store(block_size: u32) -> Superblock {
    const SLOTS: u64 = 20;
    let block = u64::from(block_size);
    let first = 8192_u64.next_multiple_of(block);
    let container = container_len(SLOTS, block_size).unwrap_or(0);
    let log = first + 2 * container;
    let slots = log + 3 * block;
    let last = (slots + SLOTS * 4 * block).next_multiple_of(4096);
    let mut store = Superblock::new(&[0x5A; 16]);
    store.generation = 1.into();
    store.set_state(SuperblockState::Open);
    store.block_size = block_size.into();
    store.slot_size = (4 * block).into();
    store.slot_count = SLOTS.into();
    store.device_len = (last + 4096).into();
    store.checkpoint_offset = [first.into(), (first + container).into()];
    store.checkpoint_len = container.into();
    store.delete_log_offset = log.into();
    store.delete_log_len = (3 * block).into();
    store.slots_offset = slots.into();
    store.last_superblock_offset = last.into();
    let mut cell = [0; 4096];
    store.encode(&mut cell).expect("these fields keep every rule");
    store
}

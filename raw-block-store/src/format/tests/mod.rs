//! Tests of the format, one file for each structure.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

mod checkpoint;
mod layout;
mod segment_header;
mod slot;
mod superblock;
mod table;

use super::*;
use crate::format::Damage;
use crate::format::preamble::seal;

const MEMBER: [u8; 16] = *b"0123456789abcdef";
const OTHER_MEMBER: [u8; 16] = *b"0123456789abcdeF";
const SECRET: [u8; 16] = *b"the key of keys!";

/// A store of 16 or more segments of 64 blocks.
fn layout(block_size: u32) -> Layout {
    let segment_size = 64 * u64::from(block_size);
    let request = LayoutRequest {
        capacity: 24 * segment_size,
        block_size,
        segment_size: Some(segment_size),
        largest_object: None,
    };
    Layout::plan(&request).unwrap().with_identity(&MEMBER, &SECRET)
}

/// The same store as another member.
fn other_member(block_size: u32) -> Layout {
    layout(block_size).with_identity(&OTHER_MEMBER, &SECRET)
}

/// Flips every bit of the first `len` bytes of `block`, one at a time, and expects to hear of the
/// magic in the first 8 bytes, of a checksum elsewhere.
fn every_flip_is_found(block: &mut [u8], len: usize, read: impl Fn(&[u8]) -> Result<(), Damage>) {
    assert_eq!(read(block), Ok(()));
    for byte in 0..len {
        for bit in 0..8 {
            block[byte] ^= 1 << bit;
            let found = read(block).unwrap_err();
            let is_right = if byte < 8 {
                matches!(found, Damage::NotThisStructure { .. })
            } else {
                matches!(found, Damage::Checksum { .. })
            };
            assert!(is_right, "byte {byte}, bit {bit}: {found}");
            block[byte] ^= 1 << bit;
        }
    }
}

/// Overwrites bytes of a structure and gives it a valid checksum again.
fn forge(structure: &mut [u8], at: usize, bytes: &[u8]) {
    structure[at..at + bytes.len()].copy_from_slice(bytes);
    seal(structure);
}

/// The same for a slot header, with its keyed hash.
fn forge_slot(block: &mut [u8], layout: &Layout, at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    let len = u32::from_le_bytes(block[68..72].try_into().unwrap()) as usize;
    if let Some(hashed) = block.get(40..len) {
        let hash = header_hash(layout, hashed).to_le_bytes();
        block[32..40].copy_from_slice(&hash);
    }
    seal(&mut block[..SLOT_HEADER_LEN]);
}

fn inconsistent<T: std::fmt::Debug>(result: Result<T, Damage>) -> &'static str {
    match result.unwrap_err() {
        Damage::Inconsistent(rule) => rule,
        other => panic!("{other}"),
    }
}

#[test]
fn blocks_of_any_length_are_refused_without_panic() {
    let layout = layout(512);
    let table = TableId { generation: 5, checkpoint: 2, entries: 3 };
    for fill in [0, 0xFF] {
        for len in 0..=1024 {
            let block = vec![fill; len];
            assert!(Superblock::read(&block).is_err());
            assert!(SegmentHeader::read(&block, &layout, 0).is_err());
            assert!(SlotHeader::read(&block, &layout, 0, 1).is_err());
            assert!(TableBlock::read(&block, &layout, &table, 0).is_err());
            assert!(CheckpointHeader::read(&block, &layout).is_err());
            assert!(BodyBlock::read(&block, &layout, 1, 0).is_err());
        }
    }
}

#[test]
fn a_layout_full_of_nonsense_panics_nowhere() {
    for fill in [0_u32, 1, 0x7FFF_FFFF, u32::MAX] {
        let nonsense = Layout {
            block_size: fill,
            segment_blocks: fill,
            segment_count: fill,
            segments_offset: fill.into(),
            container_offset: [u64::MAX; 3],
            container_len: u64::MAX,
            last_superblock_offset: u64::MAX,
            member: MEMBER,
            hash_key: SECRET,
        };
        let _ = (nonsense.block_offset(fill, fill), nonsense.largest_payload());
        let _ = (nonsense.min_container_len(), nonsense.max_sequences());
        let _ = (nonsense.usable_blocks(fill), nonsense.names_limit());
        let mut block = vec![0xFF; 4096];
        let table = TableId { generation: 1, checkpoint: 1, entries: fill };
        assert!(SegmentHeader::read(&block, &nonsense, 0).is_err());
        assert!(SlotHeader::read(&block, &nonsense, 0, 1).is_err());
        assert!(TableBlock::read(&block, &nonsense, &table, 0).is_err());
        assert!(TableBlock::seal(&mut block, &nonsense, &table, 0).is_err());
        assert!(BodyBlock::seal_all(&mut block, &nonsense, 1, 0).is_err() || fill == 1);
        assert!(CheckpointHeader::read(&block, &nonsense).is_err());
    }
}

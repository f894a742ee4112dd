//! Tests of the format, one file for each structure.

mod checkpoint;
mod checksum;
mod delete_log;
mod slot;
mod superblock;

use super::*;

const UUID: [u8; 16] = *b"0123456789abcdef";
const OTHER_UUID: [u8; 16] = *b"0123456789abcdeF";

/// A store of 40 slots of 8 blocks, with 4 blocks of delete log.
fn store(block_size: u32) -> Superblock {
    let block = u64::from(block_size);
    let slots = 40;
    let container = container_len(slots, block_size).unwrap();
    let first = 8192_u64.next_multiple_of(block);
    let log = first + 2 * container;
    let slots_offset = log + 4 * block;
    let last = (slots_offset + slots * 8 * block).next_multiple_of(4096);

    let mut store = Superblock::new(&UUID);
    store.generation = 7.into();
    store.set_state(SuperblockState::Open);
    store.block_size = block_size.into();
    store.created_unix_ns = 1_700_000_000_123_456_789.into();
    store.hash_key = *b"the key of keys!";
    store.slot_size = (8 * block).into();
    store.slot_count = slots.into();
    store.device_len = (last + 4096 + 512).into();
    store.checkpoint_offset = [first.into(), (first + container).into()];
    store.checkpoint_len = container.into();
    store.delete_log_offset = log.into();
    store.delete_log_len = (4 * block).into();
    store.slots_offset = slots_offset.into();
    store.last_superblock_offset = last.into();
    store.set_label("cache 1").unwrap();
    store
}

/// The same store under another UUID.
fn other_store(block_size: u32) -> Superblock {
    let mut other = store(block_size);
    other.preamble.uuid = OTHER_UUID;
    other
}

/// Flips every bit of the first `len` bytes of `block`, one at a time, and
/// expects to hear of the magic in the first 8 bytes, of a checksum elsewhere.
fn every_flip_is_found(block: &mut [u8], len: usize, read: impl Fn(&[u8]) -> Result<(), Damage>) {
    assert_eq!(read(block), Ok(()));
    for byte in 0..len {
        for bit in 0..8 {
            block[byte] ^= 1 << bit;
            let found = read(block).unwrap_err();
            if byte < 8 {
                assert!(matches!(found, Damage::NotThisStructure { .. }));
            } else {
                assert!(
                    matches!(found, Damage::Checksum { .. }),
                    "byte {byte}, bit {bit}: {found}"
                );
            }
            block[byte] ^= 1 << bit;
        }
    }
}

/// Overwrites bytes of a structure and gives it a valid checksum again.
fn forge(structure: &mut [u8], at: usize, bytes: &[u8]) {
    structure[at..at + bytes.len()].copy_from_slice(bytes);
    preamble::seal(structure);
}

/// An image made by hand: `len` zeroes, these bytes at these offsets, and the
/// checksum of what follows it.
fn image(len: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    let checksum = checksum::crc32c_bit_by_bit(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn every_version_but_ours_is_refused_after_its_checksum() {
    let store = store(512);
    let mut cell = [0; 4096];
    store.encode(&mut cell).unwrap();
    for version in [0_u32, 2, 0x0100_0001] {
        cell[12..16].copy_from_slice(&version.to_le_bytes());
        assert!(matches!(Superblock::read(&cell), Err(Damage::Checksum { .. })));
        preamble::seal(&mut cell[..512]);
        let expected = Damage::Version { found: version, supported: 1 };
        assert_eq!(Superblock::read(&cell), Err(expected));
    }
}

#[test]
fn blocks_of_any_length_are_refused_or_read_but_never_panic() {
    let store = store(512);
    let mut cell = [0; 4096];
    store.encode(&mut cell).unwrap();
    for len in 0..cell.len() {
        let block = &cell[..len];
        assert_eq!(Superblock::read(block).is_ok(), len >= 512);
        assert!(SlotHeader::read(block, &store, 0).is_err());
        assert!(CheckpointHeader::read(block, &store).is_err());
        assert!(CheckpointBlock::read(block, &store, 1, 0).is_err());
        assert!(DeleteLogBlock::read(block, &store, 0).is_err());
    }
}

#[test]
fn a_superblock_full_of_nonsense_panics_nowhere() {
    use zerocopy::FromBytes;
    for fill in [0, 1, 0x7F, 0xFF] {
        let nonsense = Superblock::read_from_bytes(&[fill; 512]).unwrap();
        let mut block = vec![fill; 4096];
        assert!(nonsense.encode(&mut block).is_err());
        let _ = (nonsense.state(), nonsense.label(), nonsense.slot_offset(5));
        assert!(SlotHeader::read(&block, &nonsense, 0).is_err());
        assert!(CheckpointHeader::read(&block, &nonsense).is_err());
        assert!(CheckpointBlock::entries_mut(&mut block, &nonsense, 0).is_err());
        assert!(CheckpointBlock::seal(&mut block, &nonsense, 1, 0).is_err());
        assert!(CheckpointBlock::read(&block, &nonsense, 1, 0).is_err());
        assert!(DeleteLogBlock::read(&block, &nonsense, 0).is_err());
        assert!(DeleteLogBlock::encode(&mut block, &nonsense, 0, 1, &[]).is_err());
    }
}

/// A number that looks random and is the same in every run.
fn scramble(seed: u64) -> u64 {
    twox_hash::XxHash3_64::oneshot(&seed.to_le_bytes())
}

/// Overwrites up to 8 bytes behind the preamble of a structure, its checksum
/// kept valid, and reads it: anything may come of it but a panic.
fn read_forgeries(block: &[u8], sealed: usize, read: impl Fn(&[u8])) {
    let widths = [1, 2, 4, 8];
    for (at, width) in (32..sealed).flat_map(|at| widths.map(|width| (at, width))) {
        let random = scramble((at * 8 + width) as u64).to_le_bytes();
        for bytes in [random, [0; 8], [0xFF; 8], [1, 0, 0, 0, 0, 0, 0, 0]] {
            let mut block = block.to_vec();
            let width = width.min(sealed - at);
            forge(&mut block[..sealed], at, &bytes[..width]);
            read(&block);
        }
    }
}

#[test]
fn forged_blocks_are_refused_or_read_but_never_panic() {
    let store = store(512);
    let mut cell = [0; 4096];
    store.encode(&mut cell).unwrap();
    read_forgeries(&cell, 512, |cell| {
        if let Ok(read) = Superblock::read(cell) {
            let mut again = [0; 4096];
            read.encode(&mut again).unwrap();
            assert_eq!(cell, again, "what is read can be written as it was");
        }
    });

    let mut block = [0; 512];
    let fields = SlotFields {
        slot: 3,
        sequence: 4,
        checkpoint: 1,
        key_hash: [5; 16],
        key: b"key",
        metadata: b"metadata",
        payload: b"payload",
    };
    SlotHeader::encode(&mut block, &store, &fields).unwrap();
    read_forgeries(&block, 128, |block| {
        if let Ok(view) = SlotHeader::read(block, &store, 3) {
            let _ = view.inline_payload.map(|payload| view.header.verify_payload(payload));
        }
    });

    let mut header = CheckpointHeader::new(&store);
    header.number = 1.into();
    header.next_sequence = 1.into();
    header.encode(&mut block, &store).unwrap();
    read_forgeries(&block, 128, |block| {
        let _ = CheckpointHeader::read(block, &store);
    });

    block.fill(0);
    CheckpointBlock::seal(&mut block, &store, 1, 2).unwrap();
    read_forgeries(&block, 512, |block| {
        let _ = CheckpointBlock::read(block, &store, 1, 2);
    });

    DeleteLogBlock::encode(&mut block, &store, 1, 1, &[]).unwrap();
    read_forgeries(&block, 512, |block| {
        let _ = DeleteLogBlock::read(block, &store, 1);
    });
}

use super::*;

fn entry(i: u64) -> ObjectEntry {
    ObjectEntry {
        key_hash: [5; 16],
        sequence: (i + 1).into(),
        payload_len: 1000.into(),
        key_len: 20.into(),
        metadata_len: 30.into(),
    }
}

fn header() -> CheckpointHeader {
    let mut header = CheckpointHeader::new(&store(512));
    header.number = 9.into();
    header.covered_sequence = 100.into();
    header.next_sequence = 123.into();
    header.live_count = 39.into();
    header
}

fn header_block() -> [u8; 512] {
    let mut block = [0xEE; 512];
    header().encode(&mut block, &store(512)).unwrap();
    block
}

/// Body block 2 of checkpoint 9: the entries of slots 28 to 39, slot 29 empty.
fn body_block() -> [u8; 512] {
    let store = store(512);
    let mut block = [0xEE; 512];
    let entries = CheckpointBlock::entries_mut(&mut block, &store, 2).unwrap();
    assert_eq!(entries.len(), 12);
    for (i, place) in (28..).zip(&mut *entries) {
        *place = entry(i);
    }
    entries[1] = ObjectEntry::NONE;
    CheckpointBlock::seal(&mut block, &store, 9, 2).unwrap();
    block
}

#[test]
fn a_header_comes_back_as_it_was_written() {
    let block = header_block();
    let read = CheckpointHeader::read(&block, &store(512)).unwrap();
    let mut expected = header();
    expected.preamble.checksum = read.preamble.checksum;
    assert_eq!(*read, expected);
}

#[test]
fn entries_come_back_as_they_were_written() {
    for block_size in [512, 4096, 65536] {
        let store = store(block_size);
        let mut block = vec![0xEE; block_size as usize];
        let mut slot = 0;
        for index in 0..body_blocks(40, block_size).unwrap() {
            assert_eq!(slot, index * entries_per_block(block_size));
            let entries = CheckpointBlock::entries_mut(&mut block, &store, index).unwrap();
            for place in entries {
                *place = entry(slot);
                slot += 1;
            }
            CheckpointBlock::seal(&mut block, &store, 4, index).unwrap();
            let entries = CheckpointBlock::read(&block, &store, 4, index).unwrap();
            let first = slot - entries.len() as u64;
            assert!(entries.iter().copied().eq((first..slot).map(entry)));
        }
        assert_eq!(slot, 40, "there is one entry for every slot");
    }
}

#[test]
fn the_bytes_of_the_header_are_those_of_the_documentation() {
    let mut expected = image(
        128,
        &[
            (0, b"RAWBLKCK"),
            (12, &1_u32.to_le_bytes()),
            (16, &UUID),
            (32, &9_u64.to_le_bytes()),
            (40, &100_u64.to_le_bytes()),
            (48, &123_u64.to_le_bytes()),
            (56, &40_u64.to_le_bytes()),
            (64, &39_u64.to_le_bytes()),
        ],
    );
    expected.resize(512, 0);
    assert_eq!(header_block().as_slice(), expected);
}

#[test]
fn the_bytes_of_a_body_block_are_those_of_the_documentation() {
    let mut parts: Vec<(usize, Vec<u8>)> = vec![
        (0, b"RAWBLKCB".to_vec()),
        (12, 1_u32.to_le_bytes().to_vec()),
        (16, UUID.to_vec()),
        (32, 9_u64.to_le_bytes().to_vec()),
        (40, 2_u64.to_le_bytes().to_vec()),
    ];
    for i in (0..12).filter(|i| *i != 1) {
        let at = 64 + 32 * i;
        parts.push((at, vec![5; 16]));
        parts.push((at + 16, (i as u64 + 29).to_le_bytes().to_vec()));
        parts.push((at + 24, 1000_u32.to_le_bytes().to_vec()));
        parts.push((at + 28, 20_u16.to_le_bytes().to_vec()));
        parts.push((at + 30, 30_u16.to_le_bytes().to_vec()));
    }
    let parts: Vec<_> = parts.iter().map(|(at, part)| (*at, &**part)).collect();
    assert_eq!(body_block().as_slice(), image(512, &parts));
}

#[test]
fn every_flipped_bit_is_found() {
    let store = store(512);
    every_flip_is_found(&mut header_block(), 128, |block| {
        CheckpointHeader::read(block, &store).map(drop)
    });
    every_flip_is_found(&mut body_block(), 512, |block| {
        CheckpointBlock::read(block, &store, 9, 2).map(drop)
    });
}

#[test]
fn a_block_of_another_store_checkpoint_or_position_is_refused() {
    let block = body_block();
    let (ours, other) = (store(512), other_store(512));
    assert_eq!(CheckpointHeader::read(&header_block(), &other), Err(Damage::ForeignStore));
    assert_eq!(CheckpointBlock::read(&block, &other, 9, 2), Err(Damage::ForeignStore));
    for (number, index, found, expected) in [(8, 2, 9, 8), (9, 1, 2, 1), (9, 3, 2, 3)] {
        assert_eq!(
            CheckpointBlock::read(&block, &ours, number, index),
            Err(Damage::WrongPlace { found, expected })
        );
    }
}

#[test]
fn header_fields_out_of_bounds_are_refused() {
    let forgeries: &[(usize, &[u8], &str)] = &[
        (32, &[0], "the checkpoint number is 0"),
        (39, &[0x80], "the checkpoint number is too high"),
        (55, &[0x80], "the next sequence is too high"),
        (40, &[123], "the next sequence is not above the covered one"),
        (40, &[0xFF; 8], "the next sequence is not above the covered one"),
        (56, &[39], "the number of entries is not the number of slots"),
        (64, &[41], "there are more live entries than entries"),
        (72, &[1], "reserved bytes are not zero"),
        (127, &[1], "reserved bytes are not zero"),
    ];
    for (at, bytes, rule) in forgeries {
        let mut block = header_block();
        forge(&mut block[..128], *at, bytes);
        let read = CheckpointHeader::read(&block, &store(512));
        assert_eq!(read, Err(Damage::Inconsistent(rule)));
    }
}

#[test]
fn entries_out_of_bounds_are_refused() {
    let entry = 64;
    let none = 96;
    let forgeries: &[(usize, &[u8], &str)] = &[
        (none, &[1], "an entry without an object is not zero"),
        (none + 24, &[1], "an entry without an object is not zero"),
        (entry + 16, &[0; 8], "an entry without an object is not zero"),
        (entry + 24, &[1, 14, 0, 0], "the payload does not fit into the slot"),
        (entry + 24, &[0xFF; 4], "the payload does not fit into the slot"),
        (entry + 28, &[0; 2], "the key is empty"),
        (entry + 28, &[0xFF; 4], "key and metadata do not fit into the header block"),
        (48, &[1], "reserved bytes are not zero"),
        (63, &[1], "reserved bytes are not zero"),
        (64 + 12 * 32, &[1], "reserved bytes are not zero"),
        (511, &[1], "reserved bytes are not zero"),
    ];
    for (at, bytes, rule) in forgeries {
        let mut block = body_block();
        forge(&mut block, *at, bytes);
        assert_eq!(
            CheckpointBlock::read(&block, &store(512), 9, 2),
            Err(Damage::Inconsistent(rule)),
            "offset {at}"
        );
    }
    let mut beyond = body_block();
    forge(&mut beyond, 40, &[3]);
    assert_eq!(
        CheckpointBlock::read(&beyond, &store(512), 9, 3),
        Err(Damage::Inconsistent("there is no body block at this position"))
    );
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let store = store(512);
    let mut block = [0; 512];
    for change in [
        |header: &mut CheckpointHeader| header.number = 0.into(),
        |header: &mut CheckpointHeader| header.next_sequence = 100.into(),
        |header: &mut CheckpointHeader| header.entry_count = 41.into(),
        |header: &mut CheckpointHeader| header.live_count = 41.into(),
        |header: &mut CheckpointHeader| header.reserved[3] = 1,
    ] {
        let mut header = header();
        change(&mut header);
        assert!(header.encode(&mut block, &store).is_err());
    }
    assert_eq!(block, [0; 512], "a refusal leaves the block as it was");

    let mut block = body_block();
    assert!(CheckpointBlock::seal(&mut block, &store, 0, 2).is_err());
    assert!(CheckpointBlock::seal(&mut block, &store, 9, 3).is_err());
    assert!(CheckpointBlock::seal(&mut block, &store, 9, u64::MAX).is_err());
    assert!(CheckpointBlock::seal(&mut block[1..], &store, 9, 2).is_err());
    block[64 + 28..64 + 30].fill(0);
    assert!(CheckpointBlock::seal(&mut block, &store, 9, 2).is_err());
}

#[test]
fn the_length_of_a_container_follows_from_the_slot_count() {
    assert_eq!(entries_per_block(512), 14);
    assert_eq!(entries_per_block(4096), 126);
    assert_eq!(entries_per_block(65536), 2046);
    assert_eq!(container_len(0, 4096), Some(4096));
    assert_eq!(container_len(1, 4096), Some(2 * 4096));
    assert_eq!(container_len(126, 4096), Some(2 * 4096));
    assert_eq!(container_len(127, 4096), Some(3 * 4096));
    assert_eq!(container_len(u64::MAX, 512), None);
    for not_a_block_size in [0, 1, 64, 256, 513, 4095, 131_072] {
        assert_eq!(container_len(1, not_a_block_size), None);
    }
}

use super::*;

fn record(key_hash: u8, sequence: u64) -> DeleteRecord {
    DeleteRecord { key_hash: [key_hash; 16], sequence: sequence.into() }
}

fn block() -> [u8; 512] {
    let mut block = [0xEE; 512];
    let records = [record(1, 10), record(2, 11), record(1, 12)];
    DeleteLogBlock::encode(&mut block, &store(512), 2, 7, &records).unwrap();
    block
}

#[test]
fn records_come_back_as_they_were_written() {
    for block_size in [512, 4096, 65536] {
        let store = store(block_size);
        let mut block = vec![0xEE; block_size as usize];
        for count in [0, 1, records_per_block(block_size)] {
            let records: Vec<_> = (0..count).map(|i| record(3, i as u64 + 1)).collect();
            DeleteLogBlock::encode(&mut block, &store, 3, 7, &records).unwrap();
            let (block, read) = DeleteLogBlock::read(&block, &store, 3).unwrap();
            assert_eq!((block.checkpoint.get(), read), (7, &*records));
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let expected = image(
        512,
        &[
            (0, b"RAWBLKDL"),
            (12, &1_u32.to_le_bytes()),
            (16, &UUID),
            (32, &2_u64.to_le_bytes()),
            (40, &7_u64.to_le_bytes()),
            (48, &3_u32.to_le_bytes()),
            (64, &[1; 16]),
            (80, &10_u64.to_le_bytes()),
            (88, &[2; 16]),
            (104, &11_u64.to_le_bytes()),
            (112, &[1; 16]),
            (128, &12_u64.to_le_bytes()),
        ],
    );
    assert_eq!(block().as_slice(), expected);
}

#[test]
fn every_flipped_bit_is_found() {
    every_flip_is_found(&mut block(), 512, |block| {
        DeleteLogBlock::read(block, &store(512), 2).map(drop)
    });
}

#[test]
fn a_block_of_another_store_or_position_is_refused() {
    assert_eq!(DeleteLogBlock::read(&block(), &other_store(512), 2), Err(Damage::ForeignStore));
    assert_eq!(
        DeleteLogBlock::read(&block(), &store(512), 3),
        Err(Damage::WrongPlace { found: 2, expected: 3 })
    );
}

#[test]
fn fields_out_of_bounds_are_refused() {
    let forgeries: &[(usize, &[u8], &str)] = &[
        (40, &[0], "the checkpoint number is 0"),
        (47, &[0x80], "the checkpoint number is too high"),
        (48, &[19], "more records than fit into the block"),
        (48, &[0xFF; 4], "more records than fit into the block"),
        (48, &[4], "the sequence of a delete record is 0 or too high"),
        (80, &[0xFF; 8], "the sequence of a delete record is 0 or too high"),
        (80, &[0; 8], "the sequence of a delete record is 0 or too high"),
        (48, &[2], "reserved bytes are not zero"),
        (52, &[1], "reserved bytes are not zero"),
        (63, &[1], "reserved bytes are not zero"),
        (511, &[1], "reserved bytes are not zero"),
    ];
    for (at, bytes, rule) in forgeries {
        let mut block = block();
        forge(&mut block, *at, bytes);
        assert_eq!(DeleteLogBlock::read(&block, &store(512), 2), Err(Damage::Inconsistent(rule)));
    }
    let mut beyond = block();
    forge(&mut beyond, 32, &[4]);
    assert_eq!(
        DeleteLogBlock::read(&beyond, &store(512), 4),
        Err(Damage::Inconsistent("there is no delete log block at this position"))
    );
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let store = store(512);
    assert_eq!(records_per_block(512), 18);
    let mut block = [0xEE; 512];
    for (index, count, sequence) in [(0, 19, 1), (0, 1, 0), (4, 1, 1), (u64::MAX, 1, 1)] {
        let records = vec![record(1, sequence); count];
        assert!(DeleteLogBlock::encode(&mut block, &store, index, 7, &records).is_err());
    }
    assert_eq!(block, [0xEE; 512], "a refusal leaves the block as it was");
    assert!(DeleteLogBlock::encode(&mut block[1..], &store, 0, 7, &[]).is_err());
}

use proptest::prelude::*;

use super::*;

const TABLE: TableId = TableId { generation: 5, checkpoint: 8, entries: 11 };

fn object(block: u32, blocks_back: u32, payload_len: u32) -> Entry {
    Entry {
        key_hash: [block as u8; 16],
        sequence: u64::from(block + 100).into(),
        checksum: 77.into(),
        payload_len: payload_len.into(),
        key_len: 3.into(),
        metadata_len: 2.into(),
        block: block.into(),
        blocks_back: blocks_back.into(),
    }
}

/// Eleven entries: two slots of objects, a tombstone, an inline payload; 9 of them in the first
/// block of 512.
fn entries() -> Vec<Entry> {
    let mut entries = vec![object(2, 1, 600), object(4, 3, 1), object(1, 0, 0)];
    entries.extend([Entry::tombstone(150, 5), object(6, 0, 30), Entry::EMPTY]);
    entries.extend((0..5).map(|at| object(8 + at, 1 + at, 512)));
    entries
}

fn encode(entries: &[Entry], index: u32) -> Result<[u8; 512], EncodeError> {
    let mut block = [0xEE; 512];
    let into = TableBlock::entries_mut(&mut block, &layout(512), &TABLE, index)?;
    into.copy_from_slice(entries);
    TableBlock::seal(&mut block, &layout(512), &TABLE, index)?;
    Ok(block)
}

#[test]
fn a_table_is_read_back_as_it_was_written() {
    let entries = entries();
    let layout = layout(512);
    for index in 0..2 {
        let numbers = TABLE.numbers(&layout, index);
        let expected = &entries[numbers.start as usize..numbers.end as usize];
        let block = encode(expected, index).unwrap();
        assert_eq!(TableBlock::read(&block, &layout, &TABLE, index).unwrap(), expected);
    }
    assert!(encode(&[], 2).is_err());
}

#[test]
fn every_flipped_bit_of_a_table_is_found() {
    let mut block = encode(&entries()[..9], 0).unwrap();
    every_flip_is_found(&mut block, 512, |block| {
        TableBlock::read(block, &layout(512), &TABLE, 0).map(drop)
    });
}

#[test]
fn a_table_of_another_place_or_checkpoint_is_refused() {
    let block = encode(&entries()[..9], 0).unwrap();
    let read = |layout: &Layout, table: &TableId, index| {
        TableBlock::read(&block, layout, table, index).map(drop).unwrap_err()
    };
    let here = layout(512);
    let wrong = |found, expected| Damage::WrongPlace { found, expected };
    assert_eq!(read(&other_member(512), &TABLE, 0), Damage::ForeignStore);
    assert_eq!(read(&here, &TableId { generation: 6, ..TABLE }, 0), wrong(5, 6));
    assert_eq!(read(&here, &TableId { checkpoint: 9, ..TABLE }, 0), wrong(8, 9));
    assert_eq!(read(&here, &TABLE, 1), wrong(0, 1));
    assert_eq!(read(&here, &TableId { entries: 9, ..TABLE }, 0), wrong(2, 1));
    let fewer = TableId { entries: 19, ..TABLE };
    assert_eq!(read(&here, &fewer, 0), wrong(2, 3));
}

#[test]
fn tables_that_lie_are_refused() {
    let good = entries()[..9].to_vec();
    let with = |at: usize, entry: Entry| {
        let mut entries = good.clone();
        entries[at] = entry;
        match encode(&entries, 0).unwrap_err() {
            EncodeError::Invalid(rule) => rule,
            other => panic!("{other}"),
        }
    };
    let claims = "two entries claim one block, or claim blocks out of order";
    // The second payload of the first slot begins in the first payload.
    assert_eq!(with(1, object(3, 2, 1)), claims);
    // A slot begins in the one before, or further to the front.
    assert_eq!(with(3, Entry::tombstone(150, 4)), claims);
    assert_eq!(with(3, object(3, 1, 1)), claims);
    // Something shares the block of an inline payload, or of a tombstone.
    assert_eq!(with(5, object(7, 1, 1)), claims);
    assert_eq!(with(4, object(6, 1, 1)), claims);
    assert_eq!(with(4, Entry::tombstone(151, 5)), claims);
    // Past the segment, or in its table.
    let past = "an entry claims blocks past those of its segment";
    assert_eq!(with(8, object(61, 1, 513)), past);
    assert_eq!(with(8, object(10, 3, u32::MAX)), past);
    let empty = Entry { block: 9.into(), ..Entry::EMPTY };
    assert_eq!(with(5, empty), "an entry without an object is not zero");
    assert_eq!(
        with(3, Entry { checksum: 1.into(), ..Entry::tombstone(150, 5) }),
        "the entry of a tombstone slot names an object"
    );
    let header = "the slot header is not in front of the payload";
    assert_eq!(with(0, object(1, 1, 1)), header);
    assert_eq!(with(0, object(0, 0, 1)), header);
    assert_eq!(
        with(4, object(6, 0, 500)),
        "key, metadata and inline payload do not fit into the header block"
    );
}

proptest! {
    #[test]
    fn forged_tables_are_refused_or_read_but_never_panic(
        at in 32_usize..512,
        bytes in any::<[u8; 8]>(),
        len in 1_usize..=8,
    ) {
        let mut block = encode(&entries()[..9], 0).unwrap();
        let len = len.min(512 - at);
        forge(&mut block, at, &bytes[..len]);
        if let Ok(entries) = TableBlock::read(&block, &layout(512), &TABLE, 0) {
            let again = encode(entries, 0).unwrap();
            prop_assert_eq!(again, block);
        }
    }
}

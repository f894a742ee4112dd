use proptest::prelude::*;

use super::*;
use crate::format::EncodeError;

fn record(entries: u32) -> SegmentRecord {
    SegmentRecord {
        generation: 40,
        used: true,
        unverified: true,
        bad: false,
        stream: Stream::Kept,
        settled: entries / 2,
        entries,
        next_block: 7,
        table: 0,
    }
}

/// A small number of segments with many blocks, so that live bits reach over several blocks.
fn long_layout() -> Layout {
    Layout { segment_blocks: 1 << 16, segment_count: 8, ..layout(512) }
}

type Records = Vec<(SegmentRecord, Vec<u64>)>;

fn write(layout: &Layout, records: &Records, piece: usize) -> Result<Body<Vec<u8>>, EncodeError> {
    let mut writer = RecordWriter::new(layout);
    for (record, live) in records {
        let more = || Ok::<_, EncodeError>(vec![0xEE; piece * layout.block_size as usize]);
        writer.add(record, live, more)?;
    }
    writer.finish()
}

/// Seals a body, and reads it back.
fn read(layout: &Layout, body: &mut Body<Vec<u8>>) -> Result<Records, Damage> {
    let header = CheckpointHeader::new(layout, 6, (90, 100), body.len);
    let mut block = vec![0xEE; layout.block_size as usize];
    header.encode(&mut block, layout).unwrap();
    let header = CheckpointHeader::read(&block, layout).unwrap();
    assert_eq!(header.body_blocks(layout), body.blocks);
    let mut first = 0;
    for piece in &mut body.pieces {
        BodyBlock::seal_all(piece, layout, 6, first).unwrap();
        first += (piece.len() / layout.block_size as usize) as u64;
    }
    read_blocks(layout, header, &body.pieces.concat())
}

fn read_blocks(
    layout: &Layout,
    header: &CheckpointHeader,
    bytes: &[u8],
) -> Result<Records, Damage> {
    let mut reader = RecordReader::new(layout, header);
    let mut records = Vec::new();
    let mut blocks = bytes.chunks_exact(layout.block_size as usize);
    while reader.blocks_left() > 0 {
        let block = blocks.next().unwrap_or_default();
        reader.take(block, |segment, record, live| {
            assert_eq!(segment as usize, records.len());
            records.push((*record, live.to_vec()));
        })?;
    }
    reader.finish()?;
    Ok(records)
}

fn all_unused(layout: &Layout) -> Records {
    vec![(SegmentRecord::unused(3, true), Vec::new()); layout.segment_count as usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_are_read_back_through_pieces_of_any_size(
        lens in prop::collection::vec(0_u32..20_000, 8),
        word in any::<u64>(),
        piece in 1_usize..9,
    ) {
        let layout = long_layout();
        let records: Records = lens.iter().map(|&entries| {
            if entries % 5 == 0 {
                return (SegmentRecord::unused(entries.into(), entries % 2 == 0), Vec::new());
            }
            let record = record(entries);
            let mut live = vec![word; record.words()];
            if entries % 64 != 0 {
                *live.last_mut().unwrap() &= (1 << (entries % 64)) - 1;
            }
            (record, live)
        }).collect();
        let mut body = write(&layout, &records, piece).unwrap();
        prop_assert_eq!(read(&layout, &mut body).unwrap(), records);
    }

    #[test]
    fn forged_bodies_are_refused_or_read_but_never_panic(
        at in 48_usize..400,
        bytes in any::<[u8; 8]>(),
        len in 1_usize..=8,
    ) {
        let layout = long_layout();
        let mut records = all_unused(&layout);
        records[2] = (record(70), vec![u64::MAX, 0]);
        let mut body = write(&layout, &records, 1).unwrap();
        read(&layout, &mut body).unwrap();
        forge(&mut body.pieces[0], at, &bytes[..len]);
        let header = CheckpointHeader::new(&layout, 6, (90, 100), body.len);
        if let Ok(found) = read_blocks(&layout, &header, &body.pieces.concat()) {
            let mut again = write(&layout, &found, 1).unwrap();
            prop_assert_eq!(read(&layout, &mut again).unwrap(), found);
        }
    }
}

#[test]
fn the_longest_body_fits_its_container() {
    for layout in [layout(512), layout(4096), long_layout()] {
        let full = layout.segment_blocks;
        let live = vec![u64::MAX; full.div_ceil(64) as usize];
        // No segment has that many entries and also a table; the bound does not depend on that.
        let entries = (0..=full).rev().find(|&n| layout.table_block(n) > 7).unwrap();
        let mut live = live[..entries.div_ceil(64) as usize].to_vec();
        if entries % 64 != 0 {
            *live.last_mut().unwrap() &= (1 << (entries % 64)) - 1;
        }
        let records = vec![(record(entries), live); layout.segment_count as usize];
        let body = write(&layout, &records, 1).unwrap();
        assert!(body.len <= layout.max_body_len());
        assert!((body.blocks + 1) * u64::from(layout.block_size) <= layout.min_container_len());
    }
}

#[test]
fn every_flipped_bit_of_header_and_body_is_found() {
    let layout = layout(512);
    let mut body = write(&layout, &all_unused(&layout), 1).unwrap();
    read(&layout, &mut body).unwrap();
    every_flip_is_found(&mut body.pieces[0], 512, |block| {
        BodyBlock::read(block, &layout, 6, 0).map(drop)
    });
    let mut block = [0; 512];
    CheckpointHeader::new(&layout, 6, (90, 100), 64).encode(&mut block, &layout).unwrap();
    every_flip_is_found(&mut block, 128, |block| CheckpointHeader::read(block, &layout).map(drop));
}

#[test]
fn blocks_of_another_checkpoint_or_place_are_refused() {
    let layout = layout(512);
    let mut block = [0; 512];
    BodyBlock::seal(&mut block, &layout, 6, 2).unwrap();
    let read = |layout: &Layout, number, index| {
        BodyBlock::read(&block, layout, number, index).map(drop).unwrap_err()
    };
    assert_eq!(read(&layout, 7, 2), Damage::WrongPlace { found: 6, expected: 7 });
    assert_eq!(read(&layout, 6, 1), Damage::WrongPlace { found: 2, expected: 1 });
    assert_eq!(read(&other_member(512), 6, 2), Damage::ForeignStore);
    assert!(BodyBlock::seal(&mut block, &layout, 0, 2).is_err());
}

#[test]
fn checkpoint_header_fields_out_of_bounds_are_refused() {
    let layout = layout(512);
    let forgeries: &[(usize, &[u8])] = &[
        (32, &[0; 8]),
        (39, &[0xFF]),
        (40, &[100]),
        (48, &[90]),
        (55, &[0xFF]),
        (56, &[0xFF; 8]),
        (64, &[1]),
        (68, &[1]),
        (127, &[1]),
    ];
    for (at, bytes) in forgeries {
        let mut block = [0; 512];
        CheckpointHeader::new(&layout, 6, (90, 100), 64).encode(&mut block, &layout).unwrap();
        forge(&mut block[..128], *at, bytes);
        inconsistent(CheckpointHeader::read(&block, &layout));
    }
}

#[test]
fn records_that_lie_are_refused() {
    let layout = layout(512);
    let good = record(20);
    let none = SegmentRecord::unused(3, false);
    for (record, live) in [
        (SegmentRecord { generation: 0, ..good }, 0),
        (SegmentRecord { generation: u64::MAX, ..good }, 0),
        (SegmentRecord { generation: u64::MAX, ..none }, 0),
        (SegmentRecord { entries: 65, ..good }, 0),
        (SegmentRecord { settled: 21, ..good }, 0),
        (SegmentRecord { next_block: 0, ..good }, 0),
        // Two blocks of table for 20 entries are three of 512 bytes: the next block is at most 61.
        (SegmentRecord { next_block: 62, ..good }, 0),
        (SegmentRecord { table: u64::MAX, ..good }, 0),
        (SegmentRecord { table: 2, settled: 0, ..record(0) }, 0),
        (SegmentRecord { entries: 1, ..none }, 0),
        (SegmentRecord { next_block: 1, ..none }, 0),
        (SegmentRecord { settled: 1, ..none }, 0),
        (SegmentRecord { table: 1, ..none }, 0),
        (SegmentRecord { unverified: true, ..none }, 0),
        (SegmentRecord { stream: Stream::Kept, ..none }, 0),
        (good, 1 << 20),
    ] {
        let mut records = all_unused(&layout);
        records[1] = (record, vec![live; record.words()]);
        assert!(write(&layout, &records, 1).is_err(), "{record:?}");
    }
    let settled = SegmentRecord { settled: SETTLED_ALL, table: 6, next_block: 61, ..good };
    let mut records = all_unused(&layout);
    records[1] = (settled, vec![1 << 19]);
    let mut body = write(&layout, &records, 1).unwrap();
    assert_eq!(read(&layout, &mut body).unwrap(), records);
    records[1].1.push(0);
    assert!(write(&layout, &records, 1).is_err());
}

#[test]
fn a_body_with_too_many_or_too_few_records_is_refused() {
    let layout = layout(512);
    let mut records = all_unused(&layout);
    records.push(records[0].clone());
    assert!(write(&layout, &records, 1).is_err());
    records.truncate(3);
    assert!(write(&layout, &records, 1).is_err());
    // The reader: a header that counts more bytes, or fewer.
    let mut body = write(&layout, &all_unused(&layout), 1).unwrap();
    read(&layout, &mut body).unwrap();
    for len in [body.len - 32, body.len - 1, 0] {
        let header = CheckpointHeader::new(&layout, 6, (90, 100), len);
        inconsistent(read_blocks(&layout, &header, &body.pieces.concat()));
    }
    let header = CheckpointHeader::new(&layout, 6, (90, 100), body.len + 8);
    inconsistent(read_blocks(&layout, &header, &body.pieces.concat()));
}

#[test]
fn memory_that_is_not_whole_blocks_is_refused() {
    let layout = layout(512);
    for len in [0, 511, 513] {
        let mut writer = RecordWriter::new(&layout);
        let more = || Ok::<_, EncodeError>(vec![0; len]);
        assert!(writer.add(&SegmentRecord::unused(0, false), &[], more).is_err());
    }
    assert!(BodyBlock::seal_all(&mut [0; 513], &layout, 1, 0).is_err());
}

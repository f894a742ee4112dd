//! Makes the seeds of every target, in `seeds/`: `cargo run --example seeds`, in `fuzz/`. Run it
//! again when the format changes.

use std::error::Error;
use std::fs;
use std::path::Path;

use raw_block_fuzz::layout;
use raw_block_store::format::{
    BodyBlock, CheckpointHeader, EncodeError, Entry, Layout, RecordWriter, SegmentFields,
    SegmentHeader, SegmentRecord, SlotHeader, SlotObject, SlotPlace, Stream, Superblock,
    SuperblockState, TableBlock, TableId, body_capacity,
};

const BLOCK: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let layout = layout(512);
    // Put nothing right, or everything: the options of a target.
    for (suffix, options) in [("as-it-is", 0), ("forged", 3)] {
        let save = |target: &str, name: &str, seed: &[u8]| {
            save(target, &format!("{name}-{suffix}"), &[&[options], seed].concat())
        };
        for (name, block) in slots(&layout)? {
            save("slot", name, &block)?;
        }
        for (name, entries) in tables() {
            let block = table(&layout, &entries)?;
            let count = u8::try_from(entries.len())?;
            save("table", name, &[&[count], &block[..]].concat())?;
        }
        for (name, used_of) in [("some", 2), ("all", 1)] {
            let (header, stream) = checkpoint(&layout, used_of)?;
            save("checkpoint", &format!("header-{name}"), &header)?;
            save("checkpoint", &format!("body-{name}"), &stream)?;
        }
        for stream in Stream::ALL {
            let mut block = vec![0; BLOCK];
            let fields = SegmentFields { segment: 3, generation: 9, stream, checkpoint: 2 };
            SegmentHeader::encode(&mut block, &layout, &fields)?;
            save("segment_header", &format!("{stream:?}").to_lowercase(), &block)?;
        }
        for (name, copies) in superblocks(&layout)? {
            save("superblock", name, &copies)?;
        }
    }
    images()?;
    Ok(())
}

fn save(target: &str, name: &str, seed: &[u8]) -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), seed)
}

/// Every image as it is, opened read-only, with forged checksums, and with older states; and one of
/// each kind of edit.
fn images() -> std::io::Result<()> {
    for image in 0..8 {
        let ways = [("plain", 0, 0), ("looked-at", 0, 0x81), ("forged", 8, 2), ("older", 0x10, 3)];
        for (name, options, policy) in ways {
            save("image", &format!("{name}-{image}"), &[image | options, policy])?;
        }
    }
    let edits: [(&str, &[u8]); 7] = [
        ("bytes", &[0, 3, 0, 48, 0, 4, 1, 2, 3, 4]),
        ("block-moved", &[1, 30, 0, 34, 0]),
        ("block-lost", &[2, 30, 0]),
        ("blocks-replayed", &[3, 2, 30, 0, 3]),
        ("bits", &[4, 30, 0, 64, 0, 0x80]),
        ("end", &[5, 100, 1]),
        ("number", &[6, 30, 0, 16, 5]),
    ];
    for (name, edit) in edits {
        for options in [5, 5 | 8] {
            save("image", &format!("{name}-{options}"), &[&[options, 0], edit].concat())?;
        }
    }
    Ok(())
}

/// An object whose payload lies in this block, or in that of the header.
fn entry(block: u32, blocks_back: u32, payload_len: u32) -> Entry {
    Entry {
        key_hash: [1; 16],
        sequence: u64::from(block).into(),
        checksum: 5.into(),
        payload_len: payload_len.into(),
        key_len: 3.into(),
        metadata_len: 4.into(),
        block: block.into(),
        blocks_back: blocks_back.into(),
    }
}

fn slots(layout: &Layout) -> Result<Vec<(&'static str, Vec<u8>)>, EncodeError> {
    let place = SlotPlace { segment: 2, generation: 7, block: 5, blocks: 4, first_entry: 3 };
    let object = |entry| SlotObject { entry, key: b"key", metadata: b"meta" };
    let mut blocks = [const { [0; BLOCK] }; 3];
    let objects = [entry(6, 1, 600), entry(5, 0, 0), entry(8, 3, 512)].map(object);
    SlotHeader::encode(&mut blocks[0], layout, &place, objects.into_iter(), b"")?;
    let alone = SlotPlace { blocks: 1, ..place };
    let objects = [entry(5, 0, 6)].map(object);
    SlotHeader::encode(&mut blocks[1], layout, &alone, objects.into_iter(), b"inline")?;
    SlotHeader::encode_tombstones(&mut blocks[2], layout, &alone, 30, &[[8; 16], [9; 16]])?;
    let names = ["shared", "inline", "tombstones"];
    Ok(names.into_iter().zip(blocks.map(Vec::from)).collect())
}

fn tables() -> [(&'static str, Vec<Entry>); 3] {
    let (one, large, inline) = (entry(2, 1, 600), entry(4, 3, 1), entry(6, 0, 6));
    let tombstone = Entry::tombstone(9, 5);
    [
        ("mixed", vec![one, large, tombstone, Entry::EMPTY, inline]),
        ("tombstones", vec![tombstone, Entry::tombstone(12, 7)]),
        ("alone", vec![one]),
    ]
}

fn table(layout: &Layout, entries: &[Entry]) -> Result<Vec<u8>, Box<dyn Error>> {
    let entries_of = u32::try_from(entries.len())?;
    let table = TableId { generation: 7, checkpoint: 3, entries: entries_of };
    let mut block = vec![0; BLOCK];
    TableBlock::entries_mut(&mut block, layout, &table, 0)?.copy_from_slice(entries);
    TableBlock::seal(&mut block, layout, &table, 0)?;
    Ok(block)
}

/// The first halves of two copies: of one generation, of two, and of a store that was closed and
/// opened again.
fn superblocks(layout: &Layout) -> Result<[(&'static str, Vec<u8>); 3], EncodeError> {
    let cell = |generation: u64, state| {
        let mut superblock = Superblock::new(layout, &[9; 16], 12 * layout.segment_size());
        superblock.generation = generation.into();
        superblock.set_state(state);
        let mut cell = vec![0; 4096];
        superblock.encode(&mut cell)?;
        cell.truncate(2048);
        Ok::<_, EncodeError>(cell)
    };
    let clean = |generation| cell(generation, SuperblockState::Clean { checkpoint: 4 });
    let open = |generation| cell(generation, SuperblockState::Open);
    Ok([
        ("same", [clean(3)?, clean(3)?].concat()),
        ("newer", [open(5)?, open(6)?].concat()),
        ("opened", [clean(7)?, open(9)?].concat()),
    ])
}

/// A checkpoint in which each segment with a number that is a multiple of `used_of` is used.
fn checkpoint(layout: &Layout, used_of: u32) -> Result<(Vec<u8>, Vec<u8>), EncodeError> {
    let mut writer = RecordWriter::new(layout);
    for segment in 0..layout.segment_count {
        let mut record = SegmentRecord::unused(segment.into(), segment == 1);
        let mut live = Vec::new();
        if segment % used_of == 0 {
            record = SegmentRecord {
                generation: 5,
                used: true,
                stream: Stream::Kept,
                settled: 3,
                entries: 6,
                next_block: 20,
                table: segment.into(),
                ..record
            };
            live.push(0b10_1011);
        }
        writer.add(&record, &live, || Ok::<_, EncodeError>(vec![0; BLOCK]))?;
    }
    let body = writer.finish()?;
    let mut header = vec![0; BLOCK];
    CheckpointHeader::new(layout, 7, (1, 2), body.len).encode(&mut header, layout)?;
    let stream = body
        .pieces
        .into_iter()
        .flat_map(|mut block| BodyBlock::stream_mut(&mut block)[..body_capacity(512)].to_vec());
    Ok((header, stream.take(body.len as usize).collect()))
}

//! How long a recovery takes: `cargo test --release --lib recovery::tests::measure -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use raw_block_core::{Dispatcher, IoBackend, MemoryBackend, WriteAt};

use crate::Error;
use crate::format::{
    BodyBlock, CheckpointHeader, Entry, Layout, LayoutRequest, RecordWriter, SETTLED_ALL,
    SegmentFields, SegmentHeader, SegmentRecord, SlotHeader, SlotObject, SlotPlace, Stream,
    TableBlock, TableId,
};
use crate::open::recovery::{LeftAs, recover};
use crate::options::OpenOptions;
use crate::state::space::Shape;

const BLOCK: u32 = 4096;
/// Blocks of an object of 64 KiB.
const OBJECT_BLOCKS: u32 = 16;
const OBJECTS_PER_SLOT: u32 = 36;
const SLOT_BLOCKS: u32 = 1 + OBJECTS_PER_SLOT * OBJECT_BLOCKS;
/// Full segments that were opened after the checkpoint.
const NEWER_PART: u32 = 32;

/// A store with this many objects of 64 KiB, whose segments are full: the last ones were opened after the checkpoint,
/// which names the others by their tables.
struct Large {
    dispatcher: Dispatcher,
    layout: Layout,
    per_segment: u32,
}

fn entry(segment: u32, number: u32, block: u32, blocks_back: u32, sequence: u64) -> Entry {
    let mut key_hash = [0; 16];
    let name = u64::from(segment) << 32 | u64::from(number);
    let spread = name.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key_hash[..8].copy_from_slice(&spread.to_le_bytes());
    key_hash[8..].copy_from_slice(&spread.rotate_left(32).wrapping_mul(31).to_le_bytes());
    Entry {
        key_hash,
        sequence: sequence.into(),
        payload_len: (OBJECT_BLOCKS * BLOCK).into(),
        key_len: 16.into(),
        block: block.into(),
        blocks_back: blocks_back.into(),
        ..Entry::EMPTY
    }
}

impl Large {
    fn new(objects: u32) -> Self {
        let segment_size = 256 << 20;
        let segment_blocks = (segment_size / u64::from(BLOCK)) as u32;
        let per_segment = (segment_blocks - 100) / SLOT_BLOCKS * OBJECTS_PER_SLOT;
        let used = objects.div_ceil(per_segment);
        let capacity = u64::from(used + 4) * segment_size + (1 << 30);
        let request = LayoutRequest {
            capacity,
            block_size: BLOCK,
            segment_size: Some(segment_size),
            largest_object: None,
        };
        let layout = Layout::plan(&request).unwrap().with_identity(&[3; 16], &[7; 16]);
        let backend: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(capacity).unwrap());
        let large = Self { dispatcher: Dispatcher::new(backend).unwrap(), layout, per_segment };
        let mut records =
            vec![(SegmentRecord::unused(0, false), Vec::new()); layout.segment_count as usize];
        let newer = used / NEWER_PART;
        for segment in 0..used {
            let generation = 1 + u64::from(segment) * u64::from(per_segment + 1);
            if segment < used - newer {
                large.table(segment, generation);
                let record = SegmentRecord {
                    used: true,
                    settled: SETTLED_ALL,
                    entries: per_segment,
                    next_block: 1,
                    table: 1,
                    ..SegmentRecord::unused(generation, false)
                };
                let mut live = vec![u64::MAX; per_segment.div_ceil(64) as usize];
                if !per_segment.is_multiple_of(64) {
                    *live.last_mut().unwrap() = (1 << (per_segment % 64)) - 1;
                }
                records[segment as usize] = (record, live);
            } else {
                large.slots(segment, generation);
            }
            large.header(segment, generation);
        }
        let covered = u64::from(used - newer) * u64::from(per_segment + 1);
        large.checkpoint(&records, covered);
        large
    }

    fn write(&self, segment: u32, block: u32, bytes: &[u8]) {
        let offset = self.layout.block_offset(segment, block);
        self.dispatcher.write_buffers(&[WriteAt::new(offset, bytes)]).all().unwrap();
    }

    fn header(&self, segment: u32, generation: u64) {
        let fields = SegmentFields { segment, generation, stream: Stream::New, checkpoint: 1 };
        let mut block = vec![0; BLOCK as usize];
        SegmentHeader::encode(&mut block, &self.layout, &fields).unwrap();
        self.write(segment, 0, &block);
    }

    fn entry(&self, segment: u32, generation: u64, number: u32) -> Entry {
        let header = 1 + number / OBJECTS_PER_SLOT * SLOT_BLOCKS;
        let back = 1 + number % OBJECTS_PER_SLOT * OBJECT_BLOCKS;
        entry(segment, number, header + back, back, generation + 1 + u64::from(number))
    }

    fn table(&self, segment: u32, generation: u64) {
        let id = TableId { generation, checkpoint: 1, entries: self.per_segment };
        let first = self.layout.table_block(id.entries);
        let mut block = vec![0; BLOCK as usize];
        for index in 0..self.layout.table_blocks(id.entries) {
            let entries = TableBlock::entries_mut(&mut block, &self.layout, &id, index).unwrap();
            for (number, entry) in id.numbers(&self.layout, index).zip(entries) {
                *entry = self.entry(segment, generation, number);
            }
            TableBlock::seal(&mut block, &self.layout, &id, index).unwrap();
            self.write(segment, first + index, &block);
        }
    }

    fn slots(&self, segment: u32, generation: u64) {
        let mut block = vec![0; BLOCK as usize];
        for first in (0..self.per_segment).step_by(OBJECTS_PER_SLOT as usize) {
            let at = 1 + first / OBJECTS_PER_SLOT * SLOT_BLOCKS;
            let place = SlotPlace {
                segment,
                generation,
                block: at,
                blocks: SLOT_BLOCKS,
                first_entry: first,
            };
            let objects: Vec<_> = (first..first + OBJECTS_PER_SLOT)
                .map(|number| self.entry(segment, generation, number))
                .map(|entry| SlotObject { entry, key: &[1; 16], metadata: &[] })
                .collect();
            SlotHeader::encode(&mut block, &self.layout, &place, objects.into_iter(), &[]).unwrap();
            self.write(segment, at, &block);
        }
    }

    fn checkpoint(&self, records: &[(SegmentRecord, Vec<u64>)], covered: u64) {
        let mut writer = RecordWriter::new(&self.layout);
        for (record, live) in records {
            writer.add::<Error>(record, live, || Ok(vec![0; BLOCK as usize])).unwrap();
        }
        let body = writer.finish().unwrap();
        let mut offset = self.layout.container_offset[0];
        let mut block = vec![0; BLOCK as usize];
        let header = CheckpointHeader::new(&self.layout, 1, (covered, covered + 1), body.len);
        header.encode(&mut block, &self.layout).unwrap();
        self.dispatcher.write_buffers(&[WriteAt::new(offset, &block)]).all().unwrap();
        for (index, mut block) in (0..).zip(body.pieces) {
            BodyBlock::seal(&mut block, &self.layout, 1, index).unwrap();
            offset += u64::from(BLOCK);
            self.dispatcher.write_buffers(&[WriteAt::new(offset, &block)]).all().unwrap();
        }
    }
}

/// Processor time of this thread, in seconds.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
#[ignore = "it measures"]
fn recoveries_of_many_objects() {
    let objects = std::env::var("OBJECTS").map_or(1_000_000, |text| text.parse().unwrap());
    let large = Large::new(objects);
    for left in [LeftAs { clean: None, named: 0 }, LeftAs { clean: Some(1), named: 1 }] {
        let before = large.dispatcher.stats().read_bytes;
        let (cpu, wall) = (processor_time(), Instant::now());
        let shape = Shape::of(&large.layout);
        let options = OpenOptions::default();
        let recovered = recover(&large.dispatcher, &large.layout, &shape, left, &options).unwrap();
        let cpu = processor_time() - cpu;
        println!(
            "{} objects, clean {}: {cpu:.3} s of processor time, {:.3} s, {} MiB read",
            recovered.index.len(),
            left.clean.is_some(),
            wall.elapsed().as_secs_f64(),
            (large.dispatcher.stats().read_bytes - before) >> 20,
        );
    }
}

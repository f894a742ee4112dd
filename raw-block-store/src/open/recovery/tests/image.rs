//! A store on a simulated device, written structure by structure.

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{Dispatcher, Geometry};

use crate::Error;
use crate::format::{
    BodyBlock, CheckpointHeader, Entry, KeyHash, Layout, LayoutRequest, PayloadPlace, RecordWriter,
    SETTLED_ALL, SegmentFields, SegmentHeader, SegmentRecord, SlotHeader, SlotObject, SlotPlace,
    Stream, TableBlock, TableId, payload_checksum,
};
use crate::open::recovery::{Recovery, ShutdownState, recover};
use crate::options::OpenOptions;
use crate::state::hash::key_hash;
use crate::state::space::Shape;

pub(super) const BLOCK: usize = 512;
pub(super) const SEGMENT_BLOCKS: u32 = 64;

/// The image of a store with 8 segments.
pub(super) struct Image {
    pub(super) device: SimulatedDevice,
    pub(super) layout: Layout,
    /// Records of the next checkpoint and their live bits.
    pub(super) records: Vec<(SegmentRecord, Vec<u64>)>,
}

/// An object to be put: key, sequence, payload.
pub(super) type Object<'a> = (&'a str, u64, &'a [u8]);

impl Image {
    /// A store without a checkpoint. All segments are unused in the first one.
    pub(super) fn new() -> Self {
        let segment_size = u64::from(SEGMENT_BLOCKS) * BLOCK as u64;
        let capacity = 8 * segment_size + (128 << 10);
        let request = LayoutRequest {
            capacity,
            block_size: BLOCK as u32,
            segment_size: Some(segment_size),
            largest_object: None,
        };
        let layout = Layout::plan(&request).unwrap().with_identity(&[3; 16], &[7; 16]);
        let device = SimulatedDevice::new(Geometry::new(capacity, 512).unwrap(), 0).unwrap();
        let records =
            vec![(SegmentRecord::unused(0, false), Vec::new()); layout.segment_count as usize];
        Self { device, layout, records }
    }

    pub(super) fn hash(&self, key: &str) -> KeyHash {
        key_hash(&self.layout.hash_key, key.as_bytes())
    }

    /// Says in the next checkpoint that a segment is used, and which of its entries are live.
    pub(super) fn record(&mut self, segment: u32, generation: u64, entries: u32, live: &[u32]) {
        let mut words = vec![0; entries.div_ceil(64) as usize];
        live.iter().for_each(|number| words[*number as usize / 64] |= 1 << (number % 64));
        let record = SegmentRecord {
            used: true,
            settled: SETTLED_ALL,
            entries,
            next_block: 1,
            ..SegmentRecord::unused(generation, false)
        };
        self.records[segment as usize] = (record, words);
    }

    /// Writes a checkpoint with the records as they are.
    pub(super) fn checkpoint(&self, container: usize, number: u64, covered: u64, next: u64) {
        let mut writer = RecordWriter::new(&self.layout);
        for (record, live) in &self.records {
            writer.add::<Error>(record, live, || Ok(vec![0; BLOCK])).unwrap();
        }
        let body = writer.finish().unwrap();
        let start = self.layout.container_offset[container];
        for (index, mut block) in (0..).zip(body.pieces) {
            BodyBlock::seal(&mut block, &self.layout, number, index).unwrap();
            self.device.poke(start + (1 + index) * BLOCK as u64, &block);
        }
        let mut block = [0; BLOCK];
        let header = CheckpointHeader::new(&self.layout, number, (covered, next), body.len);
        header.encode(&mut block, &self.layout).unwrap();
        self.device.poke(start, &block);
    }

    /// Writes the header of a segment.
    pub(super) fn open(&self, segment: u32, generation: u64, checkpoint: u64) {
        let fields = SegmentFields { segment, generation, stream: Stream::New, checkpoint };
        let mut block = [0; BLOCK];
        SegmentHeader::encode(&mut block, &self.layout, &fields).unwrap();
        self.poke(segment, 0, &block);
    }

    /// Writes a slot of objects, each with a payload of whole blocks. Returns their entries.
    pub(super) fn slot(
        &self,
        (segment, generation): (u32, u64),
        block: u32,
        first_entry: u32,
        objects: &[Object<'_>],
    ) -> Vec<Entry> {
        let mut next = block + 1;
        let mut entries = Vec::new();
        for (key, sequence, payload) in objects {
            let place = PayloadPlace { segment, generation, block: next, sequence: *sequence };
            entries.push(Entry {
                key_hash: self.hash(key),
                sequence: (*sequence).into(),
                checksum: payload_checksum(&self.layout, &place, payload).into(),
                payload_len: (payload.len() as u32).into(),
                key_len: (key.len() as u16).into(),
                metadata_len: 0.into(),
                block: next.into(),
                blocks_back: (next - block).into(),
            });
            self.poke(segment, next, payload);
            next += payload.len().div_ceil(BLOCK) as u32;
        }
        let place = SlotPlace { segment, generation, block, blocks: next - block, first_entry };
        let names = objects.iter().zip(&entries);
        let names = names.map(|((key, ..), entry)| SlotObject {
            entry: *entry,
            key: key.as_bytes(),
            metadata: &[],
        });
        let names = names.collect::<Vec<_>>().into_iter();
        let mut header = [0; BLOCK];
        SlotHeader::encode(&mut header, &self.layout, &place, names, &[]).unwrap();
        self.poke(segment, block, &header);
        entries
    }

    /// Writes a tombstone slot. Returns its entry.
    pub(super) fn tombstone(
        &self,
        (segment, generation): (u32, u64),
        block: u32,
        number: u32,
        sequence: u64,
        keys: &[&str],
    ) -> Entry {
        let place = SlotPlace { segment, generation, block, blocks: 1, first_entry: number };
        let hashes: Vec<_> = keys.iter().map(|key| self.hash(key)).collect();
        let mut header = [0; BLOCK];
        SlotHeader::encode_tombstones(&mut header, &self.layout, &place, sequence, &hashes)
            .unwrap();
        self.poke(segment, block, &header);
        Entry::tombstone(sequence, block)
    }

    /// Writes the table of a segment, and says so in the next checkpoint.
    pub(super) fn table(&mut self, segment: u32, checkpoint: u64, entries: &[Entry]) {
        let record = &mut self.records[segment as usize].0;
        record.table = checkpoint;
        let table =
            TableId { generation: record.generation, checkpoint, entries: entries.len() as u32 };
        let first = self.layout.table_block(table.entries);
        for index in 0..self.layout.table_blocks(table.entries) {
            let mut block = [0; BLOCK];
            let into = TableBlock::entries_mut(&mut block, &self.layout, &table, index).unwrap();
            for (number, entry) in table.numbers(&self.layout, index).zip(into) {
                *entry = entries[number as usize];
            }
            TableBlock::seal(&mut block, &self.layout, &table, index).unwrap();
            self.poke(segment, first + index, &block);
        }
    }

    pub(super) fn poke(&self, segment: u32, block: u32, bytes: &[u8]) {
        self.device.poke(self.layout.block_offset(segment, block), bytes);
    }

    /// Makes a block of a segment unreadable.
    pub(super) fn break_block(&self, segment: u32, block: u32) {
        let offset = self.layout.block_offset(segment, block);
        let range = offset..offset + BLOCK as u64;
        self.device.inject(DeviceFault::bad_medium(OpKind::Read).within(range));
    }

    pub(super) fn recover(&self) -> Result<Recovery, Error> {
        self.recover_as(ShutdownState { clean: None, oldest: 0 }, false)
    }

    pub(super) fn recover_as(&self, left: ShutdownState, accept: bool) -> Result<Recovery, Error> {
        let dispatcher = Dispatcher::new(self.device.backend()).unwrap();
        let options = OpenOptions::default().accept_older_states(accept);
        recover(&dispatcher, &self.layout, &Shape::of(&self.layout), left, &options)
    }

    /// The sequence of the object that a recovery finds for a key.
    pub(super) fn found(&self, recovered: &Recovery, key: &str) -> Option<u64> {
        recovered.index.find(&self.hash(key)).map(|found| found.sequence())
    }
}

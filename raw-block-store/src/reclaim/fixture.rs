//! A small store without its calls, to test checkpoints and reclaims.

use std::sync::Arc;

use raw_block_core::simulated::SimulatedDevice;
use raw_block_core::{AlignedBuf, Dispatcher, Geometry, ReadAt, WriteAt};

use crate::Error;
use crate::format::{
    CONTAINERS, CheckpointHeader, Entry, Layout, LayoutRequest, RecordReader, SegmentRecord,
    SlotHeader, SlotObject, SlotPlace, Superblock, payload_checksum,
};
use crate::io::segment_header;
use crate::io::superblocks::Superblocks;
use crate::options::{EvictionPolicy, OpenOptions};
use crate::reclaim;
use crate::state::containers::Containers;
use crate::state::index::{Index, KeyHash, Located, Place, Published};
use crate::state::space::{
    Allocation, Batch, CommittedCheckpoint, Demand, Outcome, Shape, Shortage, Slot, Space,
};
use crate::state::{NoSpace, StateParts, StoreState};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;
/// The same.
const BLOCK_SIZE: u32 = 512;
/// Blocks of a segment.
pub(crate) const SEGMENT: u64 = 64;

/// A store on a simulated device, with segments of 64 blocks of 512 bytes.
pub(crate) struct Fixture {
    pub(crate) device: SimulatedDevice,
    pub(crate) state: Arc<StoreState>,
    /// Whether calls wait for segments that drain, as those of a store do. Otherwise they fail.
    pub(crate) waits: bool,
}

/// The committed checkpoint as it lies on the device.
pub(crate) struct OnDevice {
    pub(crate) header: CheckpointHeader,
    pub(crate) records: Vec<(SegmentRecord, Vec<u64>)>,
}

impl Fixture {
    pub(crate) fn new(segments: u64, eviction: EvictionPolicy) -> Self {
        Self::with(segments, &OpenOptions::default().eviction(eviction).background(false))
    }

    pub(crate) fn with(segments: u64, options: &OpenOptions) -> Self {
        let segment = SEGMENT * BLOCK as u64;
        let capacity = (segments * segment + (64 << 10)).next_multiple_of(4096);
        let request = LayoutRequest {
            capacity,
            block_size: BLOCK_SIZE,
            segment_size: Some(segment),
            largest_object: None,
        };
        let mut layout = Layout::plan(&request).unwrap();
        (layout.member, layout.hash_key) = ([7; 16], [8; 16]);
        let mut geometry = Geometry::new(capacity, BLOCK_SIZE).unwrap();
        geometry.discard = true;
        let device = SimulatedDevice::new(geometry, 1).unwrap();
        let shape = Shape::of(&layout);
        let committed = CommittedCheckpoint { number: 1, covered: 0 };
        let space = Space::new(shape, options.eviction, committed, 1);
        let state = StoreState::new(StateParts {
            dispatcher: Dispatcher::new(device.backend()).unwrap(),
            layout,
            options: options.clone(),
            index: Index::new(layout.segment_count),
            space,
            superblocks: Superblocks::new(Superblock::new(&layout, &[9; 16], capacity)),
            containers: Containers::new(0, [1, 0, 0]),
        });
        Self { device, state: Arc::new(state), waits: false }
    }

    /// Puts an object with a payload of `len` bytes, all equal to `fill`.
    pub(crate) fn put(&self, key: u64, len: usize, fill: u8) -> Result<(), Error> {
        let begun = self.begin_put(key, len, fill)?;
        self.publish(&begun);
        Ok(())
    }

    /// Allocates and writes an object, and does not publish it yet.
    pub(crate) fn begin_put(&self, key: u64, len: usize, fill: u8) -> Result<PendingPut, Error> {
        let state = &self.state;
        let length = u32::try_from(len).unwrap();
        let (mut batch, mut out) = (Batch::default(), Allocation::default());
        batch.fill(&state.shape, [Demand { names: 8, payload_len: length }]);
        self.until_allocated(|| state.allocate(&mut batch, &mut out))?;
        let slot = out.slots[0].clone();
        if let Some(opened) = &slot.opened {
            segment_header::write(state, opened);
        }
        let object = out.objects[0];
        let payload = vec![fill; len];
        let mut entry = Entry {
            key_hash: hash(key),
            sequence: object.sequence.into(),
            checksum: 0.into(),
            payload_len: length.into(),
            key_len: 8.into(),
            metadata_len: 0.into(),
            block: object.block.into(),
            blocks_back: object.blocks_back.into(),
        };
        let place = entry.place(slot.segment, slot.generation);
        entry.checksum = payload_checksum(&state.layout, &place, &payload).into();
        let mut bytes = AlignedBuf::zeroed(slot.blocks as usize * BLOCK).unwrap();
        let (header, rest) = bytes.split_at_mut(BLOCK);
        let slot_place = SlotPlace {
            segment: slot.segment,
            generation: slot.generation,
            block: slot.block,
            blocks: slot.blocks,
            first_entry: slot.first_number,
        };
        let key = key.to_le_bytes();
        let named = [SlotObject { entry, key: &key, metadata: &[] }];
        let inline = if object.inline { &payload[..] } else { &[] };
        SlotHeader::encode(header, &state.layout, &slot_place, named.into_iter(), inline).unwrap();
        if !object.inline {
            rest[..len].copy_from_slice(&payload);
        }
        let offset = state.layout.block_offset(slot.segment, slot.block);
        state.dispatcher.write_buffers(&[WriteAt::new(offset, &bytes)]).all().unwrap();
        let place = Place { segment: slot.segment, number: object.number };
        Ok(PendingPut { located: Located { place, entry }, slot, out })
    }

    /// Repeats an allocation until it succeeds. What would have to wait fails like what finds no
    /// space at all, unless calls wait.
    fn until_allocated(
        &self,
        mut allocate: impl FnMut() -> Result<(), NoSpace>,
    ) -> Result<(), Error> {
        let mut attempts = 0;
        while let Err(no_space) = allocate() {
            attempts += 1;
            match no_space {
                NoSpace::Space(Shortage::Wait) if self.waits => {
                    attempts = 0;
                    self.state.free_drained();
                    std::thread::yield_now();
                }
                NoSpace::Space(Shortage::Reclaim) if attempts < 20 => {
                    reclaim::make_space(&self.state)?;
                }
                NoSpace::Space(_) => return Err(full()),
                NoSpace::Memory(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn publish(&self, begun: &PendingPut) {
        let PendingPut { located, slot, out } = begun;
        let (outcome, dropped) = match self.state.index.publish(located) {
            Published::Shown { replaced } => (Outcome::Shown, replaced),
            Published::Superseded => (Outcome::Superseded, None),
        };
        self.state.published(slot, out.objects_of(slot), [outcome], dropped.as_slice());
    }

    /// Deletes an object, and writes no tombstone to the device.
    pub(crate) fn delete(&self, key: u64) {
        let mut out = Allocation::default();
        self.until_allocated(|| self.state.allocate_tombstones(&mut out)).unwrap();
        self.publish_delete(key, &out);
    }

    /// Publishes a delete whose tombstone was allocated.
    pub(crate) fn publish_delete(&self, key: u64, out: &Allocation) {
        let state = &self.state;
        let slot = &out.slots[0];
        if let Some(opened) = &slot.opened {
            segment_header::write(state, opened);
        }
        let sequence = out.objects[0].sequence;
        let place = Place { segment: slot.segment, number: slot.first_number };
        state.index.set_tombstone(place, &Entry::tombstone(sequence, slot.block));
        let deleted = state.index.delete(&hash(key), sequence, u64::MAX);
        state.published(slot, out.objects_of(slot), [Outcome::Shown], deleted.as_slice());
    }

    /// The payload of an object: the byte that it consists of, or `None` if it is not there.
    pub(crate) fn get(&self, key: u64) -> Option<u8> {
        let object = self.state.index.find(&hash(key))?;
        let (layout, entry) = (&self.state.layout, &object.entry);
        let len = entry.payload_len.get() as usize;
        let blocks = entry.payload_blocks(layout.block_size).max(1) as usize;
        let mut bytes = AlignedBuf::zeroed(blocks * BLOCK).unwrap();
        let offset = layout.block_offset(object.place.segment, entry.block.get());
        let read = ReadAt::new(offset, &mut bytes);
        self.state.dispatcher.read_buffers(&mut [read]).all().unwrap();
        let start = if entry.is_inline() { entry.inline_offset() } else { 0 };
        let payload = &bytes[start..start + len];
        let generation = self.state.readers.generation(object.place.segment);
        entry.verify_payload(layout, object.place.segment, generation, payload).unwrap();
        payload.first().copied()
    }

    pub(crate) fn locate(&self, key: u64) -> Option<Located> {
        self.state.index.find(&hash(key))
    }

    /// Reads the newest valid checkpoint.
    pub(crate) fn checkpoint(&self) -> OnDevice {
        let layout = &self.state.layout;
        let newest = (0..CONTAINERS)
            .filter_map(|container| {
                let block = self.device.peek(layout.container_offset[container], BLOCK);
                Some((container, *CheckpointHeader::read(&block, layout).ok()?))
            })
            .max_by_key(|(_, header)| header.number.get());
        let (container, header) = newest.expect("there is a checkpoint");
        let mut reader = RecordReader::new(layout, &header);
        let mut records = Vec::new();
        for block in 1..=header.body_blocks(layout) {
            let offset = layout.container_offset[container] + block * BLOCK as u64;
            let bytes = self.device.peek(offset, BLOCK);
            reader.take(&bytes, |_, record, live| records.push((*record, live.to_vec()))).unwrap();
        }
        OnDevice { header, records }
    }
}

/// An object that is written and not published.
pub(crate) struct PendingPut {
    pub(crate) located: Located,
    pub(crate) slot: Slot,
    pub(crate) out: Allocation,
}

impl OnDevice {
    /// Whether the checkpoint names an entry.
    pub(crate) fn names(&self, place: Place) -> bool {
        let (record, live) = &self.records[place.segment as usize];
        let word = live.get(place.number as usize / 64).copied().unwrap_or(0);
        record.used && word >> (place.number % 64) & 1 == 1
    }

    pub(crate) fn record(&self, segment: u32) -> &SegmentRecord {
        &self.records[segment as usize].0
    }
}

fn hash(key: u64) -> KeyHash {
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    hash[8..].copy_from_slice(&key.to_le_bytes());
    hash
}

/// An error that means that the store is full.
fn full() -> Error {
    Error::OutOfSpace { segments: 0, objects: 0, pinned: 0, bad: 0 }
}

//! Stores of very many segments, up to the largest that the format knows, on devices of more than
//! 2^48 bytes.
//!
//! The largest takes some GiB of memory and some minutes, so it runs only when asked for:
//!
//! ```console
//! $ cargo test --release -p raw-block-store --test limits -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use common::{fake, layout, payload, read, without_thread, write};
use raw_block_core::Geometry;
use raw_block_core::backend::{Completion, IoBackend, Op, OpKind};
use raw_block_store::format::{
    Layout, LayoutRequest, MAX_SEGMENT_COUNT, PayloadPlace, SegmentFields, SegmentHeader,
    SlotHeader, SlotObject, SlotPlace, Stream, payload_checksum,
};
use raw_block_store::{Error, FormatOptions, Store};

const SECTOR: usize = 512;

/// A device that keeps only the sectors that are not zero.
struct Sparse {
    geometry: Geometry,
    sectors: Mutex<Sectors>,
}

/// In few and large allocations, because there are millions of them.
#[derive(Default)]
struct Sectors {
    places: HashMap<u64, usize>,
    stored: Vec<[u8; SECTOR]>,
}

impl Sectors {
    fn write(&mut self, at: u64, sector: &[u8; SECTOR]) {
        match self.places.get(&at) {
            Some(&place) => self.stored[place] = *sector,
            None if *sector == [0; SECTOR] => {}
            None => {
                self.places.insert(at, self.stored.len());
                self.stored.push(*sector);
            }
        }
    }

    fn read(&self, at: u64) -> [u8; SECTOR] {
        self.places.get(&at).map_or([0; SECTOR], |&place| self.stored[place])
    }
}

impl Sparse {
    fn of_len(len: u64) -> Arc<dyn IoBackend> {
        let geometry = Geometry::new(len, 512).unwrap();
        fake::backend(Arc::new(Self { geometry, sectors: Mutex::default() }))
    }
}

impl fake::Device for Sparse {
    const NAME: &'static str = "a sparse device";

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn execute(&self, mut op: Op) -> Completion {
        let mut sectors = self.sectors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = op.offset() / SECTOR as u64;
        if op.kind() == OpKind::Write {
            for sector in op.source().iter().flat_map(|segment| segment.as_chunks::<SECTOR>().0) {
                sectors.write(at, sector);
                at += 1;
            }
        } else {
            for sector in op.destination().flat_map(|segment| segment.as_chunks_mut::<SECTOR>().0) {
                *sector = sectors.read(at);
                at += 1;
            }
        }
        op.complete()
    }
}

/// The options of a store, and the length of the smallest device on which it has that many
/// segments.
fn sizes(segments: u32, block_size: u32, segment_blocks: u64) -> (FormatOptions, u64) {
    let segment_size = Some(segment_blocks * u64::from(block_size));
    let options = FormatOptions::default().segment_size(segment_size).block_size(block_size);
    let fits = |capacity| {
        let request = LayoutRequest { capacity, block_size, segment_size, largest_object: None };
        Layout::plan(&request).map_or_else(
            |reason| reason.contains("at most"),
            |layout| layout.segment_count >= segments,
        )
    };
    let (mut low, mut high) = (0, 1 << 62);
    while high - low > 4096 {
        let middle: u64 = low + (high - low) / 2;
        if fits(middle) { high = middle } else { low = middle }
    }
    (options, high.next_multiple_of(4096))
}

/// Writes a newer version of an object to the last segment, as if it had been put there.
fn put_in_the_last_segment(device: &Arc<dyn IoBackend>, key: &[u8], payload: &[u8]) {
    let layout = layout(device);
    let block_size = layout.block_size as usize;
    // The only put went to the first segment.
    let block = read(device, layout.block_offset(0, 1), block_size);
    let slot = SlotHeader::read(&block, &layout, 0, 1).unwrap();
    let object = slot.objects().next().unwrap();

    let segment = layout.segment_count - 1;
    let older = object.entry.sequence.get();
    let (generation, sequence) = (older + 1, older + 2);
    let fields = SegmentFields { segment, generation, stream: Stream::New, checkpoint: 1 };
    let mut blocks = vec![0; 2 * block_size];
    let (segment_header, slot_header) = blocks.split_at_mut(block_size);
    SegmentHeader::encode(segment_header, &layout, &fields).unwrap();
    let place = PayloadPlace { segment, generation, block: 1, sequence };
    let mut entry = *object.entry;
    entry.sequence = sequence.into();
    entry.block = 1.into();
    entry.payload_len = u32::try_from(payload.len()).unwrap().into();
    entry.checksum = payload_checksum(&layout, &place, payload).into();
    let place = SlotPlace { segment, generation, block: 1, blocks: 1, first_entry: 0 };
    let objects = [SlotObject { entry, key, metadata: &[] }];
    SlotHeader::encode(slot_header, &layout, &place, objects.into_iter(), payload).unwrap();
    write(device, layout.segment_offset(segment), &blocks);
}

fn use_the_last_of(segments: u32, block_size: u32, segment_blocks: u64) {
    let began = Instant::now();
    let report = |what: &str| println!("{what} after {:.0?}", began.elapsed());
    let (options, len) = sizes(segments, block_size, segment_blocks);
    let device = Sparse::of_len(len);
    Store::format(device.clone(), &options).unwrap();
    report("formatted");
    let open = || Store::open_with(device.clone(), &without_thread()).unwrap();
    let store = open();
    let stats = store.stats();
    assert_eq!((stats.segments, stats.free_segments), (segments.into(), segments.into()));
    store.put(b"key", b"value").unwrap();
    drop(store);
    put_in_the_last_segment(&device, b"key", b"newer");
    report("put");
    let store = open();
    report("recovered");
    assert_eq!(payload(&store, b"key").unwrap(), b"newer");
    store.put(b"other", b"in another segment").unwrap();
    store.close().unwrap();
    let store = open();
    report("opened");
    assert_eq!(payload(&store, b"key").unwrap(), b"newer");
    store.put(b"key", b"newest").unwrap();
    assert!(store.delete(b"other").unwrap());
    drop(store);
    let store = open();
    assert_eq!(payload(&store, b"key").unwrap(), b"newest");
    assert_eq!((payload(&store, b"other"), store.stats().objects), (None, 1));
    report("recovered again");
}

#[test]
fn the_last_segment_of_a_device_of_512_tebibytes_is_used() {
    use_the_last_of(1 << 9, 65536, 1 << 24);
}

#[test]
#[ignore = "it takes some GiB of memory and some minutes: see the top of this file"]
fn the_last_of_as_many_segments_as_there_can_be_is_used() {
    use_the_last_of(MAX_SEGMENT_COUNT, 512, 8);
}

#[test]
fn more_segments_than_there_can_be_are_refused() {
    let (options, len) = sizes(MAX_SEGMENT_COUNT, 512, 8);
    let refused = Store::format(Sparse::of_len(len + 4096 * 100), &options);
    assert!(
        matches!(&refused, Err(Error::Unsuitable { reason, .. }) if reason.contains("at most 16777216")),
        "{refused:?}"
    );
}

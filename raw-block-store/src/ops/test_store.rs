//! Small stores on simulated devices, for tests.

use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;

use crate::state::index::Located;
use crate::{EvictionPolicy, FormatOptions, OpenOptions, Put, Store};

/// Bytes of a block.
pub(super) const BLOCK: u64 = 512;
/// Bytes of a segment.
const SEGMENT: u64 = 64 * BLOCK;

/// A store of at least this many segments of 64 blocks, without a background thread.
pub(super) fn store(segments: u64, eviction: EvictionPolicy) -> (SimulatedDevice, Store) {
    store_of(segments, SEGMENT, eviction)
}

pub(super) fn store_of(
    segments: u64,
    segment_size: u64,
    eviction: EvictionPolicy,
) -> (SimulatedDevice, Store) {
    let capacity = segments * segment_size + (256 << 10);
    let device = SimulatedDevice::new(Geometry::new(capacity, 512).unwrap(), 1).unwrap();
    let options = FormatOptions::default().segment_size(segment_size).block_size(512);
    Store::format(device.backend(), &options).unwrap();
    let store = open(&device, eviction);
    (device, store)
}

pub(super) fn open(device: &SimulatedDevice, eviction: EvictionPolicy) -> Store {
    let options = OpenOptions::default().eviction(eviction).background(false);
    Store::open_with(device.backend(), &options).unwrap()
}

/// Puts objects in one batch. The metadata of each are the first two bytes of its key.
pub(super) fn put(store: &Store, keys: impl IntoIterator<Item = u32>, len: usize) {
    let keys: Vec<_> = keys.into_iter().map(u32::to_le_bytes).collect();
    let payload = vec![7; len];
    let puts: Vec<_> =
        keys.iter().map(|key| Put::new(key, &payload).with_metadata(&key[..2])).collect();
    store.put_many(&puts).all().unwrap();
}

/// Deletes objects that are there.
pub(super) fn delete(store: &Store, keys: impl IntoIterator<Item = u32>) {
    for key in keys {
        assert!(store.delete(&key.to_le_bytes()).unwrap(), "key {key}");
    }
}

pub(super) fn locate(store: &Store, key: u32) -> Located {
    store.state.index.find(&store.hash(&key.to_le_bytes())).unwrap()
}

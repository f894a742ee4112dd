//! Small stores on simulated devices, for tests.

use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;

use crate::format::{CheckpointHeader, Layout};
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

/// The device after a power cut, without its newest checkpoint.
pub(super) fn without_newest_checkpoint(
    device: &SimulatedDevice,
    layout: &Layout,
) -> SimulatedDevice {
    device.power_cut();
    let device = device.power_on();
    let number = |&offset: &u64| {
        let block = device.peek(offset, layout.block_size as usize);
        CheckpointHeader::read(&block, layout).map_or(0, |header| header.number.get())
    };
    let newest = layout.container_offset.into_iter().max_by_key(number).unwrap();
    device.poke(newest, &[0; 64]);
    device
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

//! What a checkpoint asks of the device.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{put_all, without_thread};
use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_store::format::{RECORD_LEN, body_capacity};
use raw_block_store::{FormatOptions, Put, Store};

/// A store with blocks of 512 bytes, and the device below it.
fn store(device_len: u64, segment_size: u64) -> (SimulatedDevice, Store) {
    let simulated = SimulatedDevice::new(Geometry::new(device_len, 512).unwrap(), 1).unwrap();
    let options = FormatOptions::default().segment_size(segment_size).block_size(512);
    Store::format(simulated.backend(), &options).unwrap();
    let store = Store::open_with(simulated.backend(), &without_thread()).unwrap();
    (simulated, store)
}

/// The ops of one checkpoint.
fn ops(simulated: &SimulatedDevice, store: &Store) -> u64 {
    let before = simulated.ops_so_far();
    store.checkpoint().unwrap();
    simulated.ops_so_far() - before
}

#[test]
fn a_short_checkpoint_is_a_body_and_a_header_and_two_flushes() {
    let (simulated, store) = store(1 << 20, 32 << 10);
    assert_eq!(ops(&simulated, &store), 4);
    store.put(b"key", &[1; 5000]).unwrap();
    assert_eq!(ops(&simulated, &store), 4);
}

#[test]
fn the_table_of_a_full_segment_is_written_once() {
    let (simulated, store) = store(16 << 20, 1 << 20);
    let keys: Vec<_> = (0..5000_u32).map(u32::to_le_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &[1; 300])).collect();
    for puts in puts.chunks(1000) {
        put_all(&store, puts);
    }
    let full = store.stats().full_segments;
    assert!(full >= 2, "{full} full segments");
    assert_eq!(ops(&simulated, &store), 4 + full);
    assert_eq!(ops(&simulated, &store), 4);
}

#[test]
fn a_long_checkpoint_is_flushed_in_between() {
    let (simulated, store) = store(500 << 20, 4096);
    // A record of each segment, in writes of 256 KiB: a flush follows each sixteenth of them, and
    // the last.
    let body_len = store.stats().segments * RECORD_LEN as u64;
    let writes = body_len.div_ceil(body_capacity(512) as u64).div_ceil(512);
    assert!(writes > 16, "{writes} writes");
    assert_eq!(ops(&simulated, &store), writes + (writes - 1) / 16 + 1 + 2);
}

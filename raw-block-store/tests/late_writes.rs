//! Writes whose outcome is unknown: they fail, and the device may carry them out later, over newer
//! ones.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::ops::Range;
use std::sync::Arc;

use common::slots::layout_of;
use common::{check_segments, payload, small, without_thread};
use raw_block_core::backend::IoBackend;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice, SimulatedOptions};
use raw_block_core::{ErrorClass, ErrorKind, Geometry};
use raw_block_store::format::Layout;
use raw_block_store::{Error, HealthState, OpenOptions, Store};

/// Later than anything that a test writes.
const NEVER: u64 = 1 << 20;

fn device() -> (SimulatedDevice, Layout) {
    let geometry = Geometry::new(1 << 20, 512).unwrap();
    let options = SimulatedOptions::new().shuffle(false);
    let device = SimulatedDevice::with_options(geometry, options).unwrap();
    Store::format(device.backend(), &small()).unwrap();
    let layout = layout_of(&device.peek(0, 4096));
    (device, layout)
}

fn open_on(backend: Arc<dyn IoBackend>) -> Result<Store, Error> {
    Store::open_with(backend, &without_thread())
}

fn open(device: &SimulatedDevice) -> Store {
    open_on(device.backend()).unwrap()
}

/// The next write to this range fails, and takes effect after that many others.
fn late(device: &SimulatedDevice, range: Range<u64>, ops: u64) {
    device.inject(DeviceFault::late_write(ops).within(range).nth(1));
}

fn segments(layout: &Layout) -> Range<u64> {
    layout.segments_offset..layout.segment_offset(layout.segment_count)
}

fn class(error: &Error) -> Option<ErrorClass> {
    if let Error::Device { error, .. } = error { Some(error.class()) } else { None }
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    match result {
        Err(Error::Device { error, .. }) => Some(error.kind()),
        _ => None,
    }
}

#[test]
fn a_put_with_an_unknown_outcome_quarantines_its_segment() {
    let (device, layout) = device();
    let store = open(&device);
    store.put(b"key", b"older").unwrap();
    late(&device, segments(&layout), 1);
    store.put(b"key", b"newer").unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), b"newer", "it was written elsewhere");
    let stats = store.stats();
    assert_eq!((stats.bad_segments, stats.repeated_writes), (1, 1));
    assert_eq!(stats.health.state, HealthState::Degraded);
    // Every other segment is written several times over.
    for round in 0..200 {
        store.put(b"key", &[round; 5000]).unwrap();
        store.put(b"other", &[round; 5000]).unwrap();
    }
    store.checkpoint().unwrap();
    store.flush().unwrap();
    assert_eq!(store.stats().bad_segments, 1);
    for store in [open(&device.power_on()), open(&device.process_kill())] {
        assert_eq!(payload(&store, b"key").unwrap(), [199; 5000]);
        assert_eq!(payload(&store, b"other").unwrap(), [199; 5000]);
        assert_eq!(store.stats().bad_segments, 1);
    }
}

#[test]
fn a_late_write_changes_nothing_that_was_put_since() {
    for ops in [1, 2, 3, 5, 8, 13, 21, 34, 55, 89] {
        let (device, layout) = device();
        let store = open(&device);
        store.put(b"key", &[1; 5000]).unwrap();
        late(&device, segments(&layout), ops);
        store.put(b"key", &[2; 5000]).unwrap();
        for round in 3..60 {
            store.put(&[round], &[round; 2000]).unwrap();
            store.delete(&[round - 1]).unwrap();
        }
        assert_eq!(payload(&store, b"key").unwrap(), [2; 5000]);
        store.close().unwrap();
        let store = open(&device);
        assert_eq!(payload(&store, b"key").unwrap(), [2; 5000], "after {ops} ops");
        assert_eq!(payload(&store, &[59]).unwrap(), [59; 2000]);
        assert_eq!(store.stats().objects, 2);
    }
}

#[test]
fn a_put_with_unknown_outcomes_costs_at_most_three_segments() {
    let (device, layout) = device();
    let store = open(&device);
    device.inject(DeviceFault::late_write(NEVER).within(segments(&layout)));
    let failed = store.put(b"key", b"late").unwrap_err();
    assert_eq!(class(&failed), Some(ErrorClass::Unknown));
    let stats = store.stats();
    assert_eq!((stats.bad_segments, stats.objects), (3, 0));
    assert_eq!(stats.health.state, HealthState::ReadOnly);
    device.clear_faults();
    store.checkpoint().unwrap();
    store.put(b"key", b"value").unwrap();
    assert_eq!(store.stats().bad_segments, 3);
}

#[test]
fn a_store_dropped_with_unknown_writes_stops_its_backend() {
    let (device, layout) = device();
    let backend = device.backend();
    let store = open_on(Arc::clone(&backend)).unwrap();
    store.put(b"key", b"value").unwrap();
    late(&device, segments(&layout), NEVER);
    store.put(b"key", b"newer").unwrap();
    store.close().unwrap();
    // The next opening knows the quarantine.
    let store = open_on(Arc::clone(&backend)).unwrap();
    assert_eq!(store.stats().bad_segments, 1);
    late(&device, segments(&layout), NEVER);
    store.put(b"other", b"value").unwrap();
    drop(store);
    // And here it does not.
    assert_eq!(kind(open_on(backend)), Some(ErrorKind::WritesStopped));
    let store = open(&device.process_kill());
    assert_eq!(payload(&store, b"key").unwrap(), b"newer");
    assert_eq!(payload(&store, b"other").unwrap(), b"value");
}

#[test]
fn a_store_stops_writes_although_a_pin_outlives_it() {
    let (device, layout) = device();
    let backend = device.backend();
    let store = open_on(Arc::clone(&backend)).unwrap();
    store.put(b"key", b"value").unwrap();
    let pin = store.pin(b"key").unwrap();
    late(&device, segments(&layout), NEVER);
    store.put(b"key", b"newer").unwrap();
    drop(store);
    assert_eq!(kind(open_on(backend)), Some(ErrorKind::WritesStopped));
    drop(pin);
}

/// Checks that a store has stopped all writes after a late write to a place that it writes again
/// and again.
fn has_stopped_writes(store: &Store) {
    let refused = [
        store.put(b"key", b"newer"),
        store.delete(b"key").map(drop),
        store.checkpoint(),
        store.flush(),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert!(
            error.to_string().contains("may still take effect: open the device again"),
            "{error}"
        );
        assert_eq!(kind(Err::<(), _>(error)), Some(ErrorKind::WritesStopped));
    }
    assert_eq!(payload(store, b"key").unwrap(), b"value");
}

#[test]
fn a_late_tombstone_does_not_delete_a_newer_put() {
    let (device, layout) = device();
    let store = open(&device);
    store.put(b"key", b"value").unwrap();
    store.put(b"other", b"value").unwrap();
    store.flush().unwrap();
    late(&device, segments(&layout), NEVER);
    assert!(store.delete(b"other").unwrap());
    assert_eq!(store.stats().bad_segments, 1);
    store.put(b"other", b"newer").unwrap();
    store.flush().unwrap();
    drop(store);
    let store = open(&device.process_kill());
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    assert_eq!(payload(&store, b"other").unwrap(), b"newer");
}

#[test]
fn a_late_write_of_a_checkpoint_stops_writes() {
    let (_, layout) = device();
    let (container, block) = (layout.container_offset[1], u64::from(layout.block_size));
    for written in [container, container + block] {
        let (device, _) = device();
        let store = open(&device);
        store.put(b"key", b"value").unwrap();
        late(&device, written..written + block, NEVER);
        let failed = store.checkpoint().unwrap_err();
        assert_eq!(class(&failed), Some(ErrorClass::Unknown));
        has_stopped_writes(&store);
        drop(store);
        let store = open(&device.process_kill());
        assert_eq!(payload(&store, b"key").unwrap(), b"value");
        store.checkpoint().unwrap();
    }
}

#[test]
fn a_late_table_stops_writes() {
    let (device, layout) = device();
    let store = open(&device);
    store.put(b"key", b"value").unwrap();
    // Segment 0 is full.
    while store.stats().full_segments == 0 {
        store.put(b"filler", &[7; 5000]).unwrap();
    }
    let table = layout.block_offset(0, layout.segment_blocks - 1);
    late(&device, table..table + u64::from(layout.block_size), NEVER);
    let failed = store.checkpoint().unwrap_err();
    assert_eq!(class(&failed), Some(ErrorClass::Unknown));
    has_stopped_writes(&store);
    drop(store);
    let store = open(&device.process_kill());
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    store.checkpoint().unwrap();
}

#[test]
fn a_late_copy_of_the_superblock_ends_opening_and_closing() {
    let (device, layout) = device();
    for offset in [0, 4096, layout.last_superblock_offset] {
        let device = device.fork(1);
        late(&device, offset..offset + 4096, NEVER);
        let backend = device.backend();
        for _ in 0..2 {
            assert_eq!(kind(open_on(Arc::clone(&backend))), Some(ErrorKind::WritesStopped));
        }
        let device = device.process_kill();
        let store = open(&device);
        store.put(b"key", b"value").unwrap();
        late(&device, offset..offset + 4096, NEVER);
        assert_eq!(kind(store.close()), Some(ErrorKind::WritesStopped));
        assert_eq!(payload(&open(&device.process_kill()), b"key").unwrap(), b"value");
    }
}

#[test]
fn an_opening_on_request_lifts_the_quarantine() {
    let (device, layout) = device();
    let store = open(&device);
    late(&device, segments(&layout), 1);
    store.put(b"key", b"value").unwrap();
    assert_eq!(store.stats().bad_segments, 1);
    store.close().unwrap();
    drop(store);
    let lifting = OpenOptions::default().background(false).lift_quarantine(true);
    let device = device.power_on();
    let store = Store::open_with(device.backend(), &lifting).unwrap();
    assert_eq!(store.stats().bad_segments, 0);
    assert_eq!(store.stats().health.state, HealthState::Healthy);
    check_segments(&store);
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    store.close().unwrap();
    drop(store);
    assert_eq!(open(&device).stats().bad_segments, 0, "for good");
}

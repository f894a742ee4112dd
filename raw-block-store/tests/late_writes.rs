//! Writes whose outcome is unknown: they fail, and the device may carry them out later, over newer ones.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::ops::Range;
use std::sync::Arc;

use raw_block_core::simulated::{Fault, SimulatedDevice, SimulatedOptions};
use raw_block_core::{ErrorClass, ErrorKind, Geometry, IoBackend};
use raw_block_store::format::Superblock;
use raw_block_store::{Error, EvictionPolicy, FormatOptions, OpenOptions, Put, Store};

const SLOTS: u64 = 4;

/// Later than anything that a test writes.
const NEVER: u64 = 1 << 20;

fn device() -> (SimulatedDevice, Superblock) {
    let geometry = Geometry::new(1 << 20, 512).unwrap();
    let options = SimulatedOptions { shuffle: false, ..SimulatedOptions::default() };
    let device = SimulatedDevice::with_options(geometry, options).unwrap();
    let options = FormatOptions {
        slot_count: Some(SLOTS),
        delete_log_blocks: Some(2),
        ..FormatOptions::for_payloads(1024)
    };
    Store::format(device.backend(), &options).unwrap();
    let superblock = *Superblock::read(&device.peek(0, 4096)).unwrap();
    (device, superblock)
}

fn open_on(backend: Arc<dyn IoBackend>, eviction: EvictionPolicy) -> Result<Store, Error> {
    // Without a thread for checkpoints it is known when they are taken.
    let options = OpenOptions { eviction, checkpoint_thread: false, ..OpenOptions::default() };
    Store::open_with(backend, &options)
}

fn open(device: &SimulatedDevice) -> Store {
    open_on(device.backend(), EvictionPolicy::None).unwrap()
}

/// The next write to this range fails, and takes effect after that many others.
fn late(device: &SimulatedDevice, range: Range<u64>, ops: u64) {
    device.inject(Fault::late_write(ops).within(range).nth(1));
}

fn slots(superblock: &Superblock) -> Range<u64> {
    superblock.slot_offset(0).unwrap()..superblock.last_superblock_offset.get()
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

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|object| object.payload().to_vec())
}

#[test]
fn the_slot_of_a_put_with_an_unknown_outcome_is_quarantined() {
    let (device, superblock) = device();
    let store = open(&device);
    store.put(b"key", b"older").unwrap();
    late(&device, slots(&superblock), 1);
    let failed = store.put(b"key", b"late").unwrap_err();
    assert_eq!(class(&failed), Some(ErrorClass::Unknown));
    assert_eq!(get(&store, b"key").unwrap(), b"older");
    let stats = store.stats();
    assert_eq!((stats.live_slots, stats.free_slots), (1, 2));
    assert_eq!((stats.waiting_slots, stats.quarantined_slots), (0, 1));
    // Checkpoints and flushes free the slots of all that is replaced, and not this one.
    for round in 0..20 {
        store.put(b"key", &[round; 1000]).unwrap();
        store.put(b"other", &[round; 1000]).unwrap();
        store.checkpoint().unwrap();
        store.flush().unwrap();
        assert_eq!(store.stats().quarantined_slots, 1);
    }
    assert_eq!(get(&store, b"key").unwrap(), [19; 1000]);
    for store in [open(&device.power_on()), open(&device.process_kill())] {
        assert_eq!(get(&store, b"key").unwrap(), [19; 1000]);
        let stats = store.stats();
        assert_eq!((stats.quarantined_slots, stats.free_slots), (0, 2), "it was opened again");
    }
}

#[test]
fn a_store_with_all_slots_quarantined_is_full() {
    for eviction in [EvictionPolicy::None, EvictionPolicy::Lru] {
        let (device, superblock) = device();
        let store = open_on(device.backend(), eviction).unwrap();
        let objects = [b"a", b"b", b"c", b"d"].map(|key| Put::new(key, b"late"));
        device.inject(Fault::late_write(NEVER).within(slots(&superblock)));
        for result in store.put_many(&objects) {
            assert_eq!(class(&result.unwrap_err()), Some(ErrorClass::Unknown));
        }
        device.clear_faults();
        let full = store.put(b"key", b"value").unwrap_err();
        assert!(matches!(full, Error::Full { live: 0, quarantined: SLOTS, .. }), "{full}");
        assert!(full.to_string().contains("4 are quarantined until the device is opened again"));
        assert_eq!(open(&device.process_kill()).stats().quarantined_slots, 0);
    }
}

#[test]
fn a_device_with_quarantined_slots_is_opened_again_first() {
    for closed in [false, true] {
        let (device, superblock) = device();
        let backend = device.backend();
        let store = open_on(Arc::clone(&backend), EvictionPolicy::None).unwrap();
        store.put(b"key", b"value").unwrap();
        late(&device, slots(&superblock), NEVER);
        store.put(b"key", b"late").unwrap_err();
        if closed {
            store.close().unwrap();
        } else {
            drop(store);
        }
        let refused = open_on(backend, EvictionPolicy::None);
        assert_eq!(kind(refused), Some(ErrorKind::WritesStopped));
        let store = open(&device.process_kill());
        let found = get(&store, b"key").unwrap();
        assert!(found == b"value" || !closed && found == b"late", "{found:?}");
    }
}

/// What a store does that has such a write outside of its slots.
fn stops_writes(store: &Store) {
    let refused = [
        store.put(b"key", b"newer"),
        store.delete_many(&[b"key"]).remove(0).map(drop),
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
    assert_eq!(get(store, b"key").unwrap(), b"value");
}

#[test]
fn a_late_block_of_the_delete_log_stops_writes() {
    let (device, superblock) = device();
    let log = superblock.delete_log_offset.get();
    let store = open(&device);
    store.put(b"key", b"value").unwrap();
    store.put(b"other", b"value").unwrap();
    store.flush().unwrap();
    late(&device, log..log + superblock.delete_log_len.get(), NEVER);
    let failed = store.delete_many(&[b"other"]).remove(0).unwrap_err();
    assert_eq!(class(&failed), Some(ErrorClass::Unknown));
    stops_writes(&store);
    drop(store);
    let store = open(&device.process_kill());
    assert_eq!(get(&store, b"key").unwrap(), b"value");
    assert!(store.delete_many(&[b"key"]).remove(0).unwrap());
}

#[test]
fn a_late_write_of_a_checkpoint_stops_writes() {
    let (_, superblock) = device();
    let container = superblock.checkpoint_offset[1].get();
    let block = u64::from(superblock.block_size.get());
    for written in [container, container + block] {
        let (device, _) = device();
        let store = open(&device);
        store.put(b"key", b"value").unwrap();
        late(&device, written..written + block, NEVER);
        let failed = store.checkpoint().unwrap_err();
        assert_eq!(class(&failed), Some(ErrorClass::Unknown));
        stops_writes(&store);
        drop(store);
        let store = open(&device.process_kill());
        assert_eq!(get(&store, b"key").unwrap(), b"value");
        store.checkpoint().unwrap();
    }
}

#[test]
fn a_late_copy_of_the_superblock_ends_opening_and_closing() {
    let (device, superblock) = device();
    for offset in [0, 4096, superblock.last_superblock_offset.get()] {
        let device = device.fork(1);
        late(&device, offset..offset + 4096, NEVER);
        let backend = device.backend();
        for _ in 0..2 {
            let refused = open_on(Arc::clone(&backend), EvictionPolicy::None);
            assert_eq!(kind(refused), Some(ErrorKind::WritesStopped));
        }
        let device = device.process_kill();
        let store = open(&device);
        store.put(b"key", b"value").unwrap();
        late(&device, offset..offset + 4096, NEVER);
        assert_eq!(kind(store.close()), Some(ErrorKind::WritesStopped));
        assert_eq!(get(&open(&device.process_kill()), b"key").unwrap(), b"value");
    }
}

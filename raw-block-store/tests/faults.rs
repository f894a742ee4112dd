//! Devices that fail writes and flushes: nothing that was acknowledged is lost, and the store goes
//! on where it can.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::faulty::{Fate, Faulty};
use common::slots::{block_range, layout_of, superblock_at};
use common::{payload, put_all, without_thread};
use raw_block_core::backend::{Op, OpKind};
use raw_block_store::format::{Layout, SuperblockState};
use raw_block_store::{Error, EvictionPolicy, FormatOptions, HealthState, Put, Store, StoreStats};

fn format() -> FormatOptions {
    FormatOptions::default().segment_size(64 << 10).block_size(512)
}

fn open(device: &Faulty) -> Result<Store, Error> {
    Store::open_with(device.backend(), &without_thread())
}

fn open_cache(device: &Faulty) -> Store {
    let options = without_thread().eviction(EvictionPolicy::Lru);
    Store::open_with(device.backend(), &options).unwrap()
}

/// A store of 14 segments, each for 11 objects of 5000 bytes.
fn faulty_store() -> (Faulty, Store, Layout) {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &format()).unwrap();
    let store = open(&device).unwrap();
    let layout = layout_of(&device.bytes());
    (device, store, layout)
}

fn fill(store: &Store, keys: std::ops::Range<u8>) {
    for key in keys {
        store.put(&[key], &[key; 5000]).unwrap();
    }
}

/// Whether an op writes the header of a tombstone slot.
fn writes_tombstones(op: &Op) -> bool {
    const KIND: std::ops::Range<usize> = 62..64;
    let is_slot = |bytes: &[u8]| bytes.starts_with(b"RAWBLKSL") && bytes[KIND] == [2, 0];
    op.source().iter().any(|bytes| bytes.chunks(512).any(is_slot))
}

/// Whether an op writes a payload of bytes with this value.
fn writes_payload(op: &Op, value: u8) -> bool {
    op.source().iter().any(|bytes| bytes.chunks(512).any(|block| block == [value; 512]))
}

#[test]
fn a_checkpoint_header_that_landed_unnoticed_costs_nothing() {
    let (device, store, layout) = faulty_store();
    fill(&store, 0..16);
    assert!(store.delete(&[0]).unwrap());
    store.flush().unwrap();
    // The next checkpoint goes to container 1. Its header is written, and the completion is lost.
    let header = layout.container_offset[1];
    device.rule(move |op| {
        let is_lost = op.kind() == OpKind::Write && op.offset() == header;
        if is_lost { Fate::FailedButDone } else { Fate::Done }
    });
    assert!(store.checkpoint().is_err());
    // Power cuts at every flush of the next attempt.
    let images = Arc::new(Mutex::new(Vec::new()));
    let (taken, copied) = (Arc::clone(&images), device.clone());
    device.rule(move |op| {
        if op.kind() == OpKind::Flush {
            taken.lock().unwrap().push(copied.bytes());
        }
        Fate::Done
    });
    store.checkpoint().unwrap();
    let images = std::mem::take(&mut *images.lock().unwrap());
    assert!(images.len() >= 3, "{} flushes", images.len());
    for image in images {
        let store = open(&Faulty::holding(image)).unwrap();
        for key in 1..16 {
            assert_eq!(payload(&store, &[key]).unwrap(), [key; 5000]);
        }
        assert_eq!(payload(&store, &[0]), None);
    }
}

#[test]
fn one_unwritable_superblock_copy_is_borne_and_two_are_not() {
    let (device, store, layout) = faulty_store();
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    device.fail_at(OpKind::Write, 4096);
    let store = open(&device).unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    store.close().unwrap();
    let last = layout.last_superblock_offset;
    device.fail_within(OpKind::Write, &[0..4096, last..last + 4096]);
    assert!(matches!(open(&device), Err(Error::Device { .. })));
}

#[test]
fn a_failed_put_leaves_the_older_object_and_its_neighbours() {
    let (device, store, _) = faulty_store();
    store.put(b"b", b"older").unwrap();
    device.rule(|op| if writes_payload(op, 2) { Fate::Failed } else { Fate::Done });
    let puts = [Put::new(b"a", &[1; 5000]), Put::new(b"b", &[2; 5000]), Put::new(b"c", &[3; 5000])];
    let results = store.put_many(&puts);
    assert!(results[0].is_ok() && results[2].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    assert!(error.to_string().contains("put an object"), "{error}");
    assert_eq!(payload(&store, b"a").unwrap(), [1; 5000]);
    assert_eq!(payload(&store, b"b").unwrap(), b"older");
    assert_eq!(payload(&store, b"c").unwrap(), [3; 5000]);
    // Three attempts failed in different segments, so the device refuses writes until a checkpoint
    // succeeds. Without a background thread the next change takes it.
    assert_eq!(store.stats().health.state, HealthState::ReadOnly);
    store.put(b"d", b"value").unwrap();
    device.rule(|_| Fate::Done);
    store.put(b"b", &[2; 5000]).unwrap();
    assert_eq!(store.stats().health.state, HealthState::Healthy);
    let stats = store.stats();
    assert_eq!((stats.objects, stats.bad_segments, stats.repeated_writes), (4, 0, 2));
}

#[test]
fn a_put_whose_write_fails_once_is_written_elsewhere() {
    let (device, store, _) = faulty_store();
    let mut failures = 1..=2;
    device.rule(move |op| {
        let fails = writes_payload(op, 2) && failures.next().is_some();
        if fails { Fate::Failed } else { Fate::Done }
    });
    store.put(b"key", &[2; 5000]).unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), [2; 5000]);
    store.flush().unwrap();
    drop(store);
    device.rule(|_| Fate::Done);
    assert_eq!(payload(&open(&device).unwrap(), b"key").unwrap(), [2; 5000]);
}

#[test]
fn a_segment_whose_medium_is_bad_is_quarantined_for_good() {
    let (device, store, layout) = faulty_store();
    let bad: Vec<_> = (20..128).map(|block| block_range(&layout, 0, block)).collect();
    device.fail_within(OpKind::Write, &bad);
    // They take two slots, which are both in segment 0.
    let keys: Vec<_> = (0..11_u8).map(|key| [key]).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &[7; 5000])).collect();
    put_all(&store, &puts);
    let is_there = |store: &Store| keys.iter().all(|key| payload(store, key).unwrap() == [7; 5000]);
    assert!(is_there(&store));
    let stats = store.stats();
    assert_eq!((stats.bad_segments, stats.repeated_writes), (1, 2));
    assert_eq!(stats.health.state, HealthState::Degraded);
    assert!(stats.health.reason.contains("quarantine"), "{}", stats.health.reason);
    store.close().unwrap();

    let store = open_cache(&device);
    assert!(is_there(&store));
    assert_eq!(store.stats().bad_segments, 1);
    assert_eq!(store.stats().health.state, HealthState::Degraded);
    (0..500_u32).for_each(|key| store.put(&key.to_le_bytes(), &[8; 5000]).unwrap());
    let stats = store.stats();
    assert!(stats.evictions > 0, "every segment was filled again");
    assert_eq!((stats.bad_segments, stats.repeated_writes), (1, 0));
}

#[test]
fn a_failed_delete_leaves_the_object_there() {
    let (device, store, _) = faulty_store();
    store.put(b"key", b"value").unwrap();
    store.put(b"other", b"value").unwrap();
    device.rule(|op| if writes_tombstones(op) { Fate::Failed } else { Fate::Done });
    let error = store.delete(b"key").unwrap_err();
    assert!(error.to_string().contains("delete an object"), "{error}");
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    assert_eq!(store.stats().health.state, HealthState::ReadOnly);
    store.checkpoint().unwrap();
    device.rule(|_| Fate::Done);
    assert!(store.delete(b"key").unwrap());
    assert_eq!(payload(&store, b"key"), None);
    // One that fails twice is written elsewhere.
    let mut failures = 1..=2;
    device.rule(move |op| {
        let fails = writes_tombstones(op) && failures.next().is_some();
        if fails { Fate::Failed } else { Fate::Done }
    });
    assert!(store.delete(b"other").unwrap());
    store.flush().unwrap();
    drop(store);
    assert_eq!(open(&device).unwrap().stats().objects, 0);
}

#[test]
fn after_a_failed_flush_nothing_is_changed_and_gets_go_on() {
    let (device, store, _) = faulty_store();
    store.put(b"key", b"value").unwrap();
    device.rule(|op| if op.kind() == OpKind::Flush { Fate::Failed } else { Fate::Done });
    assert!(store.flush().is_err());
    device.rule(|_| Fate::Done);
    assert!(store.put(b"other", b"value").is_err());
    assert!(store.delete(b"key").is_err());
    assert!(store.flush().is_err());
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    assert!(store.close().is_err());
    assert_eq!(payload(&open(&device).unwrap(), b"key").unwrap(), b"value");
}

/// Waits until the state of a store is as it should be.
fn wait_until(store: &Store, what: &str, is_right: impl Fn(&StoreStats) -> bool) {
    let began = Instant::now();
    while !is_right(&store.stats()) {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:?}", store.stats());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn failed_checkpoints_are_counted_and_repeated() {
    let (device, store, _) = faulty_store();
    drop(store);
    let store = Store::open(device.backend()).unwrap();
    store.put(b"key", b"value").unwrap();
    device.rule(|op| if op.kind() == OpKind::Write { Fate::Failed } else { Fate::Done });
    assert!(store.put(b"key", b"lost").is_err());
    assert_eq!(store.stats().health.state, HealthState::ReadOnly);
    wait_until(&store, "checkpoints fail", |stats| stats.failed_checkpoints >= 3);
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    device.rule(|_| Fate::Done);
    wait_until(&store, "a checkpoint succeeds", |stats| {
        stats.health.state < HealthState::ReadOnly && stats.checkpoints > 0
    });
    store.put(b"key", b"newer").unwrap();
    store.close().unwrap();
    assert_eq!(payload(&open(&device).unwrap(), b"key").unwrap(), b"newer");
}

#[test]
fn a_device_that_refuses_writes_costs_no_object() {
    let (device, store, _) = faulty_store();
    drop(store);
    let store = open_cache(&device);
    let key = |number: u32| number.to_le_bytes();
    (0..500).for_each(|number| store.put(&key(number), &[7; 5000]).unwrap());
    let before = store.stats();
    device.rule(|op| if op.kind() == OpKind::Write { Fate::Failed } else { Fate::Done });
    (500..700).for_each(|number| assert!(store.put(&key(number), &[7; 5000]).is_err()));
    let stats = store.stats();
    assert_eq!((stats.objects, stats.evictions), (before.objects, before.evictions));
    assert_eq!(stats.bad_segments, 0, "the fault is not that of the segments");
    device.rule(|_| Fate::Done);
    store.checkpoint().unwrap();
    (500..700).for_each(|number| store.put(&key(number), &[7; 5000]).unwrap());
}

#[test]
fn gets_go_on_while_a_checkpoint_is_written() {
    let (device, store, _) = faulty_store();
    fill(&store, 0..16);
    thread::scope(|scope| {
        // The first flush of the checkpoint completes only when a get was answered.
        let (flushing, is_flushing) = mpsc::channel();
        let (answered, is_answered) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(Some((flushing, is_answered))));
        device.during_flush(move || {
            if let Some((flushing, is_answered)) = held.lock().unwrap().take() {
                flushing.send(()).unwrap();
                is_answered.recv().unwrap();
            }
        });
        scope.spawn(|| store.checkpoint().unwrap());
        is_flushing.recv().unwrap();
        assert_eq!(payload(&store, &[3]).unwrap(), [3; 5000]);
        store.put(&[20], &[20; 5000]).unwrap();
        answered.send(()).unwrap();
    });
    assert_eq!(payload(&store, &[20]).unwrap(), [20; 5000]);
}

#[test]
fn an_outdated_clean_mark_does_not_count_if_newer_ones_are_lost() {
    let (device, store, layout) = faulty_store();
    store.put(b"key", &[1; 5000]).unwrap();
    store.close().unwrap();
    // Copy 0 stays as it is: clean, with the older state.
    device.fail_at(OpKind::Write, 0);
    let store = open(&device).unwrap();
    store.put(b"key", &[2; 5000]).unwrap();
    store.flush().unwrap();
    drop(store);
    let last = layout.last_superblock_offset;
    device.fail_within(OpKind::Read, &[4096..8192, last..last + 4096]);
    assert_eq!(payload(&open(&device).unwrap(), b"key").unwrap(), [2; 5000]);
}

#[test]
fn a_clean_mark_of_an_interrupted_close_is_outdated_by_an_open() {
    let (device, store, layout) = faulty_store();
    store.put(b"key", &[1; 5000]).unwrap();
    // Power is cut during the close, after one copy was marked clean.
    let image = Arc::new(Mutex::new(None));
    let copies = [0, 4096, layout.last_superblock_offset];
    let (taken, copied, mut marked) = (Arc::clone(&image), device.clone(), false);
    device.rule(move |op| {
        if marked && op.kind() == OpKind::Flush {
            taken.lock().unwrap().get_or_insert_with(|| copied.bytes());
        }
        marked |= op.kind() == OpKind::Write && copies.contains(&op.offset());
        Fate::Done
    });
    store.close().unwrap();
    let image = image.lock().unwrap().take().unwrap();
    let is_clean =
        |&at: &u64| matches!(superblock_at(&image, at).state(), SuperblockState::Clean { .. });
    let clean = copies.into_iter().find(is_clean).unwrap();
    // That copy can be neither read nor written for a while.
    let device = Faulty::holding(image);
    device.rule(move |op| {
        let hidden = !op.is_empty() && op.offset() == clean;
        if hidden { Fate::Failed } else { Fate::Done }
    });
    let store = open(&device).unwrap();
    store.put(b"key", &[2; 5000]).unwrap();
    store.flush().unwrap();
    drop(store);
    device.rule(|_| Fate::Done);
    assert_eq!(payload(&open(&device).unwrap(), b"key").unwrap(), [2; 5000]);
}

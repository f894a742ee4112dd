//! How a store ends and begins: closed under load, dropped, out of room, on a device that panics or fails in the
//! middle of a checkpoint, on one that is very large.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use common::faulty::{Fate, Faulty};
use common::{payload, store};
use raw_block_core::{Geometry, IoBackend, MemoryBackend, OpKind};
use raw_block_store::{Error, FormatOptions, OpenOptions, Put, Store};

fn faulty_store(slots: u64) -> (Faulty, Store) {
    let device = Faulty::new(8 << 20);
    let options = FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(8192) };
    Store::format(device.backend(), &options).unwrap();
    let without_thread = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    (device.clone(), Store::open_with(device.backend(), &without_thread).unwrap())
}

fn is_complete(store: &Store) -> bool {
    let stats = store.stats();
    stats.live_slots + stats.free_slots + stats.waiting_slots == stats.slots
}

#[test]
fn no_slot_is_lost_when_the_device_panics_below_a_batch() {
    let (device, store) = faulty_store(16);
    store.put(b"key 0", b"older").unwrap();
    let keys = [b"key 0", b"key 1", b"key 2", b"key 3"];
    let puts = keys.map(|key| Put::new(key, &[1; 5000]));
    for writes_before in 0..4 {
        let mut writes = 0;
        device.rule(move |op| {
            writes += u32::from(op.kind() == OpKind::Write);
            assert!(writes <= writes_before, "on purpose");
            Fate::Done
        });
        _ = catch_unwind(AssertUnwindSafe(|| drop(store.put_many(&puts))));
        _ = catch_unwind(AssertUnwindSafe(|| drop(store.delete_many(&[b"nobody"]))));
        device.rule(|_| Fate::Done);
        assert!(is_complete(&store), "{:?}", store.stats());
        assert!(store.get(b"key 0").unwrap().is_some());
    }
    // What was given up is used again: more puts than there are slots.
    for _ in 0..10 {
        store.put_many(&puts).into_iter().for_each(|result| result.unwrap());
    }
    store.close().unwrap();
    let store = Store::open(device.backend()).unwrap();
    assert!(keys.iter().all(|key| payload(&store, *key).unwrap() == [1; 5000]));
}

#[test]
fn a_store_is_closed_when_those_who_use_it_are_done_and_then_holds_what_they_put() {
    let (device, store) = store(8192, 64);
    let store = Arc::new(store);
    let newest: [_; 4] = std::array::from_fn(|_| AtomicU8::new(0));
    std::thread::scope(|scope| {
        for (key, newest) in (0..).zip(&newest) {
            let store = Arc::clone(&store);
            scope.spawn(move || {
                for version in 1..50 {
                    store.put(&[key], &[version; 5000]).unwrap();
                    newest.store(version, Ordering::Relaxed);
                }
            });
        }
    });
    // `close` takes the store by value: it cannot be called while somebody uses it.
    Arc::into_inner(store).unwrap().close().unwrap();
    let store = Store::open(device).unwrap();
    for (key, newest) in (0..).zip(newest) {
        assert_eq!(payload(&store, &[key]).unwrap(), [newest.into_inner(); 5000]);
    }
}

#[test]
fn a_checkpoint_that_fails_anywhere_leaves_the_one_before_and_the_next_one_succeeds() {
    // Its writes and flushes: body, flush, header, flush. A flush that fails stops all writing.
    for (kind, nth, goes_on) in [
        (OpKind::Write, 1, true),
        (OpKind::Flush, 1, false),
        (OpKind::Write, 2, true),
        (OpKind::Flush, 2, false),
    ] {
        for fate in [Fate::Failed, Fate::FailedButDone] {
            let (device, store) = faulty_store(8);
            for key in 0..6 {
                store.put(&[key], &[key; 5000]).unwrap();
            }
            store.flush().unwrap();
            let mut seen = 0;
            device.rule(move |op| {
                seen += u32::from(op.kind() == kind);
                if op.kind() == kind && seen == nth { fate } else { Fate::Done }
            });
            assert!(matches!(store.checkpoint(), Err(Error::Device { .. })));
            device.rule(|_| Fate::Done);
            assert_eq!(payload(&store, &[3]).unwrap(), [3; 5000]);
            assert_eq!(store.checkpoint().is_ok(), goes_on, "{kind:?} {nth} {fate:?}");
            if goes_on {
                assert_eq!(store.stats().checkpoints, 1);
                assert_eq!(store.stats().checkpoint_latency.count(), 1, "none that failed");
            }
            drop(store);
            let store = Store::open(device.backend()).unwrap();
            for key in 0..6 {
                assert_eq!(payload(&store, &[key]).unwrap(), [key; 5000]);
            }
        }
    }
}

#[test]
fn a_store_uses_a_device_beyond_sixteen_tebibytes_to_its_end() {
    // Few slots of 1 GiB each: as many as the device holds, the last one close to its end.
    let capacity = 1 << 45;
    let device: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(capacity).unwrap());
    Store::format(device.clone(), &FormatOptions::for_payloads((1 << 30) - 4096)).unwrap();
    let store = Store::open(device.clone()).unwrap();
    let slots = store.stats().slots;
    assert!(slots > (1 << 15) - 8, "{slots} slots");
    for key in 0..slots {
        store.put(&key.to_le_bytes(), &key.to_be_bytes()).unwrap();
    }
    assert!(matches!(store.put(b"one more", b"object"), Err(Error::Full { .. })));
    let last = common::slot_offset(&device, slots - 1);
    assert!(last + (2 << 30) > capacity);
    drop(store);
    let store = Store::open(device).unwrap();
    for key in [0, slots / 2, slots - 1] {
        assert_eq!(payload(&store, &key.to_le_bytes()).unwrap(), key.to_be_bytes());
    }
}

#[test]
fn more_slots_than_numbers_for_them_are_refused_and_so_are_sums_beyond_the_device() {
    let device: Arc<dyn IoBackend> =
        Arc::new(MemoryBackend::with_geometry(Geometry::new(1 << 50, 512).unwrap()));
    for slot_count in [(1 << 32) + 1, 1 << 40, u64::MAX] {
        for payload_len in [0, 4096, (1 << 32) - 4096] {
            let options = FormatOptions {
                slot_count: Some(slot_count),
                ..FormatOptions::for_payloads(payload_len)
            };
            let refused = Store::format(device.clone(), &options);
            assert!(matches!(refused, Err(Error::Unsuitable { .. })), "{slot_count} {payload_len}");
        }
    }
    for delete_log_blocks in [1 << 52, u64::MAX] {
        let options = FormatOptions {
            delete_log_blocks: Some(delete_log_blocks),
            ..FormatOptions::for_payloads(4096)
        };
        assert!(matches!(Store::format(device.clone(), &options), Err(Error::Unsuitable { .. })));
    }
}

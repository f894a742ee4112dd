//! How a store ends: closed under load, dropped, on a device that panics, or fails in the middle of
//! a checkpoint.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use common::faulty::{Fate, Faulty};
use common::{check_segments, payload, small, store, without_thread};
use raw_block_core::backend::OpKind;
use raw_block_store::{Error, Put, Store};

fn faulty_store() -> (Faulty, Store) {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    (device.clone(), Store::open_with(device.backend(), &without_thread()).unwrap())
}

#[test]
fn nothing_is_lost_when_the_device_panics_during_a_batch() {
    let (device, store) = faulty_store();
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
        _ = catch_unwind(AssertUnwindSafe(|| drop(store.delete_many(&[b"absent"]))));
        device.rule(|_| Fate::Done);
        check_segments(&store);
        assert!(store.get(b"key 0").unwrap().is_some());
    }
    // What failed is written again: more puts than the store has space for.
    for _ in 0..100 {
        store.put_many(&puts).all().unwrap();
    }
    store.close().unwrap();
    let store = Store::open(device.backend()).unwrap();
    assert!(keys.iter().all(|key| payload(&store, *key).unwrap() == [1; 5000]));
}

#[test]
fn a_store_that_threads_used_is_closed_with_what_they_put() {
    let (device, store) = store(1 << 20);
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
    store.close().unwrap();
    let store = Store::open(device).unwrap();
    for (key, newest) in (0..).zip(newest) {
        assert_eq!(payload(&store, &[key]).unwrap(), [newest.into_inner(); 5000]);
    }
}

#[test]
fn a_checkpoint_that_fails_leaves_the_one_before() {
    // Its writes and flushes: body, flush, header, flush. No segment is full, so there is no table.
    // A flush that fails stops all writing.
    for (kind, nth, goes_on) in [
        (OpKind::Write, 1, true),
        (OpKind::Flush, 1, false),
        (OpKind::Write, 2, true),
        (OpKind::Flush, 2, false),
    ] {
        for fate in [Fate::Failed, Fate::FailedButDone] {
            let (device, store) = faulty_store();
            for key in 0..5 {
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
            for key in 0..5 {
                assert_eq!(payload(&store, &[key]).unwrap(), [key; 5000]);
            }
        }
    }
}

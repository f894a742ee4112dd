use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};

use crate::ops::test_store::{delete, open, put, store, without_newest_checkpoint};
use crate::{Error, EvictionPolicy, Get, Store};

fn reopened(device: &SimulatedDevice, store: Store) -> (SimulatedDevice, Store) {
    drop(store);
    device.power_cut();
    let device = device.power_on();
    let store = open(&device, EvictionPolicy::None);
    (device, store)
}

#[test]
fn a_cleared_store_is_empty_also_after_a_power_cut() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..200, 700);
    delete(&store, 0..50);
    store.flush().unwrap();
    let before = store.stats();
    store.clear().unwrap();
    let after = store.stats();
    assert_eq!((after.objects, after.payload_bytes, after.evictions), (0, 0, 0));
    assert_eq!(after.deletes - before.deletes, 150);
    assert_eq!(after.checkpoints, before.checkpoints + 1);
    assert_eq!(after.free_segments, after.segments);
    assert!(!store.contains(&60_u32.to_le_bytes()).unwrap());
    let (_, store) = reopened(&device, store);
    assert_eq!(store.stats().objects, 0);
}

#[test]
fn a_cleared_store_takes_as_much_as_a_new_one() {
    let (_, store) = store(16, EvictionPolicy::None);
    let fill = || {
        let puts = (0_u32..).take_while(|key| store.put(&key.to_le_bytes(), &[1; 900]).is_ok());
        puts.count()
    };
    let count = fill();
    store.clear().unwrap();
    assert_eq!(fill(), count);
    store.clear().unwrap();
    put(&store, 0..100, 900);
    store.flush().unwrap();
    assert_eq!(store.stats().objects, 100);
}

#[test]
fn what_is_pinned_stays_readable_and_leaves_the_index() {
    for eviction in [EvictionPolicy::None, EvictionPolicy::Lru] {
        let (_, store) = store(16, eviction);
        put(&store, 0..100, 700);
        let (kept, replaced) = (
            store.pin(&7_u32.to_le_bytes()).unwrap().unwrap(),
            store.pin(&8_u32.to_le_bytes()).unwrap().unwrap(),
        );
        put(&store, [8], 100);
        store.clear().unwrap();
        assert!(!store.contains(&7_u32.to_le_bytes()).unwrap());
        assert!(store.pin(&7_u32.to_le_bytes()).unwrap().is_none());
        put(&store, 1000..1400, 700);
        for pin in [&kept, &replaced] {
            let mut payload = [0; 700];
            pin.read(&mut payload, &mut []).unwrap();
            assert_eq!(payload, [7; 700]);
        }
        assert!(store.stats().draining_segments > 0);
        drop((kept, replaced));
        assert_eq!(store.stats().draining_segments, 0);
    }
}

#[test]
fn a_clear_that_fails_removes_nothing() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    let containers = store.state.layout.container_offset;
    let end = containers[2] + store.state.layout.container_len;
    // EIO
    device.inject(DeviceFault::fail(OpKind::Write, 5).within(containers[0]..end));
    assert!(store.clear().is_err());
    assert_eq!(store.stats().objects, 100);
    device.clear_faults();
    store.checkpoint().unwrap();
    put(&store, 100..150, 700);
    store.clear().unwrap();
    assert_eq!(store.stats().objects, 0);
}

#[test]
fn a_clear_that_cannot_name_its_checkpoint_says_so() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    // EIO
    device.inject(DeviceFault::fail(OpKind::Write, 5).within(0..8192));
    let error = store.clear().unwrap_err();
    assert!(error.to_string().contains("superblock"), "{error}");
    assert_eq!(store.stats().objects, 0);
    device.clear_faults();
    store.clear().unwrap();
    put(&store, 0..100, 700);
    store.close().unwrap();
}

#[test]
fn a_read_only_store_is_not_cleared() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..10, 700);
    store.close().unwrap();
    let store = Store::open_read_only(device.backend(), &crate::OpenOptions::default()).unwrap();
    assert!(store.clear().is_err());
    assert_eq!(store.stats().objects, 10);
}

#[test]
fn clears_and_changes_of_several_threads_go_together() {
    let (_, store) = store(24, EvictionPolicy::Lru);
    let (store, ends) = (Arc::new(store), Arc::new(AtomicBool::new(false)));
    thread::scope(|scope| {
        for thread in 1..4_u32 {
            let (store, ends) = (&store, &ends);
            scope.spawn(move || {
                let mut key = thread << 24;
                while !ends.load(Ordering::Relaxed) {
                    put(store, key..key + 10, 700);
                    let mut payload = [0; 700];
                    let name = key.to_le_bytes();
                    for result in store.get_many(&mut [Get::new(&name, &mut payload)]) {
                        assert!(result.unwrap().is_none_or(|found| found.payload_len == 700));
                    }
                    let _ = store.delete(&name).unwrap();
                    key += 10;
                }
            });
        }
        for _ in 0..20 {
            put(&store, 0..5, 700);
            store.clear().unwrap();
            assert!((0..5_u32).all(|key| !store.contains(&key.to_le_bytes()).unwrap()));
        }
        ends.store(true, Ordering::Relaxed);
    });
    store.clear().unwrap();
    assert_eq!(store.stats().objects, 0);
}

#[test]
fn the_loss_of_the_checkpoint_of_a_clear_is_noticed() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..100, 700);
    store.checkpoint().unwrap();
    store.clear().unwrap();
    let layout = store.state.layout;
    drop(store);
    let device = without_newest_checkpoint(&device, &layout);
    let error = Store::open(device.backend()).unwrap_err();
    assert!(matches!(error, Error::CheckpointLost { number: 3, .. }), "{error}");
}

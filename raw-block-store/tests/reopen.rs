//! Closing and opening a store, in order and not, intact and damaged.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{
    bytes, flip, memory, payload, put_all, read, slot_offset, store, store_on, superblock, write,
};
use proptest::prelude::*;
use raw_block_core::IoBackend;
use raw_block_store::{Error, FormatOptions, OpenOptions, Put, Store};

fn reopen(device: &Arc<dyn IoBackend>) -> Store {
    Store::open(device.clone()).unwrap()
}

#[test]
fn a_closed_store_holds_what_it_held() {
    let (device, store) = store(8192, 10);
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", b"b"), Put::new(b"c", b"c")]);
    store.put(b"b", b"newer").unwrap();
    assert!(store.delete_many(&[b"c"]).remove(0).unwrap());
    store.close().unwrap();

    let store = reopen(&device);
    assert_eq!(payload(&store, b"a").unwrap(), [1; 8192]);
    assert_eq!(payload(&store, b"b").unwrap(), b"newer");
    assert_eq!(payload(&store, b"c"), None);
    let stats = store.stats();
    assert_eq!((stats.live_slots, stats.free_slots), (2, 8));
}

#[test]
fn a_store_that_was_not_closed_holds_what_it_held() {
    let (device, store) = store(8192, 10);
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", b"b"), Put::new(b"c", b"c")]);
    store.put(b"b", b"newer").unwrap();
    assert!(store.delete_many(&[b"c"]).remove(0).unwrap());
    drop(store);

    let store = reopen(&device);
    assert_eq!(payload(&store, b"a").unwrap(), [1; 8192]);
    assert_eq!(payload(&store, b"b").unwrap(), b"newer");
    assert_eq!(payload(&store, b"c"), None, "a deleted object does not come back");
    let stats = store.stats();
    assert_eq!((stats.live_slots, stats.free_slots, stats.waiting_slots), (2, 8, 0));
}

#[test]
fn a_put_after_a_delete_of_the_same_key_survives_recovery() {
    let (device, store) = store(4096, 10);
    store.put(b"key", b"one").unwrap();
    assert!(store.delete_many(&[b"key"]).remove(0).unwrap());
    store.put(b"key", b"two").unwrap();
    drop(store);
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"two");
}

#[test]
fn sequences_go_on_after_recovery_so_that_newer_stays_newer() {
    let (device, store) = store(4096, 10);
    for round in 0..5_u8 {
        store.put(b"key", &[round]).unwrap();
    }
    drop(store);
    for round in 5..20_u8 {
        let store = reopen(&device);
        assert_eq!(payload(&store, b"key").unwrap(), [round - 1]);
        store.put(b"key", &[round]).unwrap();
        drop(store);
    }
}

#[test]
fn a_torn_overwrite_leaves_the_older_object() {
    let (device, store) = store(8192, 10);
    store.put(b"key", &[1; 8192]).unwrap();
    store.put(b"key", &[2; 8192]).unwrap();
    drop(store);
    // Of the second put, which is in slot 1, a part of the payload never reached the device.
    flip(&device, slot_offset(&device, 1) + 4096 + 5000);
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), [1; 8192]);
}

#[test]
fn a_damaged_payload_is_reported_and_counted_and_the_others_are_well() {
    let (device, store) = store(8192, 10);
    let value = bytes(1, 8192);
    put_all(&store, &[Put::new(b"a", &value), Put::new(b"b", &value)]);
    flip(&device, slot_offset(&device, 0) + 4096);
    assert!(matches!(
        store.get(b"a"),
        Err(Error::Damaged { structure: "the payload of an object", .. })
    ));
    flip(&device, slot_offset(&device, 0) + 4096);
    flip(&device, slot_offset(&device, 0) + 100);
    assert!(matches!(
        store.get(b"a"),
        Err(Error::Damaged { structure: "the header of an object", .. })
    ));
    assert_eq!(payload(&store, b"b").unwrap(), value);
    assert_eq!(store.stats().failed_checks, 2);
}

#[test]
fn an_object_of_another_slot_is_not_taken_for_the_right_one() {
    let (device, store) = store(8192, 10);
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", &[2; 8192])]);
    let other = read(&device, slot_offset(&device, 1), 12288);
    write(&device, slot_offset(&device, 0), &other);
    assert!(matches!(store.get(b"a"), Err(Error::Damaged { .. })));
}

#[test]
fn an_older_write_of_the_same_slot_and_key_is_not_taken_for_the_newer() {
    let (device, store) = store(8192, 2);
    store.put(b"key", &[1; 8192]).unwrap();
    let older = read(&device, slot_offset(&device, 0), 12288);
    store.put(b"key", &[2; 8192]).unwrap();
    // Slot 0 again, after a checkpoint; then the device goes back to what it had there.
    store.put(b"key", &[3; 8192]).unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), [3; 8192]);
    write(&device, slot_offset(&device, 0), &older);
    assert!(matches!(
        store.get(b"key"),
        Err(Error::Damaged { structure: "the header of an object", .. })
    ));
}

#[test]
fn one_good_copy_of_the_superblock_is_enough_and_repairs_the_others() {
    let (device, store) = store(4096, 10);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let last = superblock(&device).last_superblock_offset.get();
    flip(&device, 100);
    flip(&device, last + 300);
    let store = reopen(&device);
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    store.close().unwrap();
    let copies = [0, 4096, last].map(|offset| read(&device, offset, 512).to_vec());
    assert!(copies[0] == copies[1] && copies[1] == copies[2]);
}

#[test]
fn a_device_without_a_valid_superblock_is_no_store() {
    let reason = |device: &Arc<dyn IoBackend>| match Store::open(device.clone()) {
        Err(Error::NotAStore { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&memory(1 << 20)).contains("there is no superblock"));
    assert!(reason(&memory(4096)).contains("there is no superblock"));
    let (device, store) = store(4096, 10);
    store.close().unwrap();
    let last = superblock(&device).last_superblock_offset.get();
    for offset in [0, 4096, last] {
        flip(&device, offset + 64);
    }
    assert!(reason(&device).contains("checksum"));
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_changes_nothing_and_the_older_one_serves_on_request() {
    let (device, store) = store(4096, 10);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let before = superblock(&device);
    // Formatting wrote container 0, closing container 1.
    flip(&device, before.checkpoint_offset[1].get() + 4096 + 70);
    assert!(matches!(Store::open(device.clone()), Err(Error::CheckpointLost { number: 2, .. })));
    assert_eq!(superblock(&device), before);

    let options = OpenOptions { accept_older_states: true, ..OpenOptions::default() };
    let store = Store::open_with(device.clone(), &options).unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), b"value", "its slot speaks for itself");
    store.close().unwrap();
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"value");
}

#[test]
fn the_loss_of_a_committed_checkpoint_header_is_noticed_by_what_was_written_after_it() {
    let (device, store) = store(4096, 10);
    store.put(b"key", b"value").unwrap();
    store.checkpoint().unwrap();
    store.put(b"other", b"value").unwrap();
    drop(store);
    flip(&device, superblock(&device).checkpoint_offset[1].get() + 70);
    assert!(matches!(Store::open(device.clone()), Err(Error::CheckpointLost { number: 2, .. })));
    let options = OpenOptions { accept_older_states: true, ..OpenOptions::default() };
    let store = Store::open_with(device.clone(), &options).unwrap();
    assert_eq!(payload(&store, b"other").unwrap(), b"value");
    drop(store);
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"value", "a new one was written");
}

#[test]
fn formatting_spares_a_store_unless_it_is_forced() {
    let (device, store) = store(4096, 10);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let options = FormatOptions { label: "second".into(), ..FormatOptions::for_payloads(512) };
    let refused = Store::format(device.clone(), &options);
    assert!(matches!(refused, Err(Error::AlreadyAStore { .. })));
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"value");

    Store::format(device.clone(), &FormatOptions { force: true, ..options }).unwrap();
    let store = reopen(&device);
    assert_eq!(payload(&store, b"key"), None);
    assert_eq!(superblock(&device).label(), "second");
    drop(store);
    assert_eq!(reopen(&device).stats().live_slots, 0, "slots of the old store stay dead");
}

#[test]
fn a_device_that_cannot_hold_the_store_is_refused() {
    let refused = |len, options| {
        matches!(Store::format(memory(len), &options), Err(Error::Unsuitable { .. }))
    };
    assert!(refused(8192, FormatOptions::for_payloads(512)));
    assert!(refused(1 << 20, FormatOptions::for_payloads(1 << 20)));
    assert!(refused(1 << 20, FormatOptions::for_payloads(u64::MAX)));
    let options = FormatOptions::for_payloads(4096);
    assert!(refused(1 << 20, FormatOptions { slot_count: Some(1000), ..options.clone() }));
    assert!(refused(1 << 20, FormatOptions { slot_count: Some(0), ..options.clone() }));
    assert!(refused(1 << 20, FormatOptions { slot_count: Some(u64::MAX), ..options.clone() }));
    assert!(refused(1 << 20, FormatOptions { block_size: Some(1000), ..options.clone() }));
    assert!(!refused(1 << 20, options));
}

#[test]
fn a_store_uses_the_whole_device() {
    let device = memory(64 << 20);
    let store = store_on(&device, &FormatOptions::for_payloads(60 << 10));
    let slots = store.stats().slots;
    // 64 KiB a slot, and well below a hundredth for everything else.
    assert!((1013..1024).contains(&slots), "{slots}");
}

#[test]
fn a_store_on_a_device_that_became_longer_opens_and_on_a_shorter_one_does_not() {
    let (device, store) = store(4096, 10);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let image = read(&device, 0, 64 << 20);
    let longer = memory(128 << 20);
    write(&longer, 0, &image);
    assert_eq!(payload(&reopen(&longer), b"key").unwrap(), b"value");
    let shorter = memory(32 << 20);
    write(&shorter, 0, &image[..32 << 20]);
    assert!(matches!(
        Store::open(shorter),
        Err(Error::Unsuitable { reason, .. }) if reason.contains("has only 33554432")
    ));
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(u8, u16)>),
    Delete(Vec<u8>),
    Get(Vec<u8>),
    Close,
    Drop,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = || prop::collection::vec(0..12_u8, 1..8);
    prop_oneof![
        4 => prop::collection::vec((0..12_u8, 0..9000_u16), 1..8).prop_map(Step::Put),
        2 => keys().prop_map(Step::Delete),
        2 => keys().prop_map(Step::Get),
        1 => Just(Step::Close),
        1 => Just(Step::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map_however_it_is_closed(steps in prop::collection::vec(step(), 1..40)) {
        let (device, mut store) = store(9000, 20);
        let mut model: HashMap<u8, Vec<u8>> = HashMap::new();
        for (seed, step) in (0_u64..).zip(steps) {
            match step {
                Step::Put(objects) => {
                    let objects: Vec<_> = (0..).zip(objects).map(|(number, (key, len))| {
                        ([key], bytes(seed << 8 | number, len.into()))
                    }).collect();
                    let puts: Vec<_> = objects.iter().map(|(key, value)| Put::new(key, value)).collect();
                    put_all(&store, &puts);
                    model.extend(objects.into_iter().map(|([key], value)| (key, value)));
                }
                Step::Delete(keys) => {
                    let keys: Vec<_> = keys.iter().map(std::slice::from_ref).collect();
                    for (result, key) in store.delete_many(&keys).into_iter().zip(&keys) {
                        prop_assert_eq!(result.unwrap(), model.remove(&key[0]).is_some());
                    }
                }
                Step::Get(keys) => for key in keys {
                    prop_assert_eq!(payload(&store, &[key]), model.get(&key).cloned());
                },
                Step::Close => {
                    store.close().unwrap();
                    store = reopen(&device);
                }
                Step::Drop => {
                    drop(store);
                    store = reopen(&device);
                }
            }
            let stats = store.stats();
            prop_assert_eq!(stats.live_slots, model.len() as u64);
            prop_assert_eq!(stats.live_slots + stats.free_slots + stats.waiting_slots, stats.slots);
        }
    }
}

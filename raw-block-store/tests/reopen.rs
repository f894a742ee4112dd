//! Closing and opening a store, after an orderly end and without one, intact and damaged.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{
    bytes, check_segments, flip, get_one, layout, memory, newest, payload, put_all, read, small,
    store, store_on, superblock, versions, write,
};
use proptest::prelude::*;
use raw_block_core::backend::IoBackend;
use raw_block_store::{Error, FormatOptions, OpenOptions, Put, Store};

/// Bytes of the devices.
const LEN: u64 = 1 << 20;

fn reopen(device: &Arc<dyn IoBackend>) -> Store {
    Store::open(device.clone()).unwrap()
}

#[test]
fn a_closed_store_holds_what_it_held() {
    let (device, store) = store(LEN);
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", b"b"), Put::new(b"c", b"c")]);
    store.put(b"b", b"newer").unwrap();
    assert!(store.delete_many(&[b"c"]).remove(0).unwrap());
    store.close().unwrap();

    let store = reopen(&device);
    assert_eq!(payload(&store, b"a").unwrap(), [1; 8192]);
    assert_eq!(payload(&store, b"b").unwrap(), b"newer");
    assert_eq!(payload(&store, b"c"), None);
    assert_eq!(store.stats().objects, 2);
    check_segments(&store);
}

#[test]
fn a_store_that_was_not_closed_holds_what_it_held() {
    let (device, store) = store(LEN);
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", b"b"), Put::new(b"c", b"c")]);
    store.put(b"b", b"newer").unwrap();
    assert!(store.delete_many(&[b"c"]).remove(0).unwrap());
    drop(store);

    let store = reopen(&device);
    assert_eq!(payload(&store, b"a").unwrap(), [1; 8192]);
    assert_eq!(payload(&store, b"b").unwrap(), b"newer");
    assert_eq!(payload(&store, b"c"), None, "a deleted object does not come back");
    assert_eq!(store.stats().objects, 2);
    check_segments(&store);
}

#[test]
fn a_put_after_a_delete_of_the_same_key_survives_recovery() {
    let (device, store) = store(LEN);
    store.put(b"key", b"one").unwrap();
    assert!(store.delete_many(&[b"key"]).remove(0).unwrap());
    store.put(b"key", b"two").unwrap();
    drop(store);
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"two");
}

#[test]
fn sequences_go_on_after_recovery_so_that_newer_stays_newer() {
    let (device, store) = store(LEN);
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
    let (device, store) = store(LEN);
    store.put(b"key", &[1; 8192]).unwrap();
    store.put(b"key", &[2; 8192]).unwrap();
    drop(store);
    // A part of the payload of the second put never reached the device.
    flip(&device, newest(&device, b"key").payload + 5000);
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), [1; 8192]);
}

#[test]
fn a_damaged_payload_is_reported_and_counted() {
    let (device, store) = store(LEN);
    let value = bytes(1, 8192);
    put_all(&store, &[Put::new(b"a", &value), Put::new(b"b", &value)]);
    let version = newest(&device, b"a");
    flip(&device, version.payload);
    assert!(matches!(
        store.get(b"a"),
        Err(Error::Damaged { structure: "an object", offset, .. })
            if offset == version.payload
    ));
    // It stays damaged, and counts once.
    flip(&device, version.payload);
    assert!(matches!(store.get(b"a"), Err(Error::Damaged { .. })));
    assert!(!store.contains(b"a").unwrap());
    assert_eq!(payload(&store, b"b").unwrap(), value);
    assert_eq!(store.stats().failed_checks, 1);
    store.put(b"a", b"overwritten").unwrap();
    assert_eq!(payload(&store, b"a").unwrap(), b"overwritten");
}

#[test]
fn a_damaged_header_costs_the_metadata_and_not_the_payload() {
    let (device, store) = store(LEN);
    let put = Put::new(b"key", &[1; 5000]).with_metadata(b"metadata");
    put_all(&store, &[put]);
    flip(&device, newest(&device, b"key").slot + 100);
    let mut buffer = [0; 5000];
    assert_eq!(get_one(&store, b"key", &mut buffer).unwrap(), Some(5000));
    assert_eq!(buffer, [1; 5000]);
    assert!(matches!(store.get(b"key"), Err(Error::Damaged { structure: "an object", .. })));
}

#[test]
fn a_payload_of_another_place_is_not_taken_for_the_right_one() {
    let (device, store) = store(LEN);
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", &[1; 8192])]);
    let [a, b] = [b"a", b"b"].map(|key| newest(&device, key).payload);
    write(&device, a, &read(&device, b, 8192));
    assert_eq!(payload(&store, b"a").unwrap(), [1; 8192], "the same bytes are no damage");
    put_all(&store, &[Put::new(b"a", &[1; 8192]), Put::new(b"b", &[2; 8192])]);
    let [a, b] = [b"a", b"b"].map(|key| newest(&device, key).payload);
    write(&device, a, &read(&device, b, 8192));
    assert!(matches!(store.get(b"a"), Err(Error::Damaged { .. })));
}

#[test]
fn an_older_write_to_the_same_place_is_not_taken_for_the_newer() {
    let (device, store) = store(LEN);
    store.put(b"key", &[0; 8192]).unwrap();
    let older = versions(&device).remove(0);
    let len = usize::try_from(older.slot_end - older.slot).unwrap();
    let slot = read(&device, older.slot, len);
    // Until its place is written again.
    let mut round = 0;
    while newest(&device, b"key").slot != older.slot || round == 0 {
        round += 1;
        store.put(b"key", &[round; 8192]).unwrap();
    }
    assert_eq!(payload(&store, b"key").unwrap(), [round; 8192]);
    write(&device, older.slot, &slot);
    assert!(matches!(store.get(b"key"), Err(Error::Damaged { .. })));
    drop(store);
    // It looks like a put that never reached the device, after the one before.
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), [round - 1; 8192]);
}

#[test]
fn one_good_copy_of_the_superblock_repairs_the_others() {
    let (device, store) = store(LEN);
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
        Err(Error::NotAStore { reason, .. } | Error::UnusableStore { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&memory(1 << 20)).contains("there is no superblock"));
    assert!(reason(&memory(4096)).contains("there is no superblock"));
    let (device, store) = store(LEN);
    store.close().unwrap();
    let last = superblock(&device).last_superblock_offset.get();
    for offset in [0, 4096, last] {
        flip(&device, offset + 64);
    }
    assert!(reason(&device).contains("checksum"));
}

#[test]
fn a_damaged_checkpoint_is_an_error_or_replaced_on_request() {
    let (device, store) = store(LEN);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let before = superblock(&device);
    // Formatting wrote container 0, closing container 1.
    flip(&device, before.container_offset[1].get() + 512 + 70);
    assert!(matches!(Store::open(device.clone()), Err(Error::CheckpointLost { number: 2, .. })));
    assert_eq!(superblock(&device), before);

    let options = OpenOptions::default().accept_older_states(true);
    let store = Store::open_with(device.clone(), &options).unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), b"value", "its slot header names it");
    store.close().unwrap();
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"value");
}

#[test]
fn a_lost_checkpoint_matters_once_a_segment_was_opened_since() {
    let (device, store) = store(LEN);
    store.put(b"key", b"value").unwrap();
    assert!(!store.delete(b"absent").unwrap());
    store.checkpoint().unwrap();
    store.put(b"other", b"value").unwrap();
    store.delete(b"key").unwrap();
    let header = superblock(&device).container_offset[1].get() + 70;
    let image = read(&device, 0, 1 << 20);
    // Nothing that the checkpoint before names was overwritten.
    let copy = memory(LEN);
    write(&copy, 0, &image);
    flip(&copy, header);
    let opened = reopen(&copy);
    assert_eq!((payload(&opened, b"key"), payload(&opened, b"other").unwrap().len()), (None, 5));

    for key in 0..3 {
        store.put(&[key], &[key; 20_000]).unwrap();
    }
    drop(store);
    flip(&device, header);
    assert!(matches!(Store::open(device.clone()), Err(Error::CheckpointLost { number: 2, .. })));
    let options = OpenOptions::default().accept_older_states(true);
    let store = Store::open_with(device.clone(), &options).unwrap();
    assert_eq!(payload(&store, b"other").unwrap(), b"value");
    drop(store);
    assert_eq!(payload(&reopen(&device), b"other").unwrap(), b"value", "a new one was written");
}

#[test]
fn formatting_spares_a_store_unless_it_is_forced() {
    let (device, store) = store(LEN);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let options = small().label("second");
    let refused = Store::format(device.clone(), &options);
    assert!(matches!(refused, Err(Error::AlreadyAStore { .. })));
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), b"value");

    Store::format(device.clone(), &options.force(true)).unwrap();
    let store = reopen(&device);
    assert_eq!(payload(&store, b"key"), None);
    assert_eq!(superblock(&device).label(), "second");
    drop(store);
    assert_eq!(reopen(&device).stats().objects, 0, "objects of the old store do not count");
}

#[test]
fn a_device_that_cannot_hold_the_store_is_refused() {
    let reason = |len, options: &FormatOptions| match Store::format(memory(len), options) {
        Err(Error::Unsuitable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let by_default = FormatOptions::default();
    let segments = |segment_size| small().segment_size(segment_size);
    let objects = |largest_object| FormatOptions::default().largest_object(largest_object);
    let too_few = "too few for 8 segments";
    assert!(reason(8192, &by_default).contains(too_few));
    assert!(reason(8 * (32 << 10), &small()).contains(too_few));
    assert!(reason(LEN, &segments(1 << 20)).contains(too_few));
    for no_power_of_two in [0, 1, 1000, 33 << 10, (1 << 20) - 1, u64::MAX] {
        assert!(reason(LEN, &segments(no_power_of_two)).contains("not a power of two"));
    }
    assert!(reason(LEN, &segments(2048)).contains("8 and 16777216 blocks"));
    assert!(reason(LEN, &objects(1 << 20)).contains(too_few));
    assert!(reason(LEN, &objects(u64::MAX)).contains("too large for any segment"));
    let object = small().largest_object(32 << 10);
    assert!(reason(LEN, &object).contains("do not fit into segments of 32768 bytes"));
    let block_size = by_default.block_size(1000);
    assert!(reason(LEN, &block_size).contains("a block size of 1000 bytes"));
}

#[test]
fn the_smallest_store_has_eight_segments_and_works() {
    let options = small().segment_size(4096);
    let fits = |len: &u64| Store::format(memory(*len), &options).is_ok();
    let len = (1..).map(|blocks| blocks * 4096).find(fits).unwrap();
    let device = memory(len);
    let store = store_on(&device, &options);
    assert_eq!(store.stats().segments, 8);
    for round in 0..100 {
        store.put(b"key", &[round; 2000]).unwrap();
    }
    assert!(matches!(store.put(b"key", &[0; 4096]), Err(Error::PayloadTooLarge { .. })));
    drop(store);
    assert_eq!(payload(&reopen(&device), b"key").unwrap(), [99; 2000]);
}

#[test]
fn a_store_uses_the_whole_device() {
    let device = memory(64 << 20);
    Store::format(device.clone(), &FormatOptions::default()).unwrap();
    let layout = layout(&device);
    // Less than one more segment, and what lies in front of the first one.
    let left = layout.last_superblock_offset - layout.segment_offset(layout.segment_count);
    assert!(left < layout.segment_size(), "{left} bytes");
    assert!(layout.segments_offset <= 1 << 20, "{} bytes", layout.segments_offset);
}

#[test]
fn a_store_opens_on_a_longer_device_and_not_on_a_shorter_one() {
    let (device, store) = store(LEN);
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    let image = read(&device, 0, 1 << 20);
    let longer = memory(2 << 20);
    write(&longer, 0, &image);
    assert_eq!(payload(&reopen(&longer), b"key").unwrap(), b"value");
    let shorter = memory(1 << 19);
    write(&shorter, 0, &image[..1 << 19]);
    assert!(matches!(
        Store::open(shorter),
        Err(Error::UnusableStore { reason, .. }) if reason.contains("has only 524288")
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
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map_however_it_is_closed(steps in prop::collection::vec(step(), 1..40)) {
        let (device, mut store) = store(LEN);
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
            prop_assert_eq!(store.stats().objects, model.len() as u64);
            check_segments(&store);
        }
    }
}

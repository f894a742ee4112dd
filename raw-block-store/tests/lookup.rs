//! Looking keys up, one by one and many at a time, and pinning a prefix of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{flip, memory, newest, payload, small, store, without_thread};
use raw_block_store::{EvictionPolicy, Put, Store};

/// More keys than are looked up together.
const KEYS: u32 = 200;

fn names(keys: impl IntoIterator<Item = u32>) -> Vec<[u8; 4]> {
    keys.into_iter().map(u32::to_le_bytes).collect()
}

fn put(store: &Store, keys: impl IntoIterator<Item = u32>) {
    let keys = names(keys);
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, key)).collect();
    store.put_many(&puts).all().unwrap();
}

#[test]
fn many_look_ups_answer_like_single_ones() {
    let (_, store) = store(4 << 20);
    put(&store, (0..KEYS).filter(|key| key % 3 != 1));
    store.delete(&6_u32.to_le_bytes()).unwrap();
    let keys = names((0..KEYS).chain([7, 0, 0]));
    let single: Vec<_> = keys.iter().map(|key| store.contains(key).unwrap()).collect();
    let expected = |key| key % 3 != 1 && key != 6;
    assert!((0..KEYS).zip(&single).all(|(key, &found)| found == expected(key)));
    assert_eq!(store.contains_many(&keys).unwrap(), single);
    let none: [&[u8]; 0] = [];
    assert!(store.contains_many(&none).unwrap().is_empty());
    assert_eq!(store.stats().hits + store.stats().misses, 0, "a look-up is no get");
}

#[test]
fn a_prefix_ends_at_the_first_absent_key() {
    let (_, store) = store(4 << 20);
    put(&store, 0..KEYS);
    let mut keys = names(0..KEYS);
    assert_eq!(store.prefix_len(&keys).unwrap(), 200);
    assert_eq!(store.pin_prefix(&keys).unwrap().len(), 200);
    for absent in [199, 130, 129, 128, 127, 65, 64, 63, 1, 0] {
        store.delete(&keys[absent]).unwrap();
        assert_eq!(store.prefix_len(&keys).unwrap(), absent);
        assert_eq!(store.pin_prefix(&keys).unwrap().len(), absent);
    }
    assert_eq!(store.stats().pinned_versions, 0);
    keys.clear();
    assert_eq!(store.prefix_len(&keys).unwrap(), 0);
    assert!(store.pin_prefix(&keys).unwrap().is_empty());
}

#[test]
fn a_damaged_object_ends_a_prefix() {
    let (device, store) = store(4 << 20);
    for key in 0..4_u32 {
        store.put(&key.to_le_bytes(), &[7; 5000]).unwrap();
    }
    let keys = names(0..4);
    flip(&device, newest(&device, &keys[2]).payload + 1000);
    assert!(store.get(&keys[2]).is_err());
    assert_eq!(store.contains_many(&keys).unwrap(), [true, true, false, true]);
    assert_eq!(store.prefix_len(&keys).unwrap(), 2);
    assert_eq!(store.pin_prefix(&keys).unwrap().len(), 2);
    assert!(store.pin(&keys[2]).unwrap().is_none());
}

#[test]
fn a_pinned_prefix_can_be_read_whatever_is_put() {
    let device = memory(1 << 20);
    Store::format(device.clone(), &small()).unwrap();
    let options = without_thread().eviction(EvictionPolicy::Lru);
    let store = Store::open_with(device, &options).unwrap();
    put(&store, 0..KEYS);
    // A key that appears twice is pinned twice.
    let mut keys = names(0..100);
    keys.extend(names([5, KEYS, 6]));
    let pins = store.pin_prefix(&keys).unwrap();
    assert_eq!((pins.len(), store.stats().pinned_versions), (101, 100));
    store.delete(&keys[1]).unwrap();
    for round in 0..3000_u32 {
        store.put(&keys[0], &round.to_le_bytes()).unwrap();
        store.put(&(KEYS + round).to_le_bytes(), &[7; 4096]).unwrap();
    }
    assert!(store.stats().evictions > 0);
    for (pin, key) in pins.iter().zip(&keys) {
        let mut found = [0; 4];
        pin.read(&mut found, &mut []).unwrap();
        assert_eq!(found, *key);
    }
    assert_eq!(payload(&store, &keys[1]), None);
    drop(pins);
    assert_eq!(store.stats().pinned_versions, 0);
}

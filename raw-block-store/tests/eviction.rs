//! A store that is full, with and without a policy that makes room.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;

use common::{memory, payload, put_all};
use raw_block_core::IoBackend;
use raw_block_store::{Error, EvictionPolicy, FormatOptions, OpenOptions, Put, Store};

const POLICIES: [EvictionPolicy; 2] = [EvictionPolicy::Lru, EvictionPolicy::S3Fifo];

fn store(slots: u64, eviction: EvictionPolicy) -> (Arc<dyn IoBackend>, Store) {
    let device = memory(16 << 20);
    let options = FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(4096) };
    Store::format(device.clone(), &options).unwrap();
    let store = open(&device, eviction);
    (device, store)
}

fn open(device: &Arc<dyn IoBackend>, eviction: EvictionPolicy) -> Store {
    // Without a thread for checkpoints it is known when they are taken.
    let options = OpenOptions { eviction, checkpoint_thread: false, ..OpenOptions::default() };
    Store::open_with(device.clone(), &options).unwrap()
}

fn put(store: &Store, keys: std::ops::Range<u32>) {
    for key in keys {
        store.put(&key.to_le_bytes(), &[key.to_le_bytes()[0]; 4096]).unwrap();
    }
}

fn holds(store: &Store, key: u32) -> bool {
    let found = payload(store, &key.to_le_bytes());
    assert!(found.as_ref().is_none_or(|found| *found == [key.to_le_bytes()[0]; 4096]));
    found.is_some()
}

#[test]
fn without_a_policy_a_full_store_says_what_fills_it() {
    let (_, store) = store(4, EvictionPolicy::None);
    put(&store, 0..4);
    let _pin = store.pin(&0_u32.to_le_bytes()).unwrap();
    let refused = store.put(b"one more", b"").unwrap_err();
    assert!(matches!(refused, Error::Full { slots: 4, live: 4, pinned: 1, .. }), "{refused}");
    assert!(store.delete_many(&[&1_u32.to_le_bytes()]).remove(0).unwrap());
    store.put(b"one more", b"").unwrap();
}

#[test]
fn with_a_policy_a_store_never_fills() {
    for policy in POLICIES {
        let (_, store) = store(20, policy);
        put(&store, 0..500);
        assert!(holds(&store, 499));
        let stats = store.stats();
        assert_eq!(stats.live_slots + stats.free_slots + stats.waiting_slots, 20);
        assert!(stats.evictions >= 480, "{stats:?}");
    }
}

#[test]
fn a_batch_larger_than_the_store_leaves_its_last_objects() {
    for policy in POLICIES {
        let (_, store) = store(20, policy);
        let keys: Vec<_> = (0..100_u32).map(u32::to_le_bytes).collect();
        put_all(&store, &keys.iter().map(|key| Put::new(key, &key[..1])).collect::<Vec<_>>());
        assert_eq!(payload(&store, &keys[99]).unwrap(), [99]);
    }
}

#[test]
fn what_was_got_lately_stays() {
    for policy in POLICIES {
        let (_, store) = store(20, policy);
        put(&store, 0..20);
        for key in 20..60 {
            // Twice: S3-FIFO does not count the first use.
            assert!(holds(&store, 3) && holds(&store, 3), "{policy:?} at {key}");
            put(&store, key..key + 1);
        }
    }
}

#[test]
fn a_pinned_object_is_not_evicted() {
    for policy in POLICIES {
        let (_, store) = store(20, policy);
        put(&store, 0..20);
        let pin = store.pin(&7_u32.to_le_bytes()).unwrap();
        put(&store, 20..200);
        assert!(store.contains(&7_u32.to_le_bytes()));
        drop(pin);
        put(&store, 200..400);
        // In S3-FIFO it has reached the main queue, where it stays for long.
        assert_eq!(store.contains(&7_u32.to_le_bytes()), policy == EvictionPolicy::S3Fifo);
    }
}

#[test]
fn a_store_of_pinned_objects_is_full() {
    for policy in POLICIES {
        let (_, store) = store(4, policy);
        put(&store, 0..4);
        let pins: Vec<_> = (0..4_u32).map(|key| store.pin(&key.to_le_bytes()).unwrap()).collect();
        let refused = store.put(b"key", b"").unwrap_err();
        assert!(matches!(refused, Error::Full { pinned: 4, .. }), "{refused}");
        drop(pins);
        store.put(b"key", b"").unwrap();
    }
}

#[test]
fn a_pinned_object_outlives_its_replacement_and_its_deletion() {
    let (_, store) = store(4, EvictionPolicy::None);
    store.put(b"key", &[1; 4096]).unwrap();
    let pin = store.pin(b"key").unwrap();
    let mut found = [0; 4096];
    for round in 0..20 {
        store.put(b"key", &[2; 4096]).unwrap();
        assert!(store.delete_many(&[b"key"]).remove(0).unwrap());
        store.flush().unwrap();
        assert_eq!(pin.read(&mut found, &mut []).unwrap().payload_len, 4096);
        assert_eq!(found, [1; 4096], "round {round}");
    }
    assert!(store.pin(b"key").is_none());
    drop(pin);
    store.checkpoint().unwrap();
    let stats = store.stats();
    assert_eq!((stats.free_slots, stats.waiting_slots, stats.pinned_slots), (4, 0, 0));
}

#[test]
fn the_order_of_use_before_a_restart_is_that_of_the_puts() {
    let (device, store) = store(20, EvictionPolicy::Lru);
    put(&store, 0..20);
    put(&store, 0..1);
    store.close().unwrap();
    let store = open(&device, EvictionPolicy::Lru);
    put(&store, 20..25);
    assert!(holds(&store, 0), "it was put again, last");
    assert!(!holds(&store, 1));
}

#[test]
fn an_evicted_object_is_gone_or_back_with_its_value_after_a_crash_unless_it_was_deleted() {
    for policy in POLICIES {
        let (device, store) = store(20, policy);
        put(&store, 0..20);
        put(&store, 20..30);
        let evicted: Vec<_> = (0..20).filter(|&key| !holds(&store, key)).collect();
        assert!(evicted.len() >= 10);
        let deleted = evicted[0].to_le_bytes();
        assert!(!store.delete_many(&[&deleted]).remove(0).unwrap(), "it was not there");
        drop(store);
        let store = open(&device, policy);
        assert_eq!(payload(&store, &deleted), None);
        assert!((20..30).all(|key| holds(&store, key)));
    }
}

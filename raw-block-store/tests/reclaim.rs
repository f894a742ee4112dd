//! Full stores: their space is reclaimed, by calls and by the background thread.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use common::{check_segments, flip, memory, newest};
use raw_block_core::backend::IoBackend;
use raw_block_store::{Error, EvictionPolicy, FormatOptions, OpenOptions, Store, Verification};

const SEGMENT: u64 = 128 << 10;
const SEGMENTS: u64 = 32;

fn device() -> Arc<dyn IoBackend> {
    let device = memory((SEGMENTS + 2) * SEGMENT);
    let options = FormatOptions::default().segment_size(SEGMENT).block_size(512);
    Store::format(device.clone(), &options).unwrap();
    device
}

fn open(device: &Arc<dyn IoBackend>, eviction: EvictionPolicy, background: bool) -> Store {
    let options = OpenOptions::default().eviction(eviction).background(background);
    Store::open_with(device.clone(), &options).unwrap()
}

/// A deterministic sequence of numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Bytes that differ for every key and version, at the front and, for most, anywhere.
fn payload(key: u64, version: u64, len: u64) -> Vec<u8> {
    let fill = (key.wrapping_mul(31) ^ version.wrapping_mul(17)).to_le_bytes()[0];
    let mut payload = vec![fill; usize::try_from(len).unwrap()];
    for (byte, own) in payload.iter_mut().zip([key.to_le_bytes(), version.to_le_bytes()].concat()) {
        *byte = own;
    }
    payload
}

fn get(store: &Store, key: u64) -> Option<Vec<u8>> {
    store.get(&key.to_le_bytes()).unwrap().map(|object| object.payload().to_vec())
}

/// Puts and deletes objects of many sizes at random, and remembers what is there.
fn churn(store: &Store, seed: u64, keys: u64, changes: u64, there: &mut HashMap<u64, (u64, u64)>) {
    let mut numbers = Numbers(seed);
    for version in 0..changes {
        let key = seed << 32 | numbers.below(keys);
        if numbers.below(10) < 3 {
            let (deleted, was_put) =
                (store.delete(&key.to_le_bytes()).unwrap(), there.remove(&key).is_some());
            assert!(deleted == was_put || was_put && store.stats().evictions > 0, "key {key}");
            continue;
        }
        let len = match numbers.below(10) {
            0 => 0,
            1..6 => numbers.below(2000),
            6..9 => numbers.below(20_000),
            _ => numbers.below(60_000),
        };
        store.put(&key.to_le_bytes(), &payload(key, version, len)).unwrap();
        there.insert(key, (version, len));
    }
}

#[test]
fn churn_in_a_store_without_eviction_loses_nothing() {
    for background in [false, true] {
        let device = device();
        let store = open(&device, EvictionPolicy::None, background);
        let mut there = HashMap::new();
        for round in 0..3 {
            churn(&store, 1 + round, 300, 1000, &mut there);
            for (&key, &(version, len)) in &there {
                assert!(get(&store, key).unwrap() == payload(key, version, len), "key {key}");
            }
            // What was put is not needed any more.
            for key in there.drain().map(|(key, _)| key) {
                assert!(store.delete(&key.to_le_bytes()).unwrap());
            }
        }
        let stats = store.stats();
        assert_eq!(stats.evictions, 0);
        assert!(stats.moves > 0 && stats.reclaims > 0, "{stats:?}");
    }
}

#[test]
fn what_was_moved_is_found_after_any_end() {
    for orderly in [true, false] {
        let device = device();
        let mut there = HashMap::new();
        for round in 0..3 {
            let store = open(&device, EvictionPolicy::None, false);
            assert_eq!(store.stats().objects, there.len() as u64);
            for (&key, &(version, len)) in &there {
                assert!(get(&store, key).unwrap() == payload(key, version, len), "key {key}");
            }
            churn(&store, 7, 200, 600 + 10 * round, &mut there);
            if orderly {
                store.close().unwrap();
            } else {
                store.flush().unwrap();
            }
        }
    }
}

#[test]
fn a_moved_damaged_object_is_not_returned_after_reopening() {
    for orderly in [true, false] {
        let device = device();
        let store = open(&device, EvictionPolicy::None, false);
        let put = |key: u64| store.put(&key.to_le_bytes(), &payload(key, 0, 9000));
        let end = (0..).find(|&key| put(key).is_err()).unwrap();
        let damaged = 1_u64.to_le_bytes();
        let before = newest(&device, &damaged);
        flip(&device, before.payload + 4000);
        assert!(matches!(store.get(&damaged), Err(Error::Damaged { .. })));
        for key in (0..end).step_by(2) {
            assert!(store.delete(&key.to_le_bytes()).unwrap());
        }
        (end..end + end / 3).for_each(|key| put(key).unwrap());
        assert_ne!(newest(&device, &damaged), before, "it was moved");
        if orderly {
            store.close().unwrap();
        } else {
            store.checkpoint().unwrap();
        }
        drop(store);
        let options = OpenOptions::default().verification(Verification::None).background(false);
        let store = Store::open_with(device, &options).unwrap();
        assert_eq!(get(&store, 3).unwrap(), payload(3, 0, 9000));
        assert!(!matches!(store.get(&damaged), Ok(Some(_))), "damaged bytes are returned");
    }
}

#[test]
fn threads_share_a_full_cache_with_the_background_thread() {
    let device = device();
    let store = open(&device, EvictionPolicy::Lru, true);
    thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let mut there = HashMap::new();
                churn(store, 10 + thread, 400, 800, &mut there);
                let mut found = 0;
                for (key, (version, len)) in there {
                    let Some(bytes) = get(store, key) else { continue };
                    assert!(bytes == payload(key, version, len), "key {key}");
                    found += 1;
                }
                assert!(found > 0);
            });
        }
    });
    let stats = store.stats();
    assert!(stats.evictions > 0 && stats.checkpoints > 0, "{stats:?}");
    check_segments(&store);
    store.close().unwrap();
    // Until then the background thread may have evicted more.
    let objects = store.stats().objects;
    assert_eq!(open(&device, EvictionPolicy::Lru, false).stats().objects, objects);
}

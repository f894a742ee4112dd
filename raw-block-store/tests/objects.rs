//! Objects of any size, through overwrites, deletes and restarts.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{memory, without_thread};
use raw_block_core::backend::IoBackend;
use raw_block_store::{Error, EvictionPolicy, FormatOptions, Get, Put, Store};

fn formatted(segment_size: u64) -> Arc<dyn IoBackend> {
    let device = memory(16 << 20);
    let options = FormatOptions::default().segment_size(segment_size);
    Store::format(device.clone(), &options).unwrap();
    device
}

fn open(device: &Arc<dyn IoBackend>, eviction: EvictionPolicy) -> Store {
    let options = without_thread().eviction(eviction);
    Store::open_with(device.clone(), &options).unwrap()
}

fn bytes(random: &mut fastrand::Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

fn check(store: &Store, expected: &HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)>) {
    for (key, (metadata, payload)) in expected {
        let found = store.get(key).unwrap().unwrap();
        assert_eq!((found.metadata(), found.payload()), (&metadata[..], &payload[..]));
    }
    assert_eq!(store.stats().objects, expected.len() as u64);
}

#[test]
fn objects_of_any_size_are_found_as_they_were_put() {
    let device = formatted(512 << 10);
    let store = open(&device, EvictionPolicy::None);
    let mut random = fastrand::Rng::with_seed(1);
    let mut expected = HashMap::new();
    let largest = usize::try_from(store.max_payload()).unwrap();
    let mut lens = vec![0, 1, 100, 3000, 4095, 4096, 4097, 8192, 70_000, 300_000, largest];
    lens.extend((0..60).map(|_| random.usize(..20_000)));
    for round in 0..2 {
        let objects: Vec<_> = lens
            .iter()
            .enumerate()
            .map(|(at, &len)| {
                let key = format!("key {at}").into_bytes();
                let metadata_len = random.usize(..100);
                (key, bytes(&mut random, metadata_len), bytes(&mut random, len))
            })
            .collect();
        for batch in objects.chunks(if round == 0 { 7 } else { 40 }) {
            let puts: Vec<_> = batch
                .iter()
                .map(|(key, metadata, payload)| Put::new(key, payload).with_metadata(metadata))
                .collect();
            store.put_many(&puts).all().unwrap();
        }
        for (key, metadata, payload) in objects {
            expected.insert(key, (metadata, payload));
        }
        check(&store, &expected);
    }
    let deleted = store.delete_many(&[b"key 3", b"key 10", b"absent"]);
    let deleted: Vec<_> = deleted.into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted, [true, true, false]);
    expected.remove(&b"key 3"[..]);
    expected.remove(&b"key 10"[..]);
    check(&store, &expected);
    drop(store);
    let store = open(&device, EvictionPolicy::None);
    check(&store, &expected);
    store.close().unwrap();
    check(&open(&device, EvictionPolicy::None), &expected);
}

#[test]
fn a_batch_of_gets_reports_each_key_by_itself() {
    let store = open(&formatted(256 << 10), EvictionPolicy::None);
    store.put(b"a", &[1; 5000]).unwrap();
    store.put(b"b", &[2; 10]).unwrap();
    let (mut a, mut b, mut c) = ([0; 5000], [0; 9], [0; 9]);
    let mut gets = [Get::new(b"a", &mut a), Get::new(b"b", &mut b), Get::new(b"c", &mut c)];
    let results = store.get_many(&mut gets);
    assert_eq!(results[0].as_ref().unwrap().unwrap().payload_len, 5000);
    assert!(matches!(results[1], Err(Error::BufferTooSmall { needed: 10, given: 9, .. })));
    assert!(matches!(results[2], Ok(None)));
    assert_eq!(a, [1; 5000]);
}

#[test]
fn a_key_that_comes_twice_in_a_batch_has_its_last_object() {
    let store = open(&formatted(256 << 10), EvictionPolicy::None);
    let puts = [Put::new(b"k", &[1; 9000]), Put::new(b"l", &[2]), Put::new(b"k", &[3; 100])];
    store.put_many(&puts).all().unwrap();
    assert_eq!(store.get(b"k").unwrap().unwrap().payload(), [3; 100]);
    assert_eq!(store.stats().objects, 2);
}

#[test]
fn a_key_that_is_there_is_not_put_again_if_absent() {
    let store = open(&formatted(256 << 10), EvictionPolicy::None);
    store.put(b"k", &[1; 100]).unwrap();
    let puts = [Put::new(b"k", &[2; 100]), Put::new(b"l", &[2; 100])];
    let put: Vec<_> = store.put_many_if_absent(&puts).into_iter().map(Result::unwrap).collect();
    assert_eq!(put, [false, true]);
    assert_eq!(store.get(b"k").unwrap().unwrap().payload(), [1; 100]);
}

#[test]
fn a_full_store_deletes_and_puts_again() {
    let store = open(&formatted(256 << 10), EvictionPolicy::None);
    let payload = vec![7; 30_000];
    let mut count = 0_u32;
    let error = loop {
        match store.put(&count.to_le_bytes(), &payload) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::OutOfSpace { .. }), "{error}");
    assert!(f64::from(count) * 30_000.0 > 0.7 * f64::from(16 << 20), "{count}");
    for key in 0..count / 2 {
        assert!(store.delete(&key.to_le_bytes()).unwrap());
    }
    for key in 0..count / 4 {
        store.put(&key.to_le_bytes(), &payload).unwrap();
    }
    for key in count / 2..count {
        assert_eq!(store.get(&key.to_le_bytes()).unwrap().unwrap().payload(), payload);
    }
}

#[test]
fn a_cache_takes_every_put_and_keeps_what_is_pinned() {
    for eviction in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Fifo] {
        let device = formatted(256 << 10);
        let store = open(&device, eviction);
        store.put(b"pinned", &[9; 20_000]).unwrap();
        let pin = store.pin(b"pinned").unwrap().unwrap();
        for key in 0..1500_u32 {
            store.put(&key.to_le_bytes(), &vec![key.to_le_bytes()[0]; 20_000]).unwrap();
        }
        let mut payload = vec![0; 20_000];
        pin.read(&mut payload, &mut []).unwrap();
        assert_eq!(payload, [9; 20_000]);
        let kept = (0..1500_u32).filter(|key| store.contains(&key.to_le_bytes()).unwrap()).count();
        assert!(kept > 500, "{eviction:?}: {kept}");
        drop(pin);
        let before = store.stats().objects;
        drop(store);
        assert!(open(&device, eviction).stats().objects >= before);
    }
}

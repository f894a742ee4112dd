use std::collections::HashMap;
use std::sync::Arc;

use raw_block_core::MemoryBackend;

use super::*;
use crate::{EvictionPolicy, FormatOptions, OpenOptions, Put};

const SEGMENT: u64 = 64 * 512;
const LIMITS: Limits = Limits { window: 50, batch: 5 };

fn store(segments: u64, eviction: EvictionPolicy) -> Store {
    let device = Arc::new(MemoryBackend::new(segments * SEGMENT + (256 << 10)).unwrap());
    let options = FormatOptions {
        segment_size: Some(SEGMENT),
        block_size: Some(512),
        ..FormatOptions::default()
    };
    Store::format(device.clone(), &options).unwrap();
    let options = OpenOptions { eviction, background: false, ..OpenOptions::default() };
    Store::open_with(device, &options).unwrap()
}

fn put(store: &Store, keys: impl IntoIterator<Item = u32>, len: usize) {
    let keys: Vec<_> = keys.into_iter().map(u32::to_le_bytes).collect();
    let payload = vec![7; len];
    let puts: Vec<_> =
        keys.iter().map(|key| Put::new(key, &payload).with_metadata(&key[..2])).collect();
    store.put_many(&puts).into_iter().for_each(Result::unwrap);
}

fn delete(store: &Store, keys: impl IntoIterator<Item = u32>) {
    for key in keys {
        assert!(store.delete(&key.to_le_bytes()).unwrap(), "key {key}");
    }
}

fn number(object: &ObjectInfo<'_>) -> u32 {
    u32::from_le_bytes(object.key.try_into().unwrap())
}

/// How often each key is listed; `each` is called with the number of objects that were listed before.
fn listed(store: &Store, mut each: impl FnMut(usize)) -> HashMap<u32, u32> {
    let (mut times, mut count) = (HashMap::new(), 0);
    let visit = |object: ObjectInfo<'_>| {
        each(count);
        count += 1;
        *times.entry(number(&object)).or_insert(0) += 1;
        ControlFlow::Continue(())
    };
    store.list_within(LIMITS, visit).unwrap();
    times
}

#[test]
fn every_object_is_listed_once_with_what_was_put() {
    let store = store(40, EvictionPolicy::None);
    put(&store, 0..150, 700);
    put(&store, 100..200, 100);
    delete(&store, [7]);
    let mut places = std::collections::HashSet::new();
    store
        .list(|object| {
            let key = number(&object);
            assert_eq!(object.metadata, &key.to_le_bytes()[..2]);
            assert_eq!(object.payload_len, if key < 100 { 700 } else { 100 });
            assert!(places.insert(object.offset) || object.payload_len == 100);
            ControlFlow::Continue(())
        })
        .unwrap();
    let times = listed(&store, |_| ());
    assert!(times.values().all(|&times| times == 1));
    assert_eq!(times.len(), 199);
}

#[test]
fn a_list_ends_when_it_is_told_to() {
    let store = store(16, EvictionPolicy::None);
    put(&store, 0..60, 100);
    let mut count = 0;
    let visit = |_: ObjectInfo<'_>| {
        count += 1;
        if count == 12 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.list_within(LIMITS, visit).unwrap();
    assert_eq!(count, 12);
}

#[test]
fn what_a_reclaim_moves_meanwhile_is_listed_once() {
    let store = store(16, EvictionPolicy::None);
    let keys = 480;
    put(&store, 0..keys, 900);
    delete(&store, (0..keys).filter(|key| key % 3 != 0));
    let before = store.stats().moves;
    let mut next = 1000;
    let times = listed(&store, |count| {
        if count % 3 == 0 {
            // A few of them stay, so that space is reclaimed by moves.
            put(&store, next..next + 20, 900);
            delete(&store, next + 3..next + 20);
            next += 20;
        }
    });
    assert!(store.stats().moves > before + u64::from(keys) / 3, "{:?}", store.stats());
    for key in (0..keys).filter(|key| key % 3 == 0) {
        assert_eq!(times.get(&key), Some(&1), "key {key}");
    }
    assert!(times.values().all(|&times| times == 1), "{times:?}");
}

#[test]
fn a_list_keeps_no_segment_of_a_full_cache() {
    let store = store(16, EvictionPolicy::Fifo);
    put(&store, 0..400, 900);
    // Everything that is there when the list begins is evicted while it runs.
    let mut next = 1000;
    let times = listed(&store, |_| {
        put(&store, next..next + 20, 900);
        next += 20;
    });
    assert!(times.values().all(|&times| times == 1), "{times:?}");
}

#[test]
fn an_object_without_its_slot_header_is_left_out() {
    let store = store(16, EvictionPolicy::None);
    put(&store, 0..30, 700);
    let object = store.state.index.find(&store.hash(&7_u32.to_le_bytes())).unwrap();
    let header = (object.place.segment, object.entry.header_block());
    let offset = store.state.layout.block_offset(header.0, header.1);
    let write = raw_block_core::WriteAt::new(offset, &[0; 512]);
    store.state.dispatcher.write_buffers(&[write]).all().unwrap();
    let times = listed(&store, |_| ());
    assert!(!times.contains_key(&7));
    assert_eq!(times.len() as u64 + store.stats().failed_checks, 30);
}

use std::collections::HashMap;

use super::*;
use crate::EvictionPolicy;
use crate::ops::test_store::{delete, locate, put, store};

const LIMITS: Limits = Limits { window: 50, batch: 5 };

fn number(object: &ObjectInfo<'_>) -> u32 {
    u32::from_le_bytes(object.key.try_into().unwrap())
}

/// How often each key is listed; `each` is called with the number of objects that were listed
/// before.
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
    let (_, store) = store(40, EvictionPolicy::None);
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
fn a_list_ends_when_its_callback_breaks() {
    let (_, store) = store(16, EvictionPolicy::None);
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
fn an_object_that_a_reclaim_moves_is_listed_once() {
    let (_, store) = store(16, EvictionPolicy::None);
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
    let (_, store) = store(16, EvictionPolicy::Fifo);
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
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..30, 700);
    let object = locate(&store, 7);
    let offset = store.state.layout.block_offset(object.place.segment, object.entry.header_block());
    device.poke(offset, &[0; 512]);
    let times = listed(&store, |_| ());
    assert!(!times.contains_key(&7));
    assert_eq!(times.len() as u64 + store.stats().failed_checks, 30);
}

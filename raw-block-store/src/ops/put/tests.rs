use super::*;
use crate::ops::test_store::{BLOCK, locate, open, put, store, store_of};
use crate::{EvictionPolicy, OpenOptions};

const KEY: u32 = 1042;

/// Puts objects, kills the process, and tears the payload of one of them before the store is opened
/// again.
fn torn(eviction: EvictionPolicy, len: usize) -> Store {
    let (device, store) = store_of(16, 1 << 20, eviction);
    put(&store, 0..60, 700);
    put(&store, [KEY], len);
    let object = locate(&store, KEY);
    let layout = store.state.layout;
    let at = layout.block_offset(object.place.segment, object.entry.block.get());
    drop(store);
    let device = device.process_kill();
    let end = at + len as u64 / BLOCK * BLOCK;
    device.poke(end, &[!device.peek(end, 1)[0]]);
    open(&device, eviction)
}

fn put_if_absent(store: &Store, keys: &[u32]) -> Vec<bool> {
    let keys: Vec<_> = keys.iter().map(|key| key.to_le_bytes()).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &[9; 300])).collect();
    store.put_many_if_absent(&puts).into_iter().map(Result::unwrap).collect()
}

#[test]
fn a_torn_object_is_put_if_absent() {
    for len in [900, 600_000] {
        for eviction in [EvictionPolicy::None, EvictionPolicy::Lru] {
            let store = torn(eviction, len);
            assert_eq!(put_if_absent(&store, &[1, KEY, 2, 100]), [false, true, false, true]);
            assert_eq!(store.get(&KEY.to_le_bytes()).unwrap().unwrap().payload(), [9; 300]);
            assert_eq!(store.stats().failed_checks, 1);
            assert_eq!(put_if_absent(&store, &[1, KEY]), [false, false]);
        }
    }
}

#[test]
fn an_object_that_a_recovery_found_is_verified_once() {
    let (device, store) = store(32, EvictionPolicy::None);
    put(&store, 0..300, 700);
    drop(store);
    let device = device.process_kill();
    let store = open(&device, EvictionPolicy::None);
    let keys: Vec<u32> = (0..300).collect();
    assert!(put_if_absent(&store, &keys).iter().all(|put| !put));
    let is_unverified = |key| store.state.index.is_unverified(locate(&store, key).place);
    assert!(!keys.iter().any(|&key| is_unverified(key)));
    let stats = store.stats();
    assert_eq!((stats.hits, stats.misses, stats.puts), (0, 0, 0), "nothing was got");
}

#[test]
fn a_torn_object_is_missed_and_a_damaged_one_reported() {
    let of_recovery = torn(EvictionPolicy::None, 900);
    assert!(of_recovery.get(&KEY.to_le_bytes()).unwrap().is_none());
    assert!(!of_recovery.contains(&KEY.to_le_bytes()).unwrap());
    assert_eq!(of_recovery.stats().failed_checks, 1);

    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, [KEY], 900);
    let object = locate(&store, KEY);
    let layout = store.state.layout;
    device.poke(layout.block_offset(object.place.segment, object.entry.block.get()), &[0]);
    assert!(matches!(store.get(&KEY.to_le_bytes()), Err(Error::Damaged { .. })));
}

#[test]
fn the_first_of_equal_keys_is_put_if_absent() {
    let (_, store) = store(16, EvictionPolicy::None);
    let puts = [Put::new(b"k", &[1; 600]), Put::new(b"l", &[2]), Put::new(b"k", &[3; 100])];
    let results: Vec<_> = store.put_many_if_absent(&puts).into_iter().map(Result::unwrap).collect();
    assert_eq!(results, [true, true, false]);
    assert_eq!(store.get(b"k").unwrap().unwrap().payload(), [1; 600]);
}

#[test]
fn a_read_only_store_puts_nothing() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, [1], 100);
    store.close().unwrap();
    let store = Store::open_read_only(device.backend(), &OpenOptions::default()).unwrap();
    assert!(store.put_many_if_absent(&[Put::new(b"k", &[1])])[0].is_err());
    assert!(store.put(b"k", &[1]).is_err());
}

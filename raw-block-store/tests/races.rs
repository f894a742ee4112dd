//! Calls of several threads that use the same key.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{memory, put_all, small, store_on};
use raw_block_store::Put;

#[test]
fn an_object_always_comes_with_its_own_metadata() {
    let store = store_on(&memory(1 << 20), &small());
    store.put(b"key", &[0; 64]).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                store.put(b"key", &[0; 64]).unwrap();
                put_all(&store, &[Put::new(b"key", &[1; 640]).with_metadata(b"one")]);
            }
        });
        let wrong = (0..20_000).filter(|_| {
            let object = store.get(b"key").unwrap().unwrap();
            let is_one = object.payload().len() == 640;
            object.payload().iter().any(|&byte| byte != u8::from(is_one))
                || is_one != (object.metadata() == b"one")
        });
        let wrong = wrong.count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, 0);
    });
}

#[test]
fn a_store_with_one_object_is_never_full() {
    let store = store_on(&memory(512 << 10), &small());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| store.put(b"key", &[0; 5000]).unwrap()));
        }
    });
    assert_eq!(store.stats().objects, 1);
}

//! Closing a store that other threads use, or that fails to close.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::faulty::{Fate, Faulty};
use common::{payload, small, store, without_thread};
use raw_block_core::backend::OpKind;
use raw_block_store::{Error, Get, Put, Store};

fn closed<T: Debug>(result: Result<T, Error>) {
    match result {
        Err(error @ Error::Closed { .. }) => {
            assert!(error.to_string().ends_with("is closed: open it again"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_closed_store_refuses_every_call() {
    let (_device, store) = store(1 << 20);
    store.put(b"key", b"value").unwrap();
    let pin = store.pin(b"key").unwrap().unwrap();
    store.close().unwrap();
    closed(store.put(b"key", b"other"));
    store.put_many_if_absent(&[Put::new(b"key", b"other")]).into_iter().for_each(closed);
    closed(store.get(b"key"));
    closed(store.contains(b"key"));
    closed(store.contains_many(&[b"key"]));
    closed(store.prefix_len(&[b"key"]));
    closed(store.pin(b"key"));
    closed(store.pin_prefix(&[b"key"]));
    store.get_many(&mut [Get::new(b"key", &mut [0; 5])]).into_iter().for_each(closed);
    closed(store.delete(b"key"));
    closed(store.clear());
    closed(store.flush());
    closed(store.checkpoint());
    closed(store.list(|_| ControlFlow::Continue(())));
    closed(store.scrub(|_| ControlFlow::Continue(())));
    closed(pin.read(&mut [0; 5], &mut []));
    store.close().unwrap();
    assert_eq!(store.stats().objects, 1);
}

#[test]
fn a_pin_outlives_its_store_and_is_not_read() {
    fn assert_owned<T: Send + Sync + 'static>(_: &T) {}
    let (device, store) = store(1 << 20);
    store.put(b"key", b"value").unwrap();
    let pin = store.pin(b"key").unwrap().unwrap();
    assert_owned(&pin);
    drop(store);
    closed(pin.read(&mut [0; 5], &mut []));
    let reopened = Store::open(device).unwrap();
    for version in 0..2000_u32 {
        reopened.put(b"key", &[version.to_le_bytes(); 512].concat()).unwrap();
    }
    closed(pin.read(&mut [0; 5], &mut []));
    drop(pin);
    assert!(reopened.contains(b"key").unwrap());
    reopened.close().unwrap();
}

#[test]
fn a_list_and_a_scrub_fail_when_the_store_is_closed() {
    let (_device, store) = store(4 << 20);
    for key in 0..200 {
        store.put(&[key], &[key; 4000]).unwrap();
    }
    let mut visited = 0;
    closed(store.scrub(|_| {
        store.close().unwrap();
        visited += 1;
        ControlFlow::Continue(())
    }));
    assert_eq!(visited, 1);
    closed(store.list(|_| ControlFlow::Continue(())));
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_it_is_closed() {
    let (device, store) = store(4 << 20);
    let store = Arc::new(store);
    let begun = AtomicU64::new(0);
    let puts: Vec<u64> = thread::scope(|scope| {
        let threads = (0..4_u8).map(|key| {
            let (store, begun) = (Arc::clone(&store), &begun);
            scope.spawn(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                let mut version = 0_u64;
                loop {
                    match store.put(&[key], &(version + 1).to_le_bytes()) {
                        Ok(()) => version += 1,
                        refused => break closed(refused),
                    }
                }
                version
            })
        });
        let threads: Vec<_> = threads.collect();
        while begun.load(Ordering::SeqCst) < 4 || store.stats().puts < 20 {
            thread::yield_now();
        }
        store.close().unwrap();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // The closed store still has its backend.
    let reopened = Store::open(device).unwrap();
    for (key, version) in (0_u8..).zip(puts) {
        let newest = payload(&reopened, &[key]);
        assert_eq!(newest, (version > 0).then(|| version.to_le_bytes().to_vec()));
    }
    closed(store.get(&[0]));
}

#[test]
fn of_several_threads_that_close_one_does() {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    let store = Store::open_with(device.backend(), &without_thread()).unwrap();
    store.put(b"key", b"value").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.close().unwrap());
        }
    });
    assert_eq!(store.stats().checkpoints, 1);
    let is_written = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&is_written);
    device.rule(move |op| {
        note.fetch_or(op.kind() != OpKind::Read, Ordering::SeqCst);
        Fate::Done
    });
    drop(store);
    assert!(!is_written.load(Ordering::SeqCst), "dropping a closed store writes nothing");
}

#[test]
fn a_store_that_failed_to_close_can_be_closed_again() {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    let backend = device.backend();
    let store = Store::open_with(backend.clone(), &without_thread()).unwrap();
    store.put(b"key", b"value").unwrap();
    device.rule(|op| if op.kind() == OpKind::Write { Fate::Failed } else { Fate::Done });
    assert!(matches!(store.close(), Err(Error::Device { .. })));
    closed(store.get(b"key"));
    assert!(matches!(Store::open(backend.clone()), Err(Error::Busy { .. })));
    device.rule(|_| Fate::Done);
    store.close().unwrap();
    let reopened = Store::open(backend).unwrap();
    assert_eq!(payload(&reopened, b"key").unwrap(), b"value");
}

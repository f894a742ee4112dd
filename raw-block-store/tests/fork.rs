//! A forked child has neither the threads nor the rings of its parent: calls on a store that it
//! inherited fail, and it can drop the store. Alone in its file, because a process that forks
//! should have no other threads.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;

use common::child::{in_a_child, is_forked};
use common::payload;
use raw_block_core::{Direct, ErrorKind};
use raw_block_fixtures::zeroed_file;
use raw_block_store::{Engine, FormatOptions, OpenOptions, Store, open_backend};

/// Whether all calls on an inherited store are refused.
fn are_refused(store: &Store) -> bool {
    let on = |_| ControlFlow::Continue(());
    is_forked(store.put(b"key", b"child"))
        && is_forked(store.get(b"key"))
        && is_forked(store.get(b"missing"))
        && is_forked(common::get_one(store, b"missing", &mut []))
        && is_forked(store.contains(b"key"))
        && is_forked(store.contains_many(&[b"key"]))
        && is_forked(store.prefix_len(&[b"key"]))
        && is_forked(store.pin_prefix(&[b"key"]))
        && is_forked(store.delete_many(&[b"key"]).remove(0))
        && is_forked(store.flush())
        && is_forked(store.checkpoint())
        && is_forked(store.scrub(on))
        && is_forked(store.list(|_| ControlFlow::Continue(())))
}

#[test]
fn a_forked_child_gets_errors_and_can_drop_a_store() {
    for engine in [Engine::Posix, Engine::Uring] {
        if engine == Engine::Uring && raw_block_uring::probe().is_err() {
            continue;
        }
        for background in [false, true] {
            let file = zeroed_file(8 << 20).unwrap();
            let open = || open_backend(file.path(), engine, Direct::Preferred).unwrap();
            Store::format(open(), &FormatOptions::default()).unwrap();
            let options = OpenOptions::default().background(background);
            let backend = open();
            let store = Store::open_with(backend.clone(), &options).unwrap();
            store.put(b"key", b"parent").unwrap();

            let pin = store.pin(b"key").unwrap().unwrap();
            let inherited = AssertUnwindSafe((&store, &pin));
            in_a_child(move || {
                let AssertUnwindSafe((store, pin)) = { inherited };
                is_forked(store.pin(b"key")) && is_forked(pin.read(&mut [0; 6], &mut []))
            });
            drop(pin);

            let store = AssertUnwindSafe(store);
            // The child takes its copy of the store; that of the parent stays.
            let mut store = Some(store);
            for closes in [false, true] {
                let inherited = AssertUnwindSafe(&mut store);
                in_a_child(move || {
                    let AssertUnwindSafe(store) = { inherited }.take().unwrap();
                    let refused = are_refused(&store);
                    if closes {
                        return refused && is_forked(store.close());
                    }
                    drop(store);
                    refused
                });
            }
            // The store of the parent works, and still holds the lock.
            let AssertUnwindSafe(store) = store.unwrap();
            if !background {
                // It waits two seconds.
                let second = open_backend(file.path(), engine, Direct::Preferred).map(drop);
                assert_eq!(second.unwrap_err().kind(), ErrorKind::Busy);
            }
            assert_eq!(payload(&store, b"key").unwrap(), b"parent");
            store.put(b"other", b"parent").unwrap();
            store.close().unwrap();
            drop(store);
            drop(backend);
            let store = Store::open(open()).unwrap();
            assert_eq!(store.stats().objects, 2);
            assert_eq!(payload(&store, b"other").unwrap(), b"parent");
        }
    }
}

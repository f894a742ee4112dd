//! A forked child has neither the threads nor the rings of its parent: calls on a store that it
//! inherited fail, and it can drop the store. Alone in its file, because a process that forks
//! should have no other threads.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::payload;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};
use raw_block_core::{Direct, ErrorKind};
use raw_block_fixtures::zeroed_file;
use raw_block_store::{Engine, Error, FormatOptions, OpenOptions, Store, open_backend};

/// Runs a child, and asserts that `child` returns true there.
fn in_a_child(child: impl FnOnce() -> bool + std::panic::UnwindSafe) {
    // SAFETY: the child runs only code that uses no lock which another thread of this process may
    // hold: this is the only test of the process, and the background thread sleeps.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // A child that waits for a thread of its parent waits forever.
            alarm::set(60);
            std::process::exit(i32::from(!catch_unwind(child).unwrap_or(false)));
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Device { error, .. }) if error.kind() == ErrorKind::Forked)
}

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

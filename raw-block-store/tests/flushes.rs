//! Threads that wait for a flush at the same time share one flush of the device.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::faulty::Faulty;
use common::{payload, small, without_thread};
use raw_block_store::Store;

#[test]
fn threads_that_put_and_flush_share_flushes() {
    const THREADS: u8 = 32;
    let device = Faulty::new(8 << 20);
    Store::format(device.backend(), &small()).unwrap();
    let backend = device.backend();
    let store = Store::open_with(Arc::clone(&backend), &without_thread()).unwrap();

    let before = store.dispatcher().stats();
    let all_called = before.flush_calls + u64::from(THREADS);
    device.during_flush(move || {
        while backend.stats().snapshot().flush_calls < all_called {
            thread::sleep(Duration::from_millis(1));
        }
    });
    thread::scope(|scope| {
        for number in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                store.put(&[number], &[number; 5000]).unwrap();
                store.flush().unwrap();
            });
        }
    });
    let after = store.dispatcher().stats();
    assert_eq!(after.flush_calls, all_called);
    // One was in flight while the other threads called; one more serves all of those.
    assert_eq!(after.flushes - before.flushes, 2);
    for number in 0..THREADS {
        assert_eq!(payload(&store, &[number]).unwrap(), [number; 5000]);
    }
}

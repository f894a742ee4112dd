//! What a store reports of itself: how far its recovery is, and how long calls took.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{flip, memory, put_all, superblock};
use raw_block_core::IoBackend;
use raw_block_store::{FormatOptions, Get, OpenOptions, Progress, Put, Store};

const SLOTS: u64 = 2500;

/// A store of small slots that was not closed in order.
fn crashed() -> Arc<dyn IoBackend> {
    let device = memory(64 << 20);
    let options = FormatOptions { slot_count: Some(SLOTS), ..FormatOptions::for_payloads(4096) };
    Store::format(device.clone(), &options).unwrap();
    let store = Store::open(device.clone()).unwrap();
    store.put(b"key", b"value").unwrap();
    store.checkpoint().unwrap();
    device
}

/// Options that note what they are told.
fn noting(options: &OpenOptions) -> (OpenOptions, Arc<Mutex<Vec<u64>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    let note = move |progress: Progress| {
        assert_eq!(progress.slots, SLOTS);
        notes.lock().unwrap().push(progress.slots_done);
    };
    (OpenOptions { recovery_progress: Some(Arc::new(note)), ..options.clone() }, told)
}

#[test]
fn a_recovery_tells_how_many_slots_it_has_read_and_an_orderly_opening_tells_nothing() {
    let device = crashed();
    let (options, told) = noting(&OpenOptions::default());
    // 4 MiB of headers are 1024 of them.
    let all = [0, 1024, 2048, SLOTS];
    drop(Store::open_read_only(device.clone(), &options).unwrap());
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), all);
    let store = Store::open_with(device.clone(), &options).unwrap();
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), all);
    store.close().unwrap();
    drop(Store::open_with(device, &options).unwrap());
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_recovery_tells_that_it_begins_again_with_an_older_checkpoint() {
    let device = crashed();
    // The body of the newest checkpoint, which is the second, from its second block on.
    flip(&device, superblock(&device).checkpoint_offset[1].get() + 3 * 4096);
    let older = OpenOptions { accept_older_states: true, ..OpenOptions::default() };
    let (options, told) = noting(&older);
    let store = Store::open_with(device, &options).unwrap();
    assert!(store.contains(b"key"));
    assert_eq!(*told.lock().unwrap(), [0, 0, 1024, 2048, SLOTS]);
}

#[test]
fn it_is_counted_how_long_batches_and_checkpoints_take() {
    let store = Store::open(crashed()).unwrap();
    let fresh = store.stats();
    assert_eq!(fresh.put_latency.count() + fresh.get_latency.count(), 0);
    assert_eq!(fresh.put_latency.quantile(0.5), Duration::ZERO);
    put_all(&store, &[Put::new(b"a", &[1; 4096]), Put::new(b"b", &[2; 4096])]);
    put_all(&store, &[Put::new(b"c", &[3; 4096])]);
    let mut buffers = [[0; 4096]; 2];
    let [first, second] = &mut buffers;
    let mut gets = [Get::new(b"a", first), Get::new(b"nobody", second)];
    assert!(store.get_many(&mut gets).iter().all(Result::is_ok));
    store.pin(b"b").unwrap().read(&mut buffers[0], &mut []).unwrap();
    store.checkpoint().unwrap();
    let stats = store.stats();
    assert_eq!(stats.put_latency.count(), 2, "a batch is counted once");
    assert_eq!(stats.get_latency.count(), 2, "a batch, and the read of what was pinned");
    assert_eq!((stats.checkpoint_latency.count(), stats.checkpoints), (1, 1));
    for latency in [&stats.put_latency, &stats.get_latency, &stats.checkpoint_latency] {
        assert!(latency.quantile(1.0) >= latency.quantile(0.5));
        assert!(latency.quantile(0.5) > Duration::ZERO);
    }
    assert!(format!("{stats:?}").len() < 1000, "{stats:?}");
}

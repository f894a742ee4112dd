//! What a store reports: the progress of a recovery, and how long calls took.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{layout, memory, put_all, store_on};
use raw_block_core::backend::IoBackend;
use raw_block_store::{FormatOptions, Get, OpenOptions, Progress, Put, Store};

/// A store that was not closed, with objects in several segments.
fn crashed() -> Arc<dyn IoBackend> {
    let device = memory(4 << 20);
    let options = FormatOptions::default().block_size(512);
    let store = store_on(&device, &options);
    for key in 0..100 {
        store.put(&[key], &[key; 5000]).unwrap();
    }
    store.checkpoint().unwrap();
    device
}

#[test]
fn a_recovery_reports_how_many_bytes_it_is_done_with() {
    let device = crashed();
    let reports = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&reports);
    let note = move |progress: Progress| notes.lock().unwrap().push(progress);
    let options = OpenOptions::default().recovery_progress(note);
    let layout = layout(&device);
    let bytes = u64::from(layout.segment_count) * layout.segment_size();
    let check = || {
        let reports = std::mem::take(&mut *reports.lock().unwrap());
        assert!(reports.iter().all(|report| report.bytes == bytes), "{reports:?}");
        assert!(reports.is_sorted_by_key(|report| report.bytes_done), "{reports:?}");
        let ends = [reports[0].bytes_done, reports[reports.len() - 1].bytes_done];
        assert_eq!(ends, [0, bytes]);
        assert!(reports.len() > 3, "one for each segment that is read: {reports:?}");
    };
    drop(Store::open_read_only(device.clone(), &options).unwrap());
    check();
    let store = Store::open_with(device.clone(), &options).unwrap();
    check();
    store.close().unwrap();
    drop(Store::open_with(device, &options).unwrap());
    assert!(reports.lock().unwrap().is_empty(), "there is nothing to recover after an orderly end");
}

#[test]
fn the_times_of_batches_and_checkpoints_are_counted() {
    let store = Store::open(crashed()).unwrap();
    let fresh = store.stats();
    assert_eq!(fresh.put_latency.count() + fresh.get_latency.count(), 0);
    assert_eq!(fresh.put_latency.quantile(0.5), Duration::ZERO);
    put_all(&store, &[Put::new(b"a", &[1; 4096]), Put::new(b"b", &[2; 4096])]);
    put_all(&store, &[Put::new(b"c", &[3; 4096])]);
    let mut buffers = [[0; 4096]; 2];
    let [first, second] = &mut buffers;
    let mut gets = [Get::new(b"a", first), Get::new(b"absent", second)];
    assert!(store.get_many(&mut gets).iter().all(Result::is_ok));
    store.pin(b"b").unwrap().unwrap().read(&mut buffers[0], &mut []).unwrap();
    store.checkpoint().unwrap();
    let stats = store.stats();
    assert_eq!(stats.put_latency.count(), 2, "a batch is counted once");
    assert_eq!(stats.get_latency.count(), 2, "a batch, and the read of a pinned object");
    // The first one belongs to the recovery.
    assert_eq!((stats.checkpoint_latency.count(), stats.checkpoints), (2, 2));
    for latency in [&stats.put_latency, &stats.get_latency, &stats.checkpoint_latency] {
        assert!(latency.quantile(1.0) >= latency.quantile(0.5));
        assert!(latency.quantile(0.5) > Duration::ZERO);
    }
    assert!(format!("{stats:?}").len() < 1500, "{stats:?}");
}

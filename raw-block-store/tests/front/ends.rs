//! How a front ends: dropped, closed, and with a backend that panics.

use std::sync::Arc;
use std::time::Duration;

use raw_block_core::backend::OpKind;
use raw_block_store::{Error, FormatOptions, Store};

use crate::common::faulty::{Fate, Faulty};
use crate::common::{small, without_thread};
use crate::support::{Stoppable, block_on, error, found, get, options, put, start, until};

const LONG: Duration = Duration::from_secs(100);

#[test]
fn the_last_handle_ends_the_front_without_waiting() {
    let stopped = Stoppable::new(&options().store_threads(1));
    stopped.stop(&[OpKind::Write]);
    let Stoppable { device, backend, store } = stopped;
    let clone = store.clone();
    let runs = store.put_many([put(b"runs", &[1; 1000])]);
    until(|| clone.stats().running == 1);
    let waits = store.put_many([put(b"waits", &[1; 1000])]);
    drop(store);
    assert_eq!(clone.stats().queued, 1, "there is another handle");
    drop(clone);
    let closed = block_on(waits);
    assert!(matches!(error(&closed), Error::Closed { .. }));
    assert_eq!(closed[0].item.key(), b"waits");
    let busy = Store::open(backend.clone()).unwrap_err();
    assert!(matches!(busy, Error::Busy { .. }), "a put is in progress");
    device.clear_faults();
    block_on(runs)[0].result.as_ref().unwrap();
    // The last thread drops the store.
    let mut reopened = None;
    until(|| {
        reopened = Store::open_with(backend.clone(), &without_thread()).ok();
        reopened.is_some()
    });
    assert!(reopened.unwrap().contains(b"runs").unwrap());
}

#[test]
fn a_closed_front_has_executed_what_it_accepted() {
    let stopped = Stoppable::new(&options());
    let store = &stopped.store;
    let puts: Vec<_> = (0..50).map(|at| store.put_many([put(&[at], &[at; 1000])])).collect();
    let report = store.close(LONG).unwrap();
    assert!(report.is_closed);
    assert_eq!((report.turned_away, report.running, report.running_bytes), (0, 0, 0));
    puts.into_iter().for_each(|put| block_on(put)[0].result.as_ref().map(drop).unwrap());
    let refused = block_on(store.get_many([get(&[0])]));
    assert!(matches!(error(&refused), Error::Closed { .. }));
    assert!(matches!(block_on(store.flush()), Err(Error::Closed { .. })));
    assert_eq!(store.close(LONG).unwrap(), report, "it was closed already");
    let reopened = Store::open_with(stopped.device.backend(), &without_thread()).unwrap();
    assert_eq!(reopened.stats().objects, 50);
}

#[test]
fn a_close_at_its_limit_reports_what_it_left() {
    let stopped = Stoppable::new(&options().store_threads(1));
    let store = &stopped.store;
    stopped.stop(&[OpKind::Write]);
    let runs = store.put_many([put(b"runs", &[1; 1000])]);
    stopped.wait_for_running(1);
    let waits = store.put_many([put(b"waits", &[1; 1000])]);
    let report = store.close(Duration::from_millis(20)).unwrap();
    assert!(!report.is_closed);
    assert_eq!((report.turned_away, report.running, report.running_bytes), (1, 1, 1004));
    assert!(matches!(error(&block_on(waits)), Error::Closed { .. }));
    let refused = block_on(store.put_many([put(b"late", b"1")]));
    assert!(matches!(error(&refused), Error::Closed { .. }));
    stopped.go_on();
    block_on(runs)[0].result.as_ref().unwrap();
    assert!(store.close(LONG).unwrap().is_closed);
}

#[test]
fn a_store_that_cannot_be_closed_is_reported() {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    let store = start(device.backend(), &options());
    block_on(store.put_many([put(b"key", &[1; 1000])]))[0].result.as_ref().unwrap();
    device.rule(|op| if op.kind() == OpKind::Write { Fate::Failed } else { Fate::Done });
    assert!(matches!(store.close(LONG), Err(Error::Device { .. })));
    device.rule(|_| Fate::Done);
    assert!(store.close(LONG).unwrap().is_closed);
}

#[test]
fn a_backend_that_panics_fails_one_call() {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &FormatOptions::default().block_size(512)).unwrap();
    let store = start(device.backend(), &options().store_threads(1).load_threads(1));
    block_on(store.put_many([put(b"key", &[1; 1000])]))[0].result.as_ref().unwrap();
    for kind in [OpKind::Write, OpKind::Read] {
        device.rule(move |op| {
            assert!(op.kind() != kind, "on purpose");
            Fate::Done
        });
        let failed = if kind == OpKind::Write {
            let put = block_on(store.put_many([put(b"other", &[2; 1000])]));
            assert_eq!(put[0].item.key(), b"other");
            error(&put).clone()
        } else {
            error(&block_on(store.get_many([get(b"key")]))).clone()
        };
        assert!(failed.to_string().contains("panicked"), "{failed}");
        device.rule(|_| Fate::Done);
    }
    assert_eq!(found(&block_on(store.get_many([get(b"key")]))), Some(vec![1; 1000]));
    block_on(store.put_many([put(b"other", b"2")]))[0].result.as_ref().unwrap();
}

#[test]
fn a_front_shares_its_store() {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    let direct = Arc::new(Store::open_with(device.backend(), &without_thread()).unwrap());
    let front = raw_block_store::AsyncStore::start(Arc::clone(&direct), &options()).unwrap();
    direct.put(b"key", b"1").unwrap();
    assert_eq!(found(&block_on(front.get_many([get(b"key")]))), Some(b"1".to_vec()));
    drop(front);
    assert!(direct.contains(b"key").unwrap());
}

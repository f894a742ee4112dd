//! Overload, deadlines, and the order of gets and puts.

use std::time::{Duration, Instant};

use raw_block_core::backend::OpKind;
use raw_block_store::{Batch, Error};

use crate::support::{Stoppable, block_on, error, found, get, options, put};

const DATA: [OpKind; 2] = [OpKind::Read, OpKind::Write];

#[test]
fn a_full_queue_refuses_requests_and_returns_them() {
    let options = options().store_threads(1).load_threads(1).max_queued(2);
    let stopped = Stoppable::new(&options);
    let store = &stopped.store;
    block_on(store.put_many([put(b"key", &[1; 1000])]))[0].result.as_ref().unwrap();
    stopped.stop(&DATA);
    let mut puts = vec![store.put_many([put(b"a", &[1; 1000])])];
    let mut gets = vec![store.get_many([get(b"key")])];
    stopped.wait_for_running(2);
    puts.extend((0..2).map(|_| store.put_many([put(b"b", &[1; 1000])])));
    gets.extend((0..2).map(|_| store.get_many([get(b"key")])));

    let refused = block_on(store.put_many([put(b"c", &[1; 1000])]));
    assert!(matches!(error(&refused), Error::Overloaded { limit: 2, .. }));
    assert_eq!(refused[0].item.payload()[0][..], [1; 1000]);
    let refused = block_on(store.get_many([get(b"key")]));
    assert!(matches!(error(&refused), Error::Overloaded { limit: 2, .. }));
    assert_eq!(store.stats().overloaded, 2);

    stopped.go_on();
    puts.into_iter().for_each(|put| block_on(put)[0].result.as_ref().map(drop).unwrap());
    gets.into_iter().for_each(|get| assert!(found(&block_on(get)).is_some()));
    block_on(store.put_many([put(b"c", b"1")]))[0].result.as_ref().unwrap();
}

#[test]
fn bytes_of_puts_are_bounded() {
    let options = options().max_store_bytes(10_000);
    let stopped = Stoppable::new(&options);
    let store = &stopped.store;
    let too_long = block_on(store.put_many([put(b"a", &[1; 10_000])]));
    assert!(matches!(error(&too_long), Error::Overloaded { limit: 10_000, .. }));
    stopped.stop(&DATA);
    let first = store.put_many([put(b"a", &[1; 6000])]);
    let over = block_on(store.put_many([put(b"b", &[1; 4000])]));
    assert!(error(&over).to_string().contains("10000 bytes of queued puts"));
    let second = store.put_many([put(b"b", &[1; 3998])]);
    assert_eq!(store.stats().store_bytes, 10_000);
    stopped.go_on();
    block_on(first)[0].result.as_ref().unwrap();
    block_on(second)[0].result.as_ref().unwrap();
    // Bytes are free when the result is there.
    block_on(store.put_many([put(b"b", &[1; 9999])]))[0].result.as_ref().unwrap();
}

#[test]
fn a_deadline_in_the_past_refuses_a_request() {
    let stopped = Stoppable::new(&options());
    let past = Instant::now();
    let refused = block_on(stopped.store.put_many(Batch::new([put(b"a", b"1")]).by(past)));
    assert!(matches!(error(&refused), Error::DeadlinePassed));
    assert_eq!(refused[0].item.key(), b"a");
    assert_eq!(stopped.store.stats().submitted, 0);
}

#[test]
fn deadlines_are_kept_while_every_worker_is_stuck() {
    let options = options().store_threads(1).load_threads(1);
    let stopped = Stoppable::new(&options);
    let store = &stopped.store;
    block_on(store.put_many([put(b"key", &[1; 1000])]))[0].result.as_ref().unwrap();
    stopped.stop(&DATA);
    let stuck_put = store.put_many([put(b"a", &[1; 1000])]);
    let soon = Instant::now() + Duration::from_millis(200);
    let stuck_get = store.get_many(Batch::new([get(b"key")]).by(soon));
    stopped.wait_for_running(2);
    let late = Instant::now() + Duration::from_secs(1000);
    let patient = store.get_many(Batch::new([get(b"key")]).by(late));
    let soon = Instant::now() + Duration::from_millis(20);
    let expired_get = store.get_many(Batch::new([get(b"key")]).by(soon));
    let expired_put = store.put_many(Batch::new([put(b"b", &[2; 1000])]).by(soon));
    assert!(matches!(error(&block_on(expired_get)), Error::DeadlinePassed));
    let expired = block_on(expired_put);
    assert!(matches!(error(&expired), Error::DeadlinePassed));
    assert_eq!(expired[0].item.payload()[0][..], [2; 1000]);
    assert_eq!((store.stats().expired, store.stats().queued), (2, 1));

    // What has begun is reported with its result, after its deadline.
    while Instant::now() < soon + Duration::from_millis(200) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(store.stats().running, 2);
    stopped.go_on();
    assert_eq!(found(&block_on(stuck_get)), Some(vec![1; 1000]));
    block_on(stuck_put)[0].result.as_ref().unwrap();
    assert_eq!(found(&block_on(patient)), Some(vec![1; 1000]));
    assert!(!store.store().contains(b"b").unwrap());
}

#[test]
fn gets_and_look_ups_pass_puts_that_are_stuck() {
    let stopped = Stoppable::new(&options());
    let store = &stopped.store;
    block_on(store.put_many([put(b"key", &[1; 1000])]))[0].result.as_ref().unwrap();
    stopped.stop(&[OpKind::Write]);
    let puts: Vec<_> = (0..8).map(|at| store.put_many([put(&[at], &[1; 1000])])).collect();
    assert_eq!(found(&block_on(store.get_many([get(b"key")]))), Some(vec![1; 1000]));
    stopped.stop(&[OpKind::Read]);
    let gets: Vec<_> = (0..8).map(|_| store.get_many([get(b"key")])).collect();
    let present = block_on(store.contains_many([b"key".to_vec(), b"none".to_vec()]));
    assert!(present[0].result.clone().unwrap() && !present[1].result.clone().unwrap());
    stopped.go_on();
    puts.into_iter().for_each(|put| block_on(put)[0].result.as_ref().map(drop).unwrap());
    gets.into_iter().for_each(|get| assert!(found(&block_on(get)).is_some()));
}

#[test]
fn few_puts_run_while_gets_run() {
    let options = options().store_window(3000);
    let stopped = Stoppable::new(&options);
    let store = &stopped.store;
    block_on(store.put_many([put(b"key", &[1; 1000])]))[0].result.as_ref().unwrap();
    stopped.stop(&DATA);
    let loading = store.get_many([get(b"key")]);
    stopped.wait_for_running(1);
    // The first one runs although it is longer than the window.
    let first = store.put_many([put(b"a", &[1; 4000])]);
    stopped.wait_for_running(2);
    let second = store.put_many([put(b"b", &[1; 4000])]);
    assert!(found(&block_on(store.get_many([get(b"none")]))).is_none(), "it takes no I/O");
    assert_eq!((store.stats().running, store.stats().queued), (2, 1));
    drop(loading);
    assert_eq!(store.stats().running, 2, "a get that has begun is in progress");
    stopped.go_on();
    block_on(first)[0].result.as_ref().unwrap();
    block_on(second)[0].result.as_ref().unwrap();
}

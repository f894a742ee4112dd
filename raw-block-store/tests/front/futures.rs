//! Futures: their results, and what becomes of those that are dropped.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;

use raw_block_core::backend::OpKind;
use raw_block_store::{AlignedBuf, AsyncStore, Error, OwnedGet, OwnedPut, Region};

use crate::common::{bytes, memory as device, small, store_on};
use crate::support::{Stoppable, block_on, error, found, get, options, put, until};

fn store() -> AsyncStore {
    let store = store_on(&device(4 << 20), &small());
    AsyncStore::start(store, &options()).unwrap()
}

#[test]
fn results_come_in_order_and_return_the_memory() {
    block_on(async {
        let store = store();
        let payloads: Vec<_> = (0..5).map(|seed| bytes(seed, 3000)).collect();
        let puts: Vec<_> = (0..5).map(|at| put(&[at], &payloads[usize::from(at)])).collect();
        let addresses: Vec<_> = puts.iter().map(|put| put.payload()[0].as_ptr()).collect();
        let done = store.put_many(puts).await;
        for (at, put) in (0_u8..).zip(done) {
            put.result.unwrap();
            assert_eq!(put.item.key(), [at]);
            let [memory] = put.item.into_payload().try_into().unwrap();
            assert_eq!(memory.as_ptr(), addresses[usize::from(at)]);
        }
        let keys = [[4], [9], [0]];
        let gets = store.get_many(keys.map(|key| get(&key).with_metadata(4))).await;
        assert_eq!(gets[0].payload(), Some(&payloads[4][..]));
        assert_eq!((gets[1].payload(), gets[1].metadata()), (None, None));
        assert_eq!(gets[2].payload(), Some(&payloads[0][..]));
        assert_eq!(gets[2].metadata(), Some(&[][..]));

        let present = store.contains_many(keys.map(Vec::from)).await;
        let present: Vec<_> = present.into_iter().map(|key| key.result.unwrap()).collect();
        assert_eq!(present, [true, false, true]);
        let deleted = store.delete_many(keys.map(Vec::from)).await;
        let deleted: Vec<_> = deleted.into_iter().map(|key| key.result.unwrap()).collect();
        assert_eq!(deleted, [true, false, true]);
        store.flush().await.unwrap();
        assert!(store.put_many([]).await.is_empty());
        assert_eq!(store.store().stats().objects, 3);
    });
}

#[test]
fn metadata_and_gathered_payloads_are_put() {
    block_on(async {
        let store = store();
        let pieces = [bytes(1, 1000), bytes(2, 2000), bytes(3, 1)];
        let gathered = OwnedPut::gather(b"key", pieces.clone());
        let puts = store.put_many_if_absent([gathered.with_metadata(b"f16"), put(b"key", b"2")]);
        let was_put: Vec<_> = puts.await.into_iter().map(|put| put.result.unwrap()).collect();
        assert_eq!(was_put, [true, false]);
        let gets = store.get_many([get(b"key").with_metadata(16)]).await;
        assert_eq!(gets[0].payload(), Some(&pieces.concat()[..]));
        assert_eq!(gets[0].metadata(), Some(&b"f16"[..]));
    });
}

#[test]
fn requests_take_leases_and_vectors() {
    block_on(async {
        let store = store();
        let region = Region::owned(AlignedBuf::zeroed(16384).unwrap()).unwrap();
        let mut lease = region.lease(4096..7096).unwrap();
        lease.copy_from_slice(&bytes(5, 3000));
        let puts =
            store.put_many([OwnedPut::new(b"lease", lease), OwnedPut::new(b"vector", vec![1; 9])]);
        assert!(region.lease(4096..4097).is_err(), "the request has it");
        let mut done = puts.await;
        done.iter().for_each(|put| assert!(put.result.is_ok()));
        assert_eq!(Vec::try_from(done.remove(1).item.into_payload().remove(0)).unwrap(), [1; 9]);
        drop(done);
        let short = region.lease(0..2999).unwrap();
        let gets = store.get_many([OwnedGet::new(b"lease", short)]).await;
        assert!(matches!(error(&gets), Error::BufferTooSmall { needed: 3000, given: 2999, .. }));
        assert!(region.lease(2998..).is_err(), "the result has it");
        drop(gets);
        let lease = region.lease(0..16384).unwrap();
        let gets = store.get_many([OwnedGet::new(b"lease", lease)]).await;
        assert_eq!(gets[0].payload(), Some(&bytes(5, 3000)[..]));
        drop(gets);
        assert_eq!(region.lease(0..3000).unwrap()[..], bytes(5, 3000));
    });
}

#[test]
fn errors_of_the_store_are_results() {
    block_on(async {
        let store = store();
        let done = store.put_many([put(b"key", &[1; 5000]), put(b"", b"no key")]).await;
        assert!(done[0].result.is_ok());
        assert!(matches!(done[1].result, Err(Error::Key { .. })));
        let short = OwnedGet::new(b"key", AlignedBuf::zeroed(100).unwrap());
        let gets = store.get_many([short]).await;
        assert!(matches!(error(&gets), Error::BufferTooSmall { needed: 5000, given: 100, .. }));
    });
}

#[test]
fn small_requests_that_wait_are_one_call() {
    let stopped = Stoppable::new(&options().load_threads(1));
    block_on(async {
        let store = &stopped.store;
        let puts: Vec<_> = (0..20).map(|at| put(&[at], &bytes(at.into(), 700))).collect();
        store.put_many(puts).await.into_iter().for_each(|put| put.result.unwrap());
        stopped.stop(&[OpKind::Read]);
        let first = store.get_many([get(&[0])]);
        stopped.wait_for_running(1);
        let calls = store.store().stats().get_latency.count();
        let others: Vec<_> = (0..20).map(|at| store.get_many([get(&[at])])).collect();
        stopped.go_on();
        assert_eq!(found(&first.await), Some(bytes(0, 700)));
        for (at, other) in (0..).zip(others) {
            assert_eq!(found(&other.await), Some(bytes(at, 700)), "{at}");
        }
        assert_eq!(store.store().stats().get_latency.count(), calls + 2);
    });
}

#[test]
fn a_dropped_future_removes_a_request_that_waits() {
    let stopped = Stoppable::new(&options().store_threads(1));
    block_on(async {
        let store = &stopped.store;
        stopped.stop(&[OpKind::Write]);
        let first = store.put_many([put(b"first", &[1; 1000])]);
        stopped.wait_for_running(1);
        let second = store.put_many([put(b"second", &[2; 1000])]);
        let third = store.put_many([put(b"third", &[3; 1000])]);
        drop(second);
        let stats = store.stats();
        assert_eq!((stats.cancelled, stats.queued, stats.store_bytes), (1, 1, 2010));
        // The one that runs is not removed.
        drop(first);
        stopped.go_on();
        third.await.into_iter().for_each(|put| put.result.unwrap());
        let present = store.store().contains_many(&[&b"first"[..], b"second", b"third"]).unwrap();
        assert_eq!(present, [true, false, true]);
        assert_eq!((store.stats().store_bytes, store.stats().executed), (0, 2));
    });
}

#[test]
fn a_forgotten_future_does_no_harm() {
    let store = store();
    std::mem::forget(store.put_many([put(b"key", &[1; 1000])]));
    until(|| store.stats().executed == 1);
    assert!(store.store().contains(b"key").unwrap());
    let report = store.close(std::time::Duration::from_secs(60)).unwrap();
    assert!(report.is_closed);
}

/// Counts its wakes, and panics in each.
#[derive(Default)]
struct Panicking(AtomicUsize);

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    }
}

#[test]
fn a_waker_that_panics_affects_no_other_request() {
    let stopped = Stoppable::new(&options().store_threads(1));
    let store = &stopped.store;
    stopped.stop(&[OpKind::Write]);
    let wakes = Arc::new(Panicking::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut first = pin!(store.put_many([put(b"first", &[1; 1000])]));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let second = store.put_many([put(b"second", &[2; 1000])]);
    stopped.go_on();
    block_on(second)[0].result.as_ref().unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    block_on(first)[0].result.as_ref().unwrap();
    block_on(store.put_many([put(b"third", b"3")]))[0].result.as_ref().unwrap();
}

#[test]
fn a_future_wakes_the_task_that_polled_last() {
    let stopped = Stoppable::new(&options());
    stopped.stop(&[OpKind::Write]);
    let mut future = pin!(stopped.store.put_many([put(b"key", &[1; 1000])]));
    let first = Arc::new(Panicking::default());
    let waker = Waker::from(Arc::clone(&first));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    thread::scope(|scope| {
        let last = scope.spawn(|| block_on(future)[0].result.is_ok());
        until(|| Arc::strong_count(&first) == 2);
        stopped.go_on();
        assert!(last.join().unwrap());
    });
    assert_eq!(first.0.load(Ordering::SeqCst), 0);
}

#[test]
fn batches_of_16_threads_complete_in_bounded_memory() {
    const THREADS: u16 = 16;
    const BATCHES: u16 = 625;
    let device = device(16 << 20);
    let store = store_on(&device, &small().segment_size(256 << 10));
    let options = options().max_store_bytes(64 << 10);
    let store = AsyncStore::start(store, &options).unwrap();
    let overloaded = AtomicUsize::new(0);
    let work = |thread: u16| {
        let mut value = 0;
        for number in 0..BATCHES {
            let key = thread.to_le_bytes();
            if number % 4 == 3 {
                let gets = block_on(store.get_many([get(&key)]));
                assert_eq!(found(&gets).unwrap()[..2], u16::to_le_bytes(value));
                continue;
            }
            value = number;
            let mut payload = [7; 3000];
            payload[..2].copy_from_slice(&number.to_le_bytes());
            let mut puts = vec![put(&key, &payload), put(&[key[0], 1, 2], &payload)];
            loop {
                assert!(store.stats().store_bytes <= 64 << 10);
                let done = block_on(store.put_many(puts));
                if !matches!(done[0].result, Err(Error::Overloaded { .. })) {
                    done.into_iter().for_each(|put| put.result.unwrap());
                    break;
                }
                overloaded.fetch_add(1, Ordering::Relaxed);
                puts = done.into_iter().map(|put| put.item).collect();
                thread::yield_now();
            }
        }
    };
    thread::scope(|scope| {
        let work = &work;
        (0..THREADS).for_each(|thread| drop(scope.spawn(move || work(thread))));
    });
    let stats = store.stats();
    assert_eq!(stats.executed, u64::from(THREADS) * u64::from(BATCHES));
    assert_eq!((stats.queued, stats.running, stats.store_bytes), (0, 0, 0));
    assert_eq!(stats.overloaded, overloaded.into_inner() as u64);
}

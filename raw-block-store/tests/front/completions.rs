//! Completion queues: ids, and the descriptor.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use raw_block_core::backend::OpKind;
use raw_block_store::{AsyncStore, Batch, Completion, CompletionQueue, Error, Outcome, RequestId};

use crate::common::{bytes, memory as device, small, store_on};
use crate::support::{Stoppable, found, get, options, put, until};

/// Whether the descriptor is readable, after at most this time.
fn is_readable(queue: &CompletionQueue, timeout: impl Into<PollTimeout>) -> bool {
    poll(&mut [PollFd::new(queue.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
}

/// Waits at the descriptor for that many completions.
fn wait_for(queue: &CompletionQueue, count: usize) -> Vec<Completion> {
    let mut completions = Vec::new();
    while completions.len() < count {
        assert!(is_readable(queue, PollTimeout::NONE));
        assert!(queue.drain(&mut completions).unwrap() > 0);
    }
    completions
}

#[test]
fn each_id_completes_once_with_its_outcome() {
    let store = store_on(&device(4 << 20), &small());
    let store = AsyncStore::start(store, &options()).unwrap();
    let queue = store.completions(100).unwrap();
    assert!(!is_readable(&queue, PollTimeout::ZERO));
    let payload = bytes(1, 3000);
    let id = queue.submit_put([put(b"key", &payload)]).unwrap();
    let [put_done] = wait_for(&queue, 1).try_into().unwrap();
    assert_eq!(put_done.id, id);
    assert!(matches!(put_done.outcome, Outcome::Put(puts) if puts[0].result.is_ok()));
    assert!(!is_readable(&queue, PollTimeout::ZERO), "everything was drained");

    let keys = || [b"key".to_vec(), b"none".to_vec()];
    let again = queue.submit_put_if_absent([put(b"key", b"2")]).unwrap();
    let ids = [
        queue.submit_get([get(b"key"), get(b"none")]).unwrap(),
        queue.submit_contains(keys()).unwrap(),
        queue.submit_flush().unwrap(),
        again,
    ];
    let outcomes = wait_for(&queue, ids.len()).into_iter().map(|of| (of.id, of.outcome));
    let mut outcomes: HashMap<RequestId, Outcome> = outcomes.collect();
    assert_eq!(outcomes.len(), ids.len());
    let Outcome::Get(gets) = outcomes.remove(&ids[0]).unwrap() else { panic!() };
    assert_eq!((found(&gets), gets[1].payload()), (Some(payload), None));
    let Outcome::Contains(present) = outcomes.remove(&ids[1]).unwrap() else { panic!() };
    assert!(present[0].result.clone().unwrap() && !present[1].result.clone().unwrap());
    let Outcome::Flush(flushed) = outcomes.remove(&ids[2]).unwrap() else { panic!() };
    flushed.unwrap();
    let Outcome::PutIfAbsent(puts) = outcomes.remove(&ids[3]).unwrap() else { panic!() };
    assert!(!puts[0].result.clone().unwrap());
    let id = queue.submit_delete(keys()).unwrap();
    let [deleted] = wait_for(&queue, 1).try_into().unwrap();
    let Outcome::Delete(keys) = deleted.outcome else { panic!() };
    assert_eq!((deleted.id, keys[0].item.as_slice()), (id, &b"key"[..]));
    assert!(keys[0].result.clone().unwrap() && !keys[1].result.clone().unwrap());
}

#[test]
fn a_queue_has_as_many_requests_as_its_capacity() {
    let stopped = Stoppable::new(&options());
    let queue = stopped.store.completions(2).unwrap();
    stopped.stop(&[OpKind::Write]);
    queue.submit_put([put(b"a", &[1; 1000])]).unwrap();
    queue.submit_put([put(b"b", &[1; 1000])]).unwrap();
    let refused = queue.submit_put([put(b"c", &[3; 1000])]).unwrap_err();
    assert!(matches!(refused.error, Error::Overloaded { limit: 2, .. }));
    assert_eq!(refused.items[0].payload()[0][..], [3; 1000]);
    assert!(matches!(queue.submit_flush(), Err(Error::Overloaded { .. })));
    stopped.go_on();
    until(|| stopped.store.stats().executed == 2);
    assert!(queue.submit_flush().is_err(), "they were not drained");
    wait_for(&queue, 2);
    queue.submit_flush().unwrap();
    wait_for(&queue, 1);
}

#[test]
fn a_refused_submission_leaves_the_queue_as_it_was() {
    let stopped = Stoppable::new(&options().max_store_bytes(100));
    let queue = stopped.store.completions(1).unwrap();
    for _ in 0..3 {
        let past = Batch::new([put(b"key", b"1")]).by(Instant::now());
        assert!(matches!(queue.submit_put(past).unwrap_err().error, Error::DeadlinePassed));
        let long = queue.submit_put([put(b"key", &[0; 100])]).unwrap_err();
        assert!(matches!(long.error, Error::Overloaded { limit: 100, .. }));
    }
    queue.submit_put([put(b"key", b"1")]).unwrap();
    wait_for(&queue, 1);
    stopped.store.close(Duration::from_secs(100)).unwrap();
    assert!(matches!(queue.submit_flush(), Err(Error::Closed { .. })));
}

#[test]
fn a_dropped_queue_removes_its_requests_that_wait() {
    let stopped = Stoppable::new(&options().store_threads(1));
    let store = &stopped.store;
    let [dropped, other] = [(); 2].map(|()| store.completions(10).unwrap());
    stopped.stop(&[OpKind::Write]);
    dropped.submit_put([put(b"runs", &[1; 1000])]).unwrap();
    stopped.wait_for_running(1);
    dropped.submit_put([put(b"waits", &[1; 1000])]).unwrap();
    other.submit_put([put(b"other", &[1; 1000])]).unwrap();
    drop(dropped);
    assert_eq!((store.stats().cancelled, store.stats().queued), (1, 1));
    stopped.go_on();
    assert_eq!(wait_for(&other, 1).len(), 1);
    let present = store.store().contains_many(&[&b"runs"[..], b"waits", b"other"]).unwrap();
    assert_eq!(present, [true, false, true]);
}

#[test]
fn submissions_return_while_the_device_is_stopped() {
    let stopped = Stoppable::new(&options());
    let queue = stopped.store.completions(100).unwrap();
    stopped.store.store().put(b"key", &[1; 1000]).unwrap();
    stopped.stop(&[OpKind::Read, OpKind::Write]);
    for _ in 0..10 {
        queue.submit_get((0..128).map(|_| get(b"key")).collect::<Vec<_>>()).unwrap();
        queue.submit_put((0..128).map(|at| put(&[at], &[2; 100])).collect::<Vec<_>>()).unwrap();
    }
    stopped.wait_for_running(6);
    assert!(!is_readable(&queue, PollTimeout::ZERO));
    stopped.go_on();
    assert_eq!(wait_for(&queue, 20).len(), 20);
}

#[test]
fn threads_share_a_queue() {
    const REQUESTS: u16 = 200;
    let store = store_on(&device(8 << 20), &small());
    let store = AsyncStore::start(store, &options()).unwrap();
    let queue = store.completions(usize::MAX).unwrap();
    let submitted = Mutex::new(Vec::new());
    let submit = |thread: u8| {
        for number in 0..REQUESTS {
            let key = [thread, number.to_le_bytes()[0]];
            let id = queue.submit_put([put(&key, &[thread; 600])]).unwrap();
            submitted.lock().unwrap().push(id);
        }
    };
    let mut drained: Vec<_> = thread::scope(|scope| {
        let submit = &submit;
        (0..4).for_each(|thread| drop(scope.spawn(move || submit(thread))));
        wait_for(&queue, 4 * usize::from(REQUESTS)).iter().map(|of| of.id).collect()
    });
    let mut submitted = submitted.into_inner().unwrap();
    drained.sort_unstable();
    submitted.sort_unstable();
    assert_eq!(drained, submitted);
}

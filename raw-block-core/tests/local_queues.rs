//! Queues of one thread: blocking calls use them on the thread that opened them, and tickets never
//! do.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use fakes::{Behaviour, Gate, device_with_queues, owned, within_seconds};
use raw_block_core::backend::{Completion, IoQueue, Op};
use raw_block_core::{Dispatcher, Error, ErrorKind, WriteAt};

/// How many queues were opened, how many are open, and how many were closed by another thread than
/// their owner.
#[derive(Default)]
struct Counts {
    local: AtomicUsize,
    shared: AtomicUsize,
    open: AtomicUsize,
    closed_elsewhere: AtomicUsize,
}

/// A queue that is counted, and used by no other thread than its owner.
struct Counted {
    owner: Option<ThreadId>,
    counts: Arc<Counts>,
}

impl Counted {
    fn check(&self) {
        let here = thread::current().id();
        assert!(self.owner.is_none_or(|owner| owner == here), "a queue of another thread is used");
    }
}

impl Behaviour for Counted {
    fn is_local(&self) -> bool {
        self.owner.is_some()
    }

    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        self.check();
        honest.submit(ops);
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        self.check();
        honest.reap(min, deadline, done);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let here = thread::current().id();
        let elsewhere = self.owner.is_some_and(|owner| owner != here);
        self.counts.closed_elsewhere.fetch_add(usize::from(elsewhere), Ordering::SeqCst);
        self.counts.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A device with queues of one thread, of whose queues no more than `limit` can be open at once.
fn device(max_queues: usize, limit: usize) -> (Dispatcher, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    let device = device_with_queues(max_queues, move |wanted| {
        if shared.open.load(Ordering::SeqCst) == limit {
            return Err(Error::new(ErrorKind::OutOfResources, "open a queue", "as scripted"));
        }
        shared.open.fetch_add(1, Ordering::SeqCst);
        let count = if wanted.local { &shared.local } else { &shared.shared };
        count.fetch_add(1, Ordering::SeqCst);
        let owner = wanted.local.then(|| thread::current().id());
        Ok(Box::new(Counted { owner, counts: Arc::clone(&shared) }))
    });
    (device, counts)
}

/// How many queues were opened: local ones, and those that any thread may use.
fn opened(counts: &Counts) -> (usize, usize) {
    (counts.local.load(Ordering::SeqCst), counts.shared.load(Ordering::SeqCst))
}

fn write(device: &Dispatcher) -> Result<(), Error> {
    device.write_buffers(&[WriteAt::new(0, &[7; 512])]).all()
}

/// Runs `work` on a new thread, this number of times in sequence.
fn on_other_threads(count: usize, work: impl Fn() + Sync) {
    for _ in 0..count {
        thread::scope(|scope| scope.spawn(&work).join().unwrap());
    }
}

/// Runs `work` on its own threads, sequentially, and `then` while all of them live.
fn while_threads_live(count: usize, work: impl Fn() + Sync, then: impl FnOnce()) {
    let (end, barrier) = (Barrier::new(count + 1), Barrier::new(2));
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                work();
                barrier.wait();
                end.wait();
            });
            barrier.wait();
        }
        then();
        end.wait();
    });
}

#[test]
fn each_thread_opens_one_queue_for_all_its_blocking_calls() {
    let (device, counts) = device(8, usize::MAX);
    let together = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..5 {
                    together.wait();
                    write(&device).unwrap();
                    device.flush().unwrap();
                }
            });
        }
    });
    assert_eq!(opened(&counts), (3, 0));
}

#[test]
fn tickets_share_a_local_queue_of_one_thread() {
    let (device, counts) = device(8, usize::MAX);
    write(&device).unwrap();
    for _ in 0..3 {
        let ticket = device.batched_write(owned(&[[1; 512]])).unwrap();
        let finished = thread::scope(|scope| scope.spawn(|| ticket.wait()).join().unwrap());
        assert!(finished[0].result.is_ok());
    }
    assert_eq!(opened(&counts), (2, 0));
    drop(device);
    assert_eq!(counts.open.load(Ordering::SeqCst), 0);
    assert_eq!(counts.closed_elsewhere.load(Ordering::SeqCst), 0);
}

#[test]
fn more_threads_than_queues_end_up_with_queues_for_all() {
    let (device, counts) = device(4, usize::MAX);
    while_threads_live(
        50,
        || write(&device).unwrap(),
        || {
            assert_eq!(opened(&counts), (4, 1), "the fifth thread replaced one of the first four");
            assert_eq!(counts.open.load(Ordering::SeqCst), 4);
        },
    );
}

#[test]
fn tickets_replace_idle_queues_when_no_more_can_be_opened() {
    let (device, counts) = device(4, 2);
    while_threads_live(
        2,
        || write(&device).unwrap(),
        || {
            let ticket = device.batched_write(owned(&[[1; 512]])).unwrap();
            assert!(ticket.wait()[0].result.is_ok());
            assert_eq!(opened(&counts), (3, 0));
            assert_eq!(counts.open.load(Ordering::SeqCst), 2);
        },
    );
}

#[test]
fn a_thread_at_the_limit_replaces_an_idle_queue_of_another() {
    let (device, counts) = device(8, 2);
    while_threads_live(
        2,
        || write(&device).unwrap(),
        || {
            on_other_threads(2, || write(&device).unwrap());
            assert_eq!(opened(&counts), (2, 1));
        },
    );
}

#[test]
fn a_thread_waits_for_the_queue_of_another_and_replaces_it() {
    let (device, counts) = device(1, usize::MAX);
    let device = Arc::new(device);
    let (done, is_done) = mpsc::channel();
    for _ in 0..4 {
        let (device, done) = (Arc::clone(&device), done.clone());
        thread::spawn(move || {
            (0..100).for_each(|_| write(&device).unwrap());
            done.send(()).unwrap();
        });
    }
    for _ in 0..4 {
        is_done.recv_timeout(Duration::from_secs(20)).expect("no thread waits for ever");
    }
    assert!(opened(&counts).1 <= 1, "a queue for all stays: {:?}", opened(&counts));
    assert!(counts.open.load(Ordering::SeqCst) <= 1);
}

#[test]
fn a_device_without_any_queue_is_an_error_and_not_a_wait() {
    let (device, _) = device(4, 0);
    on_other_threads(3, || {
        assert_eq!(write(&device).unwrap_err().kind(), ErrorKind::OutOfResources);
    });
}

#[test]
fn a_thread_that_ends_closes_its_queues() {
    let (one, counts_of_one) = device(8, usize::MAX);
    let (other, counts_of_other) = device(8, usize::MAX);
    on_other_threads(300, || {
        write(&one).unwrap();
        write(&other).unwrap();
    });
    for counts in [counts_of_one, counts_of_other] {
        assert_eq!(opened(&counts), (300, 0), "each has its own queue");
        assert_eq!(counts.open.load(Ordering::SeqCst), 0);
        assert_eq!(counts.closed_elsewhere.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_thread_outlives_the_devices_that_it_used() {
    thread::spawn(|| {
        for _ in 0..3 {
            let (device, counts) = device(8, usize::MAX);
            write(&device).unwrap();
            drop(device);
            assert_eq!(counts.open.load(Ordering::SeqCst), 0);
        }
    })
    .join()
    .unwrap();
}

#[test]
fn a_device_can_be_used_while_its_thread_ends() {
    /// Uses the device when it is dropped, which is after the thread's queues were closed.
    struct Late(RefCell<Option<Arc<Dispatcher>>>);

    impl Drop for Late {
        fn drop(&mut self) {
            write(self.0.borrow().as_ref().unwrap()).unwrap();
        }
    }

    thread_local! {
        static LATE: Late = const { Late(RefCell::new(None)) };
    }

    let (device, counts) = device(8, usize::MAX);
    let device = Arc::new(device);
    let used = Arc::clone(&device);
    thread::spawn(move || {
        LATE.with(|late| late.0.replace(Some(Arc::clone(&used))));
        // What a thread used last is dropped first.
        write(&used).unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(opened(&counts), (1, 1), "no queue is left that no thread would close");
    assert_eq!(counts.open.load(Ordering::SeqCst), 1);
}

/// Waits at the gate when it is closed.
struct ClosingAtGate(Arc<Gate>);

impl Behaviour for ClosingAtGate {
    fn is_local(&self) -> bool {
        true
    }
}

impl Drop for ClosingAtGate {
    fn drop(&mut self) {
        self.0.wait(None);
    }
}

#[test]
fn closing_a_dispatcher_waits_for_threads_that_close_its_queues() {
    within_seconds(|| {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        let device = device_with_queues(8, move |_| {
            let gate = Arc::clone(&shared);
            Ok(Box::new(ClosingAtGate(gate)))
        });
        let device = Arc::new(device);
        let used = Arc::clone(&device);
        let user = thread::spawn(move || {
            write(&used).unwrap();
            drop(used);
        });
        gate.until_someone_waits();
        let closing = thread::spawn(move || drop(device));
        thread::sleep(Duration::from_millis(50));
        assert!(!closing.is_finished(), "a queue of the device is open");
        gate.open();
        closing.join().unwrap();
        user.join().unwrap();
    });
}

/// Panics when it is closed.
struct PanickingWhenClosed;

impl Behaviour for PanickingWhenClosed {
    fn is_local(&self) -> bool {
        true
    }
}

impl Drop for PanickingWhenClosed {
    fn drop(&mut self) {
        panic!("as scripted");
    }
}

#[test]
fn a_queue_that_panics_as_its_thread_ends_is_closed() {
    within_seconds(|| {
        let device = device_with_queues(2, |_| Ok(Box::new(PanickingWhenClosed)));
        // More of them than may be open at once.
        on_other_threads(5, || write(&device).unwrap());
    });
}

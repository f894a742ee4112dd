//! Flushes are shared: by the callers that wait for one, and by the dispatchers on one backend.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fakes::{
    Behaviour, Failing, Gate, backend, blocks, dispatcher, kinds, os_error, owned, within_seconds,
    writes,
};
use libc::EIO;
use raw_block_core::backend::{Completion, IoBackend, IoQueue, Op, OpKind};
use raw_block_core::{Dispatcher, Error, ErrorClass, ErrorKind, ReadAt, WriteAt};

/// How a flush ends.
#[derive(Clone, Copy)]
enum End {
    Success,
    Failure,
    NotStarted,
    Panic,
}

/// What all queues of a backend share: the first flush waits at the gate, the others are carried
/// out at once, and each ends as scripted.
struct Script {
    gate: Gate,
    flushes: AtomicUsize,
    ends: Vec<End>,
}

/// A queue that obeys the script.
struct Scripted {
    script: Arc<Script>,
    /// Flushes that are in flight, with their numbers from 0 on.
    held: Vec<(usize, Op)>,
    done: Vec<Completion>,
}

impl Behaviour for Scripted {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let (flushes, mut others): (VecDeque<_>, VecDeque<_>) =
            ops.drain(..).partition(|op| op.kind() == OpKind::Flush);
        for op in flushes {
            self.held.push((self.script.flushes.fetch_add(1, Ordering::SeqCst), op));
        }
        honest.submit(&mut others);
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        for (number, op) in self.held.drain(..) {
            if number == 0 {
                self.script.gate.wait(None);
            }
            self.done.push(match self.script.ends.get(number).unwrap_or(&End::Success) {
                End::Success => op.complete(),
                End::Failure => op.fail(io::Error::from_raw_os_error(EIO)),
                End::NotStarted => {
                    op.fail_with(Error::new(ErrorKind::OutOfResources, "flush", "as scripted"))
                }
                End::Panic => panic!("as scripted"),
            });
        }
        done.append(&mut self.done);
        honest.reap(min, deadline, done);
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight() + self.held.len() + self.done.len()
    }
}

/// A backend whose flushes end like this, and succeed from then on.
fn scripted(ends: &[End]) -> (Arc<Script>, Arc<dyn IoBackend>) {
    let (gate, flushes) = (Gate::default(), AtomicUsize::new(0));
    let script = Arc::new(Script { gate, flushes, ends: ends.to_vec() });
    let shared = Arc::clone(&script);
    let backend = backend(move |_| {
        let script = Arc::clone(&shared);
        Ok(Box::new(Scripted { script, held: Vec::new(), done: Vec::new() }))
    });
    (script, backend)
}

/// Returns once this number of callers wait for a flush or perform one.
fn until_called(backend: &dyn IoBackend, calls: u64) {
    while backend.stats().snapshot().flush_calls < calls {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Calls `flush` on one thread, and on this number of others while that flush is in flight. Returns
/// how the first and the others ended; `Err` for a panic.
fn flush_while_one_is_in_flight(
    script: &Script,
    backend: &dyn IoBackend,
    dispatchers: &[Dispatcher],
    others: usize,
) -> (Ended, Vec<Ended>) {
    let flush = |device: &Dispatcher| catch_unwind(AssertUnwindSafe(|| device.flush()));
    thread::scope(|scope| {
        let first = scope.spawn(|| flush(&dispatchers[0]));
        script.gate.until_someone_waits();
        let others: Vec<_> = dispatchers
            .iter()
            .cycle()
            .take(others)
            .map(|device| {
                scope.spawn(move || {
                    device.write_buffers(&[WriteAt::new(0, &[7; 512])]).all().unwrap();
                    flush(device)
                })
            })
            .collect();
        until_called(backend, 1 + others.len() as u64);
        script.gate.open();
        let ended = |thread: ScopedJoinHandle<'_, thread::Result<_>>| thread.join().unwrap();
        (ended(first), others.into_iter().map(ended).collect())
    })
}

type Ended = thread::Result<Result<(), Error>>;

/// How many ended well, with each of these kinds, and by a panic.
fn count(ended: &[Ended], kind: ErrorKind) -> (usize, usize, usize) {
    let counted = |wanted: &dyn Fn(&Ended) -> bool| ended.iter().filter(|end| wanted(end)).count();
    (
        counted(&|end| matches!(end, Ok(Ok(())))),
        counted(&|end| matches!(end, Ok(Err(error)) if error.kind() == kind)),
        counted(&|end| end.is_err()),
    )
}

#[test]
fn one_flush_serves_all_that_waited_before_it() {
    within_seconds(|| {
        let (script, backend) = scripted(&[]);
        let devices = [dispatcher(&backend, 64)];
        let (first, others) = flush_while_one_is_in_flight(&script, &*backend, &devices, 31);
        assert!(matches!(first, Ok(Ok(()))));
        assert_eq!(count(&others, ErrorKind::Io), (31, 0, 0));
        assert_eq!(script.flushes.load(Ordering::SeqCst), 2);
        let stats = devices[0].stats();
        assert_eq!((stats.flush_calls, stats.flushes), (32, 2));
    });
}

#[test]
fn a_flush_in_flight_does_not_serve_a_later_call() {
    within_seconds(|| {
        let (script, backend) = scripted(&[]);
        let device = dispatcher(&backend, 4);
        thread::scope(|scope| {
            let first = scope.spawn(|| device.flush());
            script.gate.until_someone_waits();
            device.write_buffers(&[WriteAt::new(0, &[7; 512])]).all().unwrap();
            let second = scope.spawn(|| device.flush());
            until_called(&*backend, 2);
            assert_eq!(script.flushes.load(Ordering::SeqCst), 1, "one at a time");
            script.gate.open();
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
            assert_eq!(script.flushes.load(Ordering::SeqCst), 2);
        });
    });
}

#[test]
fn dispatchers_on_one_backend_share_flushes() {
    within_seconds(|| {
        let (script, backend) = scripted(&[]);
        let devices = [dispatcher(&backend, 64), dispatcher(&backend, 64)];
        let (first, others) = flush_while_one_is_in_flight(&script, &*backend, &devices, 6);
        assert!(matches!(first, Ok(Ok(()))));
        assert_eq!(count(&others, ErrorKind::Io), (6, 0, 0));
        assert_eq!(script.flushes.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn dispatchers_on_one_backend_share_stopped_writes() {
    within_seconds(|| {
        let (script, backend) = scripted(&[End::Failure]);
        script.gate.open();
        let [one, other] = [(); 2].map(|()| dispatcher(&backend, 4));
        assert_eq!(one.flush().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(backend.flush_state().failure().unwrap().kind(), ErrorKind::Io);
        let stopped = Some(ErrorKind::WritesStopped);
        let blocks = blocks(2);
        for device in [&one, &other, &dispatcher(&backend, 4)] {
            assert_eq!(kinds(&*device.write_buffers(&writes(&blocks))), [stopped; 2]);
            let refused = device.batched_write(owned(&blocks)).unwrap_err();
            assert_eq!(Some(refused.error.kind()), stopped);
            let error = device.flush().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WritesStopped);
            assert!(error.to_string().contains("os error 5"), "it says why: {error}");
            device.read_buffers(&mut [ReadAt::new(0, &mut [0; 512])]).all().unwrap();
        }
        assert_eq!(script.flushes.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn writes_that_a_write_stopped_are_refused_for_that_reason() {
    let (script, backend) = scripted(&[]);
    let device = dispatcher(&backend, 4);
    let lost = io::Error::from_raw_os_error(libc::EINTR);
    let lost = Error::os("write", lost).with_class(ErrorClass::Unknown).at(4096, 512);
    backend.flush_state().stop_writes(&lost);
    for refused in [device.write_buffers(&writes(&blocks(1))).all(), device.flush()] {
        let error = refused.unwrap_err();
        assert_eq!(
            (error.kind(), error.class()),
            (ErrorKind::WritesStopped, ErrorClass::NotStarted)
        );
        let why =
            "an earlier write failed (write of 512 bytes at offset 4096: Interrupted system call";
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains("open the device again"), "{error}");
    }
    assert_eq!(script.flushes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_failed_flush_fails_all_that_it_serves() {
    within_seconds(|| {
        let (script, backend) = scripted(&[End::Success, End::Failure]);
        let devices = [dispatcher(&backend, 64)];
        let (first, others) = flush_while_one_is_in_flight(&script, &*backend, &devices, 5);
        assert!(matches!(first, Ok(Ok(()))));
        assert_eq!(count(&others, ErrorKind::Io), (0, 5, 0));
        assert_eq!(devices[0].flush().unwrap_err().kind(), ErrorKind::WritesStopped);
    });
}

#[test]
fn callers_that_wait_during_a_flush_that_fails_are_refused() {
    within_seconds(|| {
        let (script, backend) = scripted(&[End::Failure]);
        let devices = [dispatcher(&backend, 64)];
        let (first, others) = flush_while_one_is_in_flight(&script, &*backend, &devices, 5);
        assert_eq!(first.unwrap().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(count(&others, ErrorKind::WritesStopped), (0, 5, 0));
        assert_eq!(script.flushes.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_flush_that_was_not_started_fails_its_own_caller_alone() {
    within_seconds(|| {
        let (script, backend) = scripted(&[End::Success, End::NotStarted]);
        let devices = [dispatcher(&backend, 64)];
        let (first, others) = flush_while_one_is_in_flight(&script, &*backend, &devices, 5);
        assert!(matches!(first, Ok(Ok(()))));
        assert_eq!(count(&others, ErrorKind::OutOfResources), (4, 1, 0));
        assert_eq!(script.flushes.load(Ordering::SeqCst), 3);
        devices[0].write_buffers(&writes(&blocks(1))).all().unwrap();
        devices[0].flush().unwrap();
    });
}

#[test]
fn a_flush_that_the_system_reports_as_failed_was_started() {
    let fails = |op: &Op| Some(os_error(op, libc::ENOMEM));
    let device = dispatcher(&backend(move |_| Ok(Box::new(Failing::new(fails)))), 4);
    let error = device.flush().unwrap_err();
    assert_eq!((error.kind(), error.class()), (ErrorKind::OutOfResources, ErrorClass::Failed));
    assert_eq!(device.flush().unwrap_err().kind(), ErrorKind::WritesStopped);
}

#[test]
fn a_panic_in_a_flush_fails_the_callers_that_wait_for_it() {
    within_seconds(|| {
        let (script, backend) = scripted(&[End::Success, End::Panic]);
        let devices = [dispatcher(&backend, 64)];
        let (first, others) = flush_while_one_is_in_flight(&script, &*backend, &devices, 5);
        assert!(matches!(first, Ok(Ok(()))));
        assert_eq!(count(&others, ErrorKind::Io), (0, 4, 1));
        let failed = others.iter().filter_map(|end| end.as_ref().ok()?.as_ref().err());
        assert!(failed.clone().all(|error| error.class() == ErrorClass::Unknown));
        assert_eq!(devices[0].flush().unwrap_err().kind(), ErrorKind::WritesStopped);
    });
}

#[test]
fn a_flush_in_a_read_does_not_wait_for_one_that_needs_its_queue() {
    within_seconds(|| {
        let (script, backend) = scripted(&[]);
        script.gate.open();
        let [one, other] = [(); 2].map(|()| dispatcher(&backend, 1));
        for (round, called) in (0..).zip([&one, &other]) {
            let reads = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    reads.wait();
                    one.flush().unwrap();
                });
                let mut found = [0; 512];
                one.read_buffers_with(&mut [ReadAt::new(0, &mut found)], |_, read| {
                    read.unwrap();
                    reads.wait();
                    until_called(&*backend, 2 * round + 1);
                    called.flush().unwrap();
                });
            });
            assert_eq!(one.stats().flush_calls, 2 * round + 2);
        }
    });
}

//! Queues are opened when they are needed and can be had, and replaced when they broke.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fakes::{Behaviour, Gate, Gated, Honest, blocks, device, kinds, owned, within_seconds, writes};
use raw_block_core::backend::{Completion, IoQueue, Op};
use raw_block_core::{Dispatcher, Error, ErrorKind};

const EIO: i32 = 5;
/// Long enough for another thread to do what it should not.
const A_WHILE: Duration = Duration::from_millis(50);

/// A device that has one queue, which waits at the gate, and how often a further one was asked for.
fn with_one_queue() -> (Dispatcher, Arc<Gate>, Arc<AtomicUsize>) {
    let (gate, asked) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (gate_of_queue, count) = (Arc::clone(&gate), Arc::clone(&asked));
    let device = device(move |number| {
        if number == 0 {
            return Ok(Box::new(Gated::new(&gate_of_queue)));
        }
        count.fetch_add(1, Ordering::SeqCst);
        Err(Error::new(ErrorKind::OutOfResources, "open a queue", "as scripted"))
    });
    (device, gate, asked)
}

#[test]
fn a_call_at_the_limit_waits_for_an_open_queue() {
    within_seconds(|| {
        let (device, gate, asked) = with_one_queue();
        let blocks = blocks(3);
        let write = || kinds(&*device.write_buffers(&writes(&blocks)));
        thread::scope(|scope| {
            let first = scope.spawn(write);
            gate.until_someone_waits();
            let others = [(); 3].map(|()| scope.spawn(write));
            while asked.load(Ordering::SeqCst) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(A_WHILE);
            let gave_up = others.iter().any(ScopedJoinHandle::is_finished);
            gate.open();
            assert_eq!(first.join().unwrap(), [None; 3]);
            for other in others {
                assert_eq!(other.join().unwrap(), [None; 3]);
            }
            assert!(!gave_up);
        });
    });
}

#[test]
fn callers_that_wait_for_a_queue_do_not_keep_each_other_busy() {
    within_seconds(|| {
        let (device, gate, asked) = with_one_queue();
        let blocks = blocks(3);
        let write = || kinds(&*device.write_buffers(&writes(&blocks)));
        thread::scope(|scope| {
            scope.spawn(write);
            gate.until_someone_waits();
            for _ in 0..3 {
                scope.spawn(write);
            }
            thread::sleep(2 * A_WHILE);
            let asked = asked.load(Ordering::SeqCst);
            gate.open();
            assert!(asked < 20, "they asked for a queue {asked} times");
        });
    });
}

#[test]
fn a_call_that_gets_no_queue_does_not_wait_for_tickets() {
    within_seconds(|| {
        let (device, gate, _) = with_one_queue();
        let blocks = blocks(3);
        let ticket = device.batched_write(owned(&blocks)).unwrap();
        gate.until_someone_waits();
        // The thread with the ticket may be the caller.
        let no_queue = Some(ErrorKind::OutOfResources);
        assert_eq!(kinds(&*device.write_buffers(&writes(&blocks))), [no_queue; 3]);
        let second = device.batched_write(owned(&blocks)).unwrap();
        assert_eq!(device.stats().tickets_in_flight, 2);
        gate.open();
        for ticket in [ticket, second] {
            assert!(ticket.wait().iter().all(|finished| finished.result.is_ok()));
        }
    });
}

/// Fails what it takes, and is not to be used again.
#[derive(Default)]
struct Breaking {
    failed: Vec<Completion>,
    broken: bool,
}

impl Behaviour for Breaking {
    fn submit(&mut self, _: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        self.broken = true;
        self.failed.extend(ops.drain(..).map(|op| op.fail(io::Error::from_raw_os_error(EIO))));
    }

    fn reap(
        &mut self,
        _: &mut dyn IoQueue,
        _: usize,
        _: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        done.append(&mut self.failed);
    }

    fn in_flight(&self, _: &dyn IoQueue) -> usize {
        self.failed.len()
    }

    fn depth(&self, honest: &dyn IoQueue) -> usize {
        if self.broken { 0 } else { honest.depth() }
    }
}

#[test]
fn a_queue_without_depth_is_not_lent_again() {
    within_seconds(|| {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        // More of them break than may be open at once.
        let device = device(move |number| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(if number < 6 { Box::new(Breaking::default()) } else { Box::new(Honest) })
        });
        let blocks = blocks(3);
        let failed = [Some(ErrorKind::Io); 3];
        for round in 1..=3 {
            assert_eq!(kinds(&*device.write_buffers(&writes(&blocks))), failed);
            let all = device.batched_write(owned(&blocks)).unwrap().wait();
            assert_eq!(kinds(all.iter().map(|finished| &finished.result)), failed);
            assert_eq!(opened.load(Ordering::SeqCst), 2 * round);
        }
        device.write_buffers(&writes(&blocks)).all().unwrap();
        device.write_buffers(&writes(&blocks)).all().unwrap();
        assert_eq!(opened.load(Ordering::SeqCst), 7);
    });
}

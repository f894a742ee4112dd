//! A backend in safe code may break its contract. Then transfers may fail, but a dispatcher neither
//! returns while memory is in use, nor hangs, nor loses results.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fakes::{
    Behaviour, Honest, blocks, device, first_queue, is_driver, kinds, owned, place, until,
    within_seconds, writes,
};
use raw_block_core::backend::{Completion, IoQueue, Op};
use raw_block_core::{Dispatcher, Error, ErrorKind, Finished, ReadAt};

const LOST: Option<ErrorKind> = Some(ErrorKind::Io);

/// Asserts that a dispatcher still does its work, and holds these blocks where they belong.
fn assert_works(device: &Dispatcher, blocks: &[[u8; 512]]) {
    device.write_buffers(&writes(blocks)).all().unwrap();
    let mut found = vec![[0; 512]; blocks.len()];
    let mut batch: Vec<_> =
        (0..).zip(&mut found).map(|(number, block)| ReadAt::new(place(number), block)).collect();
    device.read_buffers(&mut batch).all().unwrap();
    assert!(found == blocks);
}

fn results(all: Vec<Finished>) -> Vec<Option<ErrorKind>> {
    kinds(&all.into_iter().map(|finished| finished.result).collect::<Vec<_>>())
}

/// Takes ops, and drops the one for `victim`.
struct Dropping {
    victim: u64,
    /// How many dropped ops it still counts as in flight.
    counted: usize,
    counts: bool,
}

impl Dropping {
    fn op(number: u64) -> Self {
        Self { victim: place(number), counted: 0, counts: false }
    }

    fn op_and_counting_it(number: u64) -> Self {
        Self { counts: true, ..Self::op(number) }
    }
}

impl Behaviour for Dropping {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let before = ops.len();
        ops.retain(|op| op.offset() != self.victim);
        self.counted += if self.counts { before - ops.len() } else { 0 };
        honest.submit(ops);
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight() + self.counted
    }
}

#[test]
fn a_dropped_op_fails_and_its_neighbours_do_not() {
    within_seconds(|| {
        let device = first_queue(|| Dropping::op(2));
        let results = kinds(&*device.write_buffers(&writes(&blocks(5))));
        assert_eq!(results, [None, None, LOST, None, None]);
        assert_eq!(device.stats().errors(ErrorKind::Io), 1);
        assert_works(&device, &blocks(5));
    });
}

#[test]
fn a_dropped_op_of_a_batch_larger_than_the_queue_fails_alone() {
    within_seconds(|| {
        let device = first_queue(|| Dropping::op(90));
        let mut expected = vec![None; 100];
        expected[90] = LOST;
        assert_eq!(kinds(&*device.write_buffers(&writes(&blocks(100)))), expected);
        assert_works(&device, &blocks(100));
    });
}

#[test]
fn a_ticket_survives_a_dropped_op() {
    within_seconds(|| {
        let device = first_queue(|| Dropping::op(0));
        let all = device.batched_write(owned(&blocks(2))).unwrap().wait();
        assert!(all.iter().zip(blocks(2)).all(|(finished, block)| finished.buffer[..] == block));
        assert_eq!(results(all), [LOST, None]);
        drop(device.batched_write(owned(&blocks(2))).unwrap());

        let device = first_queue(|| Dropping::op(1));
        let mut ticket = device.batched_write(owned(&blocks(2))).unwrap();
        let all = std::iter::repeat_with(|| ticket.try_wait()).find_map(|all| all).unwrap();
        assert_eq!(results(all), [None, LOST]);
        assert_eq!(device.stats().tickets_in_flight, 0);
        assert_works(&device, &blocks(5));
    });
}

#[test]
fn a_dropped_op_that_is_counted_as_in_flight_does_not_hang() {
    within_seconds(|| {
        let device = first_queue(|| Dropping::op_and_counting_it(2));
        let results = kinds(&*device.write_buffers(&writes(&blocks(5))));
        assert_eq!(results, [None, None, LOST, None, None]);
        assert_works(&device, &blocks(5));
    });
}

/// Drops whatever it takes, and soon says that it is full.
struct FullOfNothing(usize);

impl Behaviour for FullOfNothing {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let accepted = (honest.depth() - self.0).min(ops.len());
        ops.drain(..accepted);
        self.0 += accepted;
    }

    fn in_flight(&self, _: &dyn IoQueue) -> usize {
        self.0
    }
}

#[test]
fn a_queue_that_is_full_of_dropped_ops_fails_its_batch() {
    within_seconds(|| {
        let device = first_queue(|| FullOfNothing(0));
        assert_eq!(kinds(&*device.write_buffers(&writes(&blocks(40)))), [LOST; 40]);
        assert_works(&device, &blocks(40));
    });
}

/// Accepts nothing, though nothing is in flight.
struct NeverAccepting;

impl Behaviour for NeverAccepting {
    fn submit(&mut self, _: &mut dyn IoQueue, _: &mut VecDeque<Op>) {}
}

#[test]
fn a_queue_that_never_accepts_fails_its_batch() {
    within_seconds(|| {
        let device = first_queue(|| NeverAccepting);
        assert_eq!(kinds(&*device.write_buffers(&writes(&blocks(3)))), [LOST; 3]);
        assert_works(&device, &blocks(3));
        let device = first_queue(|| NeverAccepting);
        assert_eq!(results(device.batched_write(owned(&blocks(3))).unwrap().wait()), [LOST; 3]);
        assert_works(&device, &blocks(3));
    });
}

/// Accepts one op at a time, from the back, and reaps now and then.
struct Sluggish(usize);

impl Behaviour for Sluggish {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let mut one: VecDeque<_> = ops.pop_back().into_iter().collect();
        honest.submit(&mut one);
        ops.extend(one);
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        self.0 += 1;
        if self.0.is_multiple_of(3) {
            honest.reap(min, deadline, done);
        }
    }
}

#[test]
fn a_queue_that_returns_less_than_asked_for_is_asked_again() {
    within_seconds(|| {
        let device = device(|_| Ok(Box::new(Sluggish(0))));
        assert_works(&device, &blocks(40));
        let all = device.batched_write(owned(&blocks(40))).unwrap().wait();
        assert_eq!(results(all), [None; 40]);
    });
}

/// Hands its ops to a thread that has them for a while, and says that it has none.
struct Lending {
    /// How many ops are out.
    out: Arc<AtomicUsize>,
    panics: bool,
}

impl Behaviour for Lending {
    fn submit(&mut self, _: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let ops = mem::take(ops);
        self.out.fetch_add(ops.len(), Ordering::SeqCst);
        let out = Arc::clone(&self.out);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            for op in ops {
                out.fetch_sub(1, Ordering::SeqCst);
                drop(op);
            }
        });
    }

    fn reap(&mut self, _: &mut dyn IoQueue, _: usize, _: Option<Instant>, _: &mut Vec<Completion>) {
        assert!(!self.panics, "as scripted");
    }
}

fn lending(panics: bool) -> (Dispatcher, Arc<AtomicUsize>) {
    let out = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&out);
    (first_queue(move || Lending { out: Arc::clone(&shared), panics }), out)
}

#[test]
fn a_call_returns_only_when_no_op_is_left() {
    within_seconds(|| {
        let (device, out) = lending(false);
        let written = kinds(&*device.write_buffers(&writes(&blocks(4))));
        assert_eq!(out.load(Ordering::SeqCst), 0, "it returned while memory was in use");
        assert_eq!(written, [LOST; 4]);
        assert_works(&device, &blocks(4));

        let (device, out) = lending(false);
        let all = device.batched_write(owned(&blocks(4))).unwrap().wait();
        assert_eq!(out.load(Ordering::SeqCst), 0, "buffers came back while they were in use");
        assert!(all.iter().zip(blocks(4)).all(|(finished, block)| finished.buffer[..] == block));
        assert_eq!(results(all), [LOST; 4]);
    });
}

#[test]
fn a_panic_unwinds_only_when_no_op_is_left() {
    within_seconds(|| {
        let (device, out) = lending(true);
        let call = AssertUnwindSafe(|| device.write_buffers(&writes(&blocks(4))));
        assert!(catch_unwind(call).is_err());
        assert_eq!(out.load(Ordering::SeqCst), 0, "it unwound while memory was in use");
        assert_works(&device, &blocks(4));
    });
}

/// Puts its ops where the next queue finds them, and finishes the ops of others with its own.
struct Mixing {
    stash: Arc<Mutex<Vec<Op>>>,
    keeps: bool,
}

impl Behaviour for Mixing {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        if self.keeps {
            self.stash.lock().unwrap().extend(ops.drain(..));
        } else {
            honest.submit(ops);
        }
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        if self.keeps {
            return;
        }
        // Those of the others first: they have the same numbers as its own.
        let others = mem::take(&mut *self.stash.lock().unwrap());
        if others.is_empty() {
            honest.reap(min, deadline, done);
        }
        done.extend(others.into_iter().map(Op::complete));
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight() + if self.keeps { self.stash.lock().unwrap().len() } else { 0 }
    }
}

#[test]
fn ops_of_another_batch_do_not_count() {
    within_seconds(|| {
        let stash = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&stash);
        let device = device(move |_| {
            Ok(Box::new(Mixing { stash: Arc::clone(&shared), keeps: is_driver() }))
        });
        let ticket = device.batched_write(owned(&blocks(3))).unwrap();
        until("nothing was submitted", || stash.lock().unwrap().len() == 3);
        // Its queue finishes the ticket's ops first; still this write is done when it returns.
        let block = [9; 512];
        device.write_buffers(&[raw_block_core::WriteAt::new(place(50), &block)]).all().unwrap();
        let mut found = [0; 512];
        device.read_buffers(&mut [ReadAt::new(place(50), &mut found)]).all().unwrap();
        assert_eq!(found, block);
        assert_eq!(results(ticket.wait()), [LOST; 3]);
    });
}

/// Slips an op of another queue among the ops that it does not accept.
struct Slipping {
    stash: Arc<Mutex<Vec<Op>>>,
    keeps: bool,
}

impl Behaviour for Slipping {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let mut stash = self.stash.lock().unwrap();
        if self.keeps {
            stash.extend(ops.drain(..));
        } else {
            honest.submit(ops);
            ops.extend(stash.drain(..));
        }
    }
}

#[test]
fn an_op_of_another_batch_among_those_that_wait_is_harmless() {
    within_seconds(|| {
        let stash = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&stash);
        let device = device(move |number| {
            let stash = Arc::clone(&shared);
            Ok(if is_driver() && number < 2 {
                Box::new(Slipping { stash, keeps: true })
            } else if number < 2 {
                Box::new(Slipping { stash, keeps: false })
            } else {
                Box::new(Honest)
            })
        });
        let ticket = device.batched_write(owned(&blocks(3))).unwrap();
        until("nothing was submitted", || stash.lock().unwrap().len() == 3);
        let written = blocks(3);
        // Whether this write fails or panics is not said; that it does not hang is.
        let _ = catch_unwind(AssertUnwindSafe(|| device.write_buffers(&writes(&written))));
        assert_eq!(results(ticket.wait()), [LOST; 3]);
        assert_works(&device, &written);
    });
}

#[test]
fn a_queue_that_does_not_open_fails_its_batch_only() {
    let refused = AtomicBool::new(false);
    let device = device(move |_| {
        if refused.swap(true, Ordering::SeqCst) {
            return Ok(Box::new(Honest));
        }
        Err(Error::new(ErrorKind::OutOfResources, "open a queue", "as scripted"))
    });
    let results = kinds(&*device.write_buffers(&writes(&blocks(2))));
    assert_eq!(results, [Some(ErrorKind::OutOfResources); 2]);
    assert_works(&device, &blocks(2));
}

#[test]
fn a_ticket_whose_queue_does_not_open_gives_its_buffers_back() {
    let device =
        device(|_| Err(Error::new(ErrorKind::OutOfResources, "open a queue", "as scripted")));
    for _ in 0..10 {
        let all = device.batched_write(owned(&blocks(2))).unwrap().wait();
        assert!(all.iter().map(|finished| &finished.buffer[..]).eq(&blocks(2)));
        let refused = Some(ErrorKind::OutOfResources);
        assert_eq!(kinds(all.iter().map(|finished| &finished.result)), [refused; 2]);
    }
    assert_eq!(device.stats().tickets_in_flight, 0);
}

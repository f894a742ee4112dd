//! A batch longer than its queue keeps the queue filled, and gives its caller what has completed.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fakes::{Behaviour, device, within_seconds};
use raw_block_core::backend::{Completion, IoQueue, Op};
use raw_block_core::{AlignedBuf, Dispatcher, OwnedTransfer, ReadAt, WriteAt};

const DEPTH: usize = 8;
const READS: usize = 8_000;

/// What a queue has seen.
#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    /// Of those accepted, how many were started.
    started: AtomicUsize,
    /// Completions that were taken.
    taken: AtomicUsize,
}

impl Counts {
    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Ops that were started and not taken, after asserting that every accepted op was started.
    fn started_and_not_taken(&self) -> usize {
        let started = self.started.load(Ordering::SeqCst);
        assert_eq!(started, self.accepted.load(Ordering::SeqCst), "an accepted op was not started");
        started - self.taken()
    }
}

/// A queue of depth `DEPTH` that completes every op as soon as it is started.
struct Instantly(Arc<Counts>);

impl Behaviour for Instantly {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let mut accepted: VecDeque<_> =
            ops.drain(..ops.len().min(DEPTH - honest.in_flight())).collect();
        self.0.accepted.fetch_add(accepted.len(), Ordering::SeqCst);
        honest.submit(&mut accepted);
    }

    fn start(&mut self, _: &mut dyn IoQueue) {
        let accepted = self.0.accepted.load(Ordering::SeqCst);
        self.0.started.store(accepted, Ordering::SeqCst);
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        self.start(honest);
        let before = done.len();
        honest.reap(min, deadline, done);
        self.0.taken.fetch_add(done.len() - before, Ordering::SeqCst);
    }

    fn depth(&self, _: &dyn IoQueue) -> usize {
        DEPTH
    }
}

fn instant() -> (Dispatcher, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    (device(move |_| Ok(Box::new(Instantly(Arc::clone(&shared))))), counts)
}

/// Places that are never neighbours.
fn place(number: usize) -> u64 {
    (number as u64 * 1024) % (1 << 20)
}

fn owned_reads(count: usize) -> Vec<OwnedTransfer> {
    (0..count)
        .map(|number| OwnedTransfer::new(place(number), AlignedBuf::zeroed(512).unwrap()))
        .collect()
}

#[test]
fn the_first_read_of_a_long_batch_comes_before_the_last() {
    within_seconds(|| {
        let (device, counts) = instant();
        let mut found = vec![[0; 512]; READS];
        let mut batch: Vec<_> = (0..)
            .zip(&mut found)
            .map(|(number, found)| ReadAt::new(place(number), found))
            .collect();
        let (mut calls, mut most_at_once) = (0, 0);
        device.read_buffers_with(&mut batch, |_, read| {
            read.unwrap();
            most_at_once = most_at_once.max(counts.taken() - calls);
            if counts.taken() < READS - DEPTH {
                assert_eq!(counts.started_and_not_taken(), DEPTH, "the queue is kept filled");
            }
            calls += 1;
        });
        assert_eq!((calls, counts.taken()), (READS, READS));
        assert!(most_at_once <= DEPTH, "{most_at_once} were taken before one was handed over");
    });
}

#[test]
fn a_ticket_of_many_waves_completes() {
    within_seconds(|| {
        let (device, _) = instant();
        // Each needs 1 MiB of aligned memory, and a wave may use 64 MiB.
        let batch = |count| -> Vec<_> {
            (0..count)
                .map(|_| {
                    OwnedTransfer::new(0, AlignedBuf::zeroed(9).unwrap())
                        .with_payload_len(9)
                        .padded_to(1 << 20)
                })
                .collect()
        };
        let bytes = vec![7; 1 << 20];
        device.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap();
        let all = device.batched_read(batch(150)).unwrap().wait();
        assert!(
            all.iter().all(|finished| finished.result.is_ok() && finished.buffer[..] == [7; 9])
        );
    });
}

#[test]
fn a_batch_that_fits_is_reaped_in_one_call() {
    within_seconds(|| {
        let (device, _) = instant();
        let before = device.stats().submissions;
        let block = [1; 512];
        let batch: Vec<_> = (0..DEPTH).map(|n| WriteAt::new(place(n), &block)).collect();
        device.write_buffers(&batch).all().unwrap();
        assert_eq!(device.stats().submissions - before, 1);
        let all = device.batched_read(owned_reads(DEPTH)).unwrap().wait();
        assert_eq!(all.len(), DEPTH);
        assert_eq!(device.stats().submissions - before, 2);
    });
}

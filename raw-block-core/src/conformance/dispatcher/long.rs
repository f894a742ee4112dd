//! A batch longer than its queue goes on while its caller has something else to do.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::fill;
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, assert_same, pattern};
use crate::conformance::queue::waking::{SOON, is_readable};
use crate::{Finished, OwnedTransfer, ReadAt, WakeFd};

/// Depth of the queues, and transfers for each op that they hold.
const DEPTH: usize = 2;
const ROUNDS: usize = 30;

/// What one look at a queue can give, in bytes, if each transfer is a block.
fn queueful(subject: &Subject) -> u64 {
    (subject.backend.open_queue(DEPTH).unwrap().depth() * subject.block()) as u64
}

/// How many transfers are a long batch.
fn transfers(subject: &Subject) -> usize {
    queueful(subject) as usize / subject.block() * ROUNDS
}

/// Every other block, so that nothing is merged.
fn owned_reads(subject: &Subject) -> Vec<OwnedTransfer> {
    let memory = vec![0xEE; subject.block()];
    (0..transfers(subject))
        .map(|number| OwnedTransfer::new(subject.at(2 * number), aligned(&memory)))
        .collect()
}

#[track_caller]
fn assert_read(subject: &Subject, all: Vec<Finished>, bytes: &[u8]) {
    assert_eq!(all.len(), transfers(subject));
    for (number, finished) in all.into_iter().enumerate() {
        finished.result.unwrap();
        let at = 2 * number * subject.block();
        assert_same(&finished.buffer, &bytes[at..at + subject.block()], "read by a long ticket");
    }
}

fn fill_all(subject: &Subject, seed: u64) -> Vec<u8> {
    let bytes = pattern(seed, 2 * transfers(subject) * subject.block());
    fill(&subject.dispatcher(), 0, &bytes);
    bytes
}

pub(crate) fn a_long_ticket_completes_without_calls(subject: &Subject) {
    let device = subject.dispatcher_with(DEPTH, 4);
    let bytes = fill_all(subject, 680);
    let event = WakeFd::new().unwrap();
    let mut ticket = device.batched_read(owned_reads(subject)).unwrap();
    let waker = event.waker();
    let all = match Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)) {
        Poll::Ready(all) => all,
        Poll::Pending => {
            assert!(is_readable(event.as_fd(), SOON), "a long ticket makes no progress by itself");
            ticket.try_wait().expect("its waker was used")
        }
    };
    assert_read(subject, all, &bytes);
}

pub(crate) fn a_long_batch_hands_its_first_reads_over_first(subject: &Subject) {
    let device = subject.dispatcher_with(DEPTH, 4);
    let bytes = fill_all(subject, 683);
    let block = subject.block();
    let mut found = vec![vec![0xEE; block]; transfers(subject)];
    let mut batch: Vec<_> = (0..)
        .zip(&mut found)
        .map(|(number, found)| ReadAt::new(subject.at(2 * number), found))
        .collect();
    let before = subject.stats().read_bytes;
    let mut calls = 0;
    device.read_buffers_with(&mut batch, |number, read| {
        let [found] = read.unwrap();
        let at = 2 * number * block;
        assert_same(found, &bytes[at..at + block], "handed over");
        let waiting = subject.stats().read_bytes - before - calls * block as u64;
        assert!(waiting <= queueful(subject), "{waiting} bytes were read and not handed over");
        calls += 1;
    });
    assert_eq!(calls as usize, transfers(subject));
}

//! Batches that own their buffers and run while their caller does something else.

use std::mem;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_holds, fill};
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, assert_same, pattern};
use crate::conformance::queue::waking::is_readable;
use crate::{Dispatcher, Error, ErrorKind, Finished, OwnedTransfer, Ticket, WakeFd};

/// Patience with a device.
const SOON: Duration = Duration::from_secs(60);
/// Transfers of a batch; more than a queue of depth 2 holds.
const TRANSFERS: usize = 9;

/// Every other block, so that nothing is merged.
fn batch(subject: &Subject, bytes: &[u8]) -> Vec<OwnedTransfer> {
    let transfer =
        |(number, part): (usize, &[u8])| OwnedTransfer::new(subject.at(2 * number), aligned(part));
    bytes.chunks(subject.block()).enumerate().map(transfer).collect()
}

fn bytes(subject: &Subject, seed: u64) -> Vec<u8> {
    pattern(seed, TRANSFERS * subject.block())
}

fn start_write(subject: &Subject, device: &Dispatcher, bytes: &[u8]) -> Ticket {
    device.batched_write(batch(subject, bytes)).unwrap()
}

/// Asserts that a write of `bytes` ended well, and gave its buffers back in order.
#[track_caller]
fn assert_written(subject: &Subject, device: &Dispatcher, all: Vec<Finished>, bytes: &[u8]) {
    assert_eq!(all.len(), TRANSFERS);
    for (number, (finished, part)) in all.into_iter().zip(bytes.chunks(subject.block())).enumerate()
    {
        finished.result.unwrap();
        assert_same(&finished.buffer, part, "the buffer of a write");
        assert_holds(device, subject.at(2 * number), part, "written by a ticket");
    }
}

pub(crate) fn waiting_for_a_ticket_gives_buffers_and_results(subject: &Subject) {
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        let bytes = bytes(subject, 600);
        let ticket = start_write(subject, &device, &bytes);
        assert_written(subject, &device, ticket.wait(), &bytes);

        let mut reads = batch(subject, &bytes);
        for read in &mut reads {
            read.buffer.as_mut_slice().unwrap().fill(0xEE);
        }
        let all = device.batched_read(reads).unwrap().wait();
        assert_written(subject, &device, all, &bytes);
    }
}

pub(crate) fn trying_often_enough_finishes_a_ticket(subject: &Subject) {
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        let bytes = bytes(subject, 601);
        let mut ticket = start_write(subject, &device, &bytes);
        let started = Instant::now();
        let all = loop {
            if let Some(all) = ticket.try_wait() {
                break all;
            }
            assert!(started.elapsed() < SOON, "it makes no progress");
            thread::yield_now();
        };
        assert!(ticket.try_wait().is_none(), "the results were given already");
        assert!(ticket.wait().is_empty(), "the results were given already");
        assert_written(subject, &device, all, &bytes);
    }
}

pub(crate) fn waiting_until_a_deadline_keeps_the_ticket(subject: &Subject) {
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        let bytes = bytes(subject, 602);
        let mut ticket = start_write(subject, &device, &bytes);
        let early = ticket.wait_deadline(Instant::now());
        let all = early.or_else(|| ticket.wait_deadline(Instant::now() + SOON)).unwrap();
        assert!(ticket.wait_deadline(Instant::now()).is_none(), "the results were given already");
        assert_written(subject, &device, all, &bytes);
    }
}

/// Waits until no batch of a ticket is in flight.
#[track_caller]
pub(super) fn wait_for_all(device: &Dispatcher) {
    let started = Instant::now();
    while device.stats().tickets_in_flight > 0 {
        assert!(started.elapsed() < SOON, "a batch without a ticket does not end");
        thread::yield_now();
    }
}

pub(crate) fn one_descriptor_wakes_for_any_ticket(subject: &Subject) {
    let event = WakeFd::new().unwrap();
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        for round in 0..20 {
            let bytes = bytes(subject, 603 + round);
            let write = start_write(subject, &device, &bytes);
            let empty = device.batched_read(Vec::new()).unwrap();
            let far = OwnedTransfer::new(subject.at(100), aligned(&pattern(0, subject.block())));
            let read = device.batched_read(vec![far]).unwrap();
            let mut left = vec![(TRANSFERS, write), (0, empty), (1, read)];
            while !left.is_empty() {
                let _ = event.clear();
                let waker = event.waker();
                let mut context = Context::from_waker(&waker);
                left.retain_mut(|(transfers, ticket)| match Pin::new(ticket).poll(&mut context) {
                    Poll::Pending => true,
                    Poll::Ready(all) if *transfers == TRANSFERS => {
                        assert_written(subject, &device, all, &bytes);
                        false
                    }
                    Poll::Ready(all) => {
                        assert_eq!(all.len(), *transfers);
                        false
                    }
                });
                let readable = left.is_empty() || is_readable(event.as_fd(), 10_000);
                assert!(readable, "a ticket has not completed, and nothing will wake its caller");
            }
        }
    }
}

pub(crate) fn dropping_a_ticket_finishes_its_batch(subject: &Subject) {
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        let bytes = bytes(subject, 630);
        drop(start_write(subject, &device, &bytes));
        wait_for_all(&device);
        for (number, part) in bytes.chunks(subject.block()).enumerate() {
            assert_holds(&device, subject.at(2 * number), part, "written by a dropped ticket");
        }
    }
}

pub(crate) fn forgetting_a_ticket_finishes_its_batch(subject: &Subject) {
    let device = subject.dispatcher_with(16, 3);
    for round in 0..3 {
        let bytes = bytes(subject, 650 + round);
        mem::forget(start_write(subject, &device, &bytes));
        wait_for_all(&device);
        for (number, part) in bytes.chunks(subject.block()).enumerate() {
            assert_holds(&device, subject.at(2 * number), part, "written by a forgotten ticket");
        }
    }
}

pub(crate) fn any_number_of_tickets_share_a_queue(subject: &Subject) {
    let device = subject.dispatcher_with(2, 1);
    let bytes = bytes(subject, 652);
    let read = |number| {
        let at = number % TRANSFERS;
        let buffer = aligned(&vec![0xEE; subject.block()]);
        device.batched_read(vec![OwnedTransfer::new(subject.at(2 * at), buffer)]).unwrap()
    };
    assert_written(subject, &device, start_write(subject, &device, &bytes).wait(), &bytes);
    let tickets: Vec<_> = (0..200).map(read).collect();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let Finished { buffer, result, .. } = ticket.wait().remove(0);
        result.unwrap();
        let at = number % TRANSFERS * subject.block();
        assert_same(&buffer, &bytes[at..at + subject.block()], "read by one of many tickets");
    }
    assert_eq!(device.stats().tickets_in_flight, 0);
}

pub(crate) fn a_ticket_can_be_waited_for_on_another_thread(subject: &Subject) {
    let device = subject.dispatcher_with(2, 4);
    for round in 0..10 {
        let bytes = bytes(subject, 631 + round);
        // Started on a thread that ends, waited for on another one.
        let ticket = thread::scope(|scope| {
            scope.spawn(|| start_write(subject, &device, &bytes)).join().unwrap()
        });
        let all = thread::spawn(move || ticket.wait()).join().unwrap();
        assert_written(subject, &device, all, &bytes);
    }
}

pub(crate) fn tickets_are_numbered(subject: &Subject) {
    let device = subject.dispatcher();
    let mut ids: Vec<_> = (0..5).map(|_| device.batched_write(Vec::new()).unwrap().id()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted());
}

pub(crate) fn each_transfer_of_a_ticket_has_its_own_result(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let before = pattern(653, 6 * block);
    fill(&device, 0, &before);
    let end = subject.at(subject.blocks());
    let buffer = || aligned(&pattern(654, 2 * block));
    let full = block as u64;
    // With any byte range allowed, the same transfer overlaps the first.
    let odd = if subject.alignment() > 1 { ErrorKind::Misaligned } else { ErrorKind::Overlap };
    // Offset, payload and total length.
    let transfers = [
        (0, 2 * block, 2 * full, None),
        (1, block, full, Some(odd)),
        (0, 2 * block + 1, 4 * full, Some(ErrorKind::InvalidInput)),
        (0, usize::MAX, u64::MAX, Some(ErrorKind::InvalidInput)),
        (0, block, 0, Some(ErrorKind::InvalidInput)),
        (end, block, full, Some(ErrorKind::OutOfRange)),
        (subject.at(3), 5, full, None),
        (subject.at(4), 0, full, None),
    ];
    let batch = transfers.map(|(offset, payload_len, total_len, _)| {
        OwnedTransfer::new(offset, buffer()).with_payload_len(payload_len).padded_to(total_len)
    });
    let all = device.batched_write(batch.into()).unwrap().wait();
    for (number, (finished, expected)) in all.iter().zip(transfers).enumerate() {
        let kind = finished.result.as_ref().err().map(Error::kind);
        assert_eq!(kind, expected.3, "transfer {number}");
        assert_same(&finished.buffer, &buffer(), "a buffer that came back");
    }
    let mut expected = before;
    expected[..2 * block].copy_from_slice(&buffer());
    expected[3 * block..5 * block].fill(0);
    expected[3 * block..3 * block + 5].copy_from_slice(&buffer()[..5]);
    assert_holds(&device, 0, &expected, "after a mixed batch");

    let read = OwnedTransfer::new(0, aligned(&vec![0xEE; 2 * block]))
        .with_payload_len(block + 1)
        .padded_to(2 * full);
    let mut all = device.batched_read(vec![read]).unwrap().wait();
    let Finished { buffer, result, .. } = all.remove(0);
    result.unwrap();
    assert_same(&buffer[..=block], &expected[..=block], "the payload");
    assert!(buffer[block + 1..].iter().all(|&byte| byte == 0xEE), "bytes after it changed");
}

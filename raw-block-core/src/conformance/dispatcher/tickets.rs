//! Batches that own their buffers and run while their caller does something else.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_holds, fill};
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, assert_same, pattern};
use crate::conformance::queue::waking::is_readable;
use crate::{Dispatcher, Error, ErrorKind, Finished, OwnedTransfer, Ticket};

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

pub(crate) fn a_ticket_can_be_driven_by_its_event_fd(subject: &Subject) {
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        for round in 0..20 {
            let bytes = bytes(subject, 603 + round);
            let mut ticket = start_write(subject, &device, &bytes);
            if ticket.event_fd().is_none() {
                return;
            }
            let all = loop {
                if let Some(all) = ticket.try_wait() {
                    break all;
                }
                let fd = ticket.event_fd().expect("the queue is there");
                assert!(is_readable(fd, 10_000), "a ticket is not over, and nothing will wake it");
            };
            assert_written(subject, &device, all, &bytes);
        }
    }
}

pub(crate) fn dropping_a_ticket_finishes_its_batch(subject: &Subject) {
    for queue_depth in [2, 128] {
        let device = subject.dispatcher_with(queue_depth, 4);
        let bytes = bytes(subject, 630);
        drop(start_write(subject, &device, &bytes));
        for (number, part) in bytes.chunks(subject.block()).enumerate() {
            assert_holds(&device, subject.at(2 * number), part, "written by a dropped ticket");
        }
        assert_eq!(device.stats().tickets_out, 0);
    }
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

pub(crate) fn a_forgotten_ticket_is_counted_and_costs_its_queue(subject: &Subject) {
    let device = subject.dispatcher_with(16, 3);
    for forgotten in 1..=2 {
        mem::forget(start_write(subject, &device, &bytes(subject, 650)));
        assert_eq!(device.stats().tickets_out, forgotten);
    }
    let refused = device.batched_write(Vec::new()).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Busy);
    // Blocking calls have their own queue.
    let bytes = pattern(651, subject.block());
    fill(&device, subject.at(1000), &bytes);
    assert_holds(&device, subject.at(1000), &bytes, "next to forgotten tickets");
    assert_eq!(device.stats().tickets_out, 2);
}

pub(crate) fn too_many_tickets_are_refused_and_the_batch_comes_back(subject: &Subject) {
    let device = subject.dispatcher_with(16, 3);
    let bytes = bytes(subject, 652);
    let mut tickets = vec![start_write(subject, &device, &bytes)];
    tickets.push(device.batched_read(batch(subject, &pattern(0, subject.block()))).unwrap());
    assert_eq!(device.stats().tickets_out, 2);

    let refused = device.batched_write(batch(subject, &bytes)).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Busy);
    assert_eq!(refused.batch.len(), TRANSFERS);
    for (number, part) in bytes.chunks(subject.block()).enumerate() {
        assert_eq!(refused.batch[number].offset, subject.at(2 * number));
        assert_same(&refused.batch[number].buffer, part, "a buffer that came back");
    }
    assert_written(subject, &device, tickets.remove(0).wait(), &bytes);
    let ticket = device.batched_write(refused.batch).unwrap();
    assert_written(subject, &device, ticket.wait(), &bytes);
    assert!(tickets.remove(0).wait().into_iter().all(|finished| finished.result.is_ok()));
    assert_eq!(device.stats().tickets_out, 0);
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

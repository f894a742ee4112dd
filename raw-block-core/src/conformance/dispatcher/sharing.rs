//! One dispatcher, many threads.

use std::sync::Arc;
use std::thread;

use super::{assert_holds, fill};
use crate::backend::OpKind;
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, pattern};
use crate::{Dispatcher, Error, ErrorKind, OwnedTransfer, ReadAt, WriteAt};

/// Threads at once; more than queues in one of the statements.
const THREADS: usize = 8;

/// Each thread writes and reads its own blocks.
fn work_on_distinct_ranges(subject: &Subject, device: &Dispatcher) {
    let block = subject.block();
    thread::scope(|scope| {
        for worker in 0..THREADS {
            scope.spawn(move || {
                for round in 0..15 {
                    let bytes = pattern((worker * 1000 + round) as u64, 12 * block);
                    let first = 200 * worker + round;
                    let batch: Vec<_> = bytes
                        .chunks(2 * block)
                        .enumerate()
                        .map(|(number, part)| WriteAt::new(subject.at(first + 2 * number), part))
                        .collect();
                    device.write_buffers(&batch).all().unwrap();
                    assert_holds(device, subject.at(first), &bytes, "of one thread");
                }
            });
        }
    });
}

pub(crate) fn threads_share_a_dispatcher(subject: &Subject) {
    work_on_distinct_ranges(subject, &subject.dispatcher());
}

pub(crate) fn more_threads_than_queues_take_turns(subject: &Subject) {
    work_on_distinct_ranges(subject, &subject.dispatcher_with(4, 3));
    work_on_distinct_ranges(subject, &subject.dispatcher_with(128, 1));
}

pub(crate) fn two_dispatchers_share_a_backend(subject: &Subject) {
    let (one, other) = (subject.dispatcher(), subject.dispatcher_with(2, 2));
    let bytes = pattern(500, 6 * subject.block());
    fill(&one, 0, &bytes);
    assert_holds(&other, 0, &bytes, "written by the other dispatcher");
    work_on_distinct_ranges(subject, &one);
}

pub(crate) fn two_dispatchers_share_flushes(subject: &Subject) {
    const ROUNDS: u64 = 5;
    let dispatchers = [subject.dispatcher(), subject.dispatcher()];
    let before = subject.stats();
    thread::scope(|scope| {
        for worker in 0..THREADS {
            let device = &dispatchers[worker % 2];
            scope.spawn(move || {
                let bytes = pattern(510 + worker as u64, subject.block());
                for _ in 0..ROUNDS {
                    fill(device, subject.at(worker), &bytes);
                    device.flush().unwrap();
                }
            });
        }
    });
    let after = subject.stats();
    let calls = THREADS as u64 * ROUNDS;
    assert_eq!(after.flush_calls - before.flush_calls, calls, "the backend has one state");
    let flushes = after.flushes - before.flushes;
    assert!((ROUNDS..=calls).contains(&flushes), "{flushes} flushes for {calls} calls");
}

pub(crate) fn two_dispatchers_share_stopped_writes(subject: &Subject) {
    let [one, other] = [subject.dispatcher(), subject.dispatcher_with(2, 2)];
    let bytes = pattern(520, subject.block());
    fill(&one, 0, &bytes);
    let failure = Error::new(ErrorKind::Io, "write", "as the suite says");
    subject.backend.flush_state().stop_writes(&failure);
    for device in [&one, &other, &subject.dispatcher()] {
        let refused = [
            device.write_buffers(&[WriteAt::new(0, &bytes)]).all(),
            device.flush(),
            device.check_accepted(OpKind::Discard),
        ];
        for result in refused {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WritesStopped);
        }
        assert_holds(device, 0, &bytes, "reads are served");
    }
}

pub(crate) fn a_read_in_parts_may_call_the_dispatcher(subject: &Subject) {
    let block = subject.block();
    let bytes = pattern(530, 2 * block);
    for max_queues in [1, 2] {
        let device = subject.dispatcher_with(4, max_queues);
        fill(&device, 0, &bytes);
        let mut found = vec![0; 2 * block];
        let (first, second) = found.split_at_mut(block);
        let mut reads = [ReadAt::new(0, first), ReadAt::new(subject.at(1), second)];
        device.read_buffers_with(&mut reads, |number, read| {
            let [part] = read.unwrap();
            fill(&device, subject.at(10 + number), part);
            device.flush().unwrap();
            assert_holds(&device, subject.at(10 + number), part, "copied while it is read");
        });
        assert_holds(&device, subject.at(10), &bytes, "copied while it is read");
    }
}

pub(crate) fn threads_that_end_leave_their_queues_to_others(subject: &Subject) {
    let device = subject.dispatcher_with(4, 2);
    let bytes = pattern(540, subject.block());
    for number in 0..50 {
        let use_device = || {
            fill(&device, subject.at(number), &bytes);
            assert_holds(&device, subject.at(number), &bytes, "of a thread that ends");
        };
        thread::scope(|scope| scope.spawn(use_device).join().unwrap());
    }
    fill(&device, 0, &bytes);
}

pub(crate) fn blocking_calls_work_while_tickets_are_out(subject: &Subject) {
    let device = subject.dispatcher_with(16, 3);
    let block = subject.block();
    let bytes = pattern(501, 2 * block);
    let tickets: Vec<_> = bytes
        .chunks(block)
        .enumerate()
        .map(|(number, part)| {
            let transfer = OwnedTransfer::new(subject.at(1000 + number), aligned(part));
            device.batched_write(vec![transfer]).unwrap()
        })
        .collect();
    thread::scope(|scope| {
        for worker in 0..4 {
            let device = &device;
            scope.spawn(move || {
                let bytes = pattern(502 + worker as u64, block);
                for round in 0..10 {
                    let place = subject.at(10 * worker + round);
                    fill(device, place, &bytes);
                    assert_holds(device, place, &bytes, "while tickets are in flight");
                }
                device.flush().unwrap();
            });
        }
    });
    for ticket in tickets {
        assert!(ticket.wait().into_iter().all(|finished| finished.result.is_ok()));
    }
    assert_holds(&device, subject.at(1000), &bytes, "of the tickets");
}

pub(crate) fn a_ticket_outlives_its_dispatcher(subject: &Subject) {
    let device = subject.dispatcher();
    let bytes = pattern(503, 3 * subject.block());
    let batch = vec![OwnedTransfer::new(subject.at(1), aligned(&bytes))];
    let ticket = device.batched_write(batch).unwrap();
    let references = Arc::strong_count(&subject.backend);
    drop(device);
    assert!(ticket.wait().into_iter().all(|finished| finished.result.is_ok()));
    assert!(Arc::strong_count(&subject.backend) < references, "something still holds the backend");
    assert_holds(&subject.dispatcher(), subject.at(1), &bytes, "of the ticket");
}

//! A caller that works while its batch is written.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use super::{assert_holds, fill, kinds};
use crate::conformance::Subject;
use crate::conformance::bytes::pattern;
use crate::conformance::queue::waking::SOON;
use crate::{ErrorKind, ReadAt, WriteAt};

/// Writes of one block each, at every other block from block `first` on.
fn apart<'a>(subject: &Subject, first: usize, bytes: &'a [u8]) -> Vec<WriteAt<'a>> {
    let parts = bytes.chunks(subject.block()).enumerate();
    parts.map(|(number, part)| WriteAt::new(subject.at(first + 2 * number), part)).collect()
}

/// Asserts that those writes took place.
#[track_caller]
fn assert_apart(subject: &Subject, first: usize, bytes: &[u8]) {
    let device = subject.dispatcher();
    for (number, part) in bytes.chunks(subject.block()).enumerate() {
        assert_holds(&device, subject.at(first + 2 * number), part, "written during work");
    }
}

pub(crate) fn work_is_called_once_whatever_becomes_of_its_batch(subject: &Subject) {
    let device = subject.dispatcher_with(2, 2);
    let block = subject.block();
    for transfers in [0, 1, 2, 50] {
        let bytes = pattern(700 + transfers as u64, transfers * block);
        let mut calls = 0;
        let (written, answer) = device.write_buffers_while(&apart(subject, 0, &bytes), || {
            calls += 1;
            transfers + 1
        });
        assert_eq!((written.len(), answer, calls), (transfers, transfers + 1, 1));
        written.all().unwrap();
        assert_apart(subject, 0, &bytes);
    }
    let bytes = pattern(710, block);
    let end = subject.at(subject.blocks());
    let batch = [WriteAt::new(end, &bytes), WriteAt::new(0, &bytes)];
    let (written, called) = device.write_buffers_while(&batch, || true);
    assert_eq!(kinds(&written), [Some(ErrorKind::OutOfRange), None]);
    assert!(called);
    assert_apart(subject, 0, &bytes);
}

pub(crate) fn a_batch_is_written_while_its_caller_works(subject: &Subject) {
    let device = subject.dispatcher_with(8, 2);
    let block = subject.block();
    let bytes = pattern(720, 4 * block);
    // Other queues may carry ops out only when they are reaped.
    let starts = subject.queue(8).event_fd().is_some();
    let (written, seen) = device.write_buffers_while(&apart(subject, 3, &bytes), || {
        let deadline = Instant::now() + Duration::from_millis(SOON.into());
        bytes.chunks(block).enumerate().all(|(number, part)| {
            let mut found = vec![0; block];
            while starts && found != part && Instant::now() < deadline {
                let place = subject.at(3 + 2 * number);
                device.read_buffers(&mut [ReadAt::new(place, &mut found)]).all().unwrap();
            }
            !starts || found == part
        })
    });
    written.all().unwrap();
    assert!(seen, "nothing was written before its caller waited");
    assert_apart(subject, 3, &bytes);
}

pub(crate) fn work_during_writes_may_call_the_dispatcher(subject: &Subject) {
    let block = subject.block();
    let bytes = pattern(730, 6 * block);
    for max_queues in [1, 2] {
        let device = subject.dispatcher_with(2, max_queues);
        let (outer, inner) = bytes.split_at(3 * block);
        let (written, nested) = device.write_buffers_while(&apart(subject, 0, outer), || {
            let (written, ()) =
                device.write_buffers_while(&apart(subject, 20, inner), || device.flush().unwrap());
            written.all().unwrap();
            assert_apart(subject, 20, inner);
            fill(&device, subject.at(40), inner);
            assert_holds(&device, subject.at(40), inner, "written by the work");
            true
        });
        written.all().unwrap();
        assert!(nested);
        assert_apart(subject, 0, outer);
    }
}

pub(crate) fn a_panic_of_work_leaves_no_write_in_flight(subject: &Subject) {
    let device = subject.dispatcher_with(4, 2);
    let block = subject.block();
    for round in 0..20 {
        let mut bytes = pattern(740 + round, 30 * block);
        let batch = apart(subject, 0, &bytes);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            // Unlike `panic!`, this prints nothing.
            let panic = || resume_unwind(Box::new("as the suite says"));
            device.write_buffers_while(&batch, || -> () { panic() })
        }));
        assert!(panicked.is_err());
        // The memory is the caller's again, and nothing of it is written over what comes later.
        bytes.fill(0xEE);
        let newer = pattern(760 + round, 30 * block);
        device.write_buffers(&apart(subject, 0, &newer)).all().unwrap();
        assert_apart(subject, 0, &newer);
    }
}

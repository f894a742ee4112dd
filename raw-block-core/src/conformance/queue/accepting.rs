//! Accepting ops: how many, in which order, and each once.

use crate::backend::OpKind;
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, pattern};
use crate::conformance::driver::Driver;

/// Lines up `count` reads of one block each.
fn line_up_reads(subject: &Subject, driver: &mut Driver, count: usize) {
    for number in 0..count {
        driver.read(subject.at(number % subject.blocks()), subject.block());
    }
}

pub(crate) fn every_accepted_op_completes_once_and_comes_back_as_itself(subject: &Subject) {
    let mut driver = Driver::open(subject, 16);
    let ops: Vec<_> = (0..60)
        .map(|number| match number % 3 {
            0 => driver.write(subject.at(number), &pattern(1, subject.block())),
            1 => driver.read(subject.at(number), subject.block()),
            _ => driver.bare(OpKind::Flush, 0, 0),
        })
        .collect();
    driver.run();
    // The driver checked each completion; what is left is that none is missing, and none comes
    // late.
    assert_eq!(driver.reap(1, None), 0, "an op ended twice");
    for op in ops {
        driver.take(op);
    }
}

pub(crate) fn a_queue_accepts_from_the_front_until_it_is_full(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    let depth = driver.queue.depth();
    line_up_reads(subject, &mut driver, 3 * depth + 1);
    assert_eq!(driver.submit(), depth, "a queue accepts as many ops as its depth");
    assert_eq!(driver.submit(), 0, "a full queue accepts nothing");
    driver.run();
}

pub(crate) fn a_reaped_op_leaves_its_place_to_the_next(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    let depth = driver.queue.depth();
    line_up_reads(subject, &mut driver, 4 * depth);
    driver.submit();
    while driver.waiting() > 0 {
        let reaped = driver.reap(1, None);
        let expected = reaped.min(driver.waiting());
        assert_eq!(driver.submit(), expected, "{reaped} ops were reaped");
    }
    driver.run();
}

pub(crate) fn a_batch_larger_than_the_queue_can_be_pumped_to_its_end(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    let block = subject.block();
    let count = (10 * driver.queue.depth() + 3).min(subject.blocks());
    let bytes = pattern(2, count * block);
    for (number, block) in bytes.chunks(block).enumerate() {
        driver.write(subject.at(number), block);
    }
    driver.run();
    let reads: Vec<_> = (0..count).map(|n| driver.read(subject.at(n), block)).collect();
    driver.run();
    let found: Vec<_> = reads.into_iter().flat_map(|read| driver.take(read).to_vec()).collect();
    assert!(found == bytes, "a batch of {count} ops lost bytes");
}

pub(crate) fn a_queue_of_depth_one_works(subject: &Subject) {
    let mut driver = Driver::open(subject, 1);
    let bytes = pattern(3, subject.block());
    for number in 0..8 {
        driver.write(subject.at(number), &bytes);
    }
    driver.run();
    assert!(*driver.read_now(subject.at(7), bytes.len()) == bytes[..]);
}

pub(crate) fn submitting_nothing_changes_nothing(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    assert_eq!(driver.submit(), 0);
    driver.read(0, subject.block());
    driver.submit();
    assert_eq!(driver.submit(), 0);
    assert_eq!(driver.queue.in_flight(), 1);
    driver.run();
}

pub(crate) fn in_flight_counts_what_was_accepted_and_not_reaped(subject: &Subject) {
    let mut driver = Driver::open(subject, 8);
    assert_eq!(driver.queue.in_flight(), 0);
    line_up_reads(subject, &mut driver, 5);
    assert_eq!(driver.queue.in_flight(), 0, "nothing was submitted yet");
    driver.submit();
    assert_eq!(driver.queue.in_flight(), 5);
    let reaped = driver.reap(2, None);
    assert_eq!(driver.queue.in_flight(), 5 - reaped);
    driver.reap(5, None);
    assert_eq!(driver.queue.in_flight(), 0);
}

pub(crate) fn ops_of_all_kinds_share_a_queue(subject: &Subject) {
    let mut driver = Driver::open(subject, 32);
    let block = subject.block();
    let bytes = pattern(4, block);
    driver.write(subject.at(1), &bytes);
    driver.run();

    let read = driver.read(subject.at(1), block);
    for number in 2..10 {
        driver.add_with_memory(
            OpKind::Write,
            subject.at(number),
            aligned(&bytes),
            std::slice::from_ref(&(0..block)),
        );
        driver.bare(OpKind::Flush, 0, 0);
        driver.read(subject.at(number + 10), block);
    }
    driver.run();
    assert!(*driver.take(read) == bytes[..]);
    assert!(*driver.read_now(subject.at(9), block) == bytes[..]);
}

//! Transfers: the right bytes, all of them, and no others.

use std::ops::Range;

use crate::ErrorKind;
use crate::backend::OpKind;
use crate::conformance::bytes::{aligned, assert_same, pattern};
use crate::conformance::driver::Driver;
use crate::conformance::{Skipped, Subject};

/// More than the 1024 segments that one system call takes.
const MANY_SEGMENTS: usize = 1024 + 13;

/// `count` segments of one block each, in memory as the device wants it, and their buffer's length.
/// In the order of the device they lie backwards, so that no two are neighbours.
fn scattered(subject: &Subject, count: usize) -> (Vec<Range<usize>>, usize) {
    let block = subject.block();
    let stride = block.max(subject.geometry().memory_alignment as usize);
    let parts = (0..count).rev().map(|number| number * stride..number * stride + block);
    (parts.collect(), count * stride)
}

fn write_and_read_scattered(subject: &Subject, count: usize) {
    let mut driver = Driver::open(subject, 4);
    let block = subject.block();
    let (parts, len) = scattered(subject, count);
    let bytes = pattern(10, count * block);

    let mut buffer = aligned(&vec![0; len]);
    for (part, block) in parts.iter().zip(bytes.chunks(block)) {
        buffer[part.clone()].copy_from_slice(block);
    }
    driver.add_with_memory(OpKind::Write, subject.at(1), buffer, &parts);
    driver.run();
    let found = driver.read_now(subject.at(1), bytes.len());
    assert_same(&found, &bytes, "written from segments");

    let buffer = aligned(&vec![0xEE; len]);
    let read = driver.add_with_memory(OpKind::Read, subject.at(1), buffer, &parts);
    driver.run();
    let buffer = driver.take(read);
    let found: Vec<_> = parts.into_iter().flat_map(|part| buffer[part].to_vec()).collect();
    assert_same(&found, &bytes, "read into segments");
}

pub(crate) fn a_read_returns_what_was_written(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    for (seed, blocks) in [(11, 1), (12, 3), (13, 16), (14, 1)] {
        let bytes = pattern(seed, blocks * subject.block());
        driver.write(subject.at(5), &bytes);
        driver.run();
        assert_same(&driver.read_now(subject.at(5), bytes.len()), &bytes, "read back");
    }
}

pub(crate) fn a_write_touches_nothing_but_its_range(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    let block = subject.block();
    let mut expected = pattern(15, 9 * block);
    driver.write(subject.at(0), &expected);
    driver.run();
    let bytes = pattern(16, 2 * block);
    driver.write(subject.at(4), &bytes);
    driver.run();
    expected[4 * block..6 * block].copy_from_slice(&bytes);
    assert_same(&driver.read_now(subject.at(0), expected.len()), &expected, "with neighbours");
}

pub(crate) fn a_transfer_may_have_several_segments(subject: &Subject) {
    for count in [2, 3, 17] {
        write_and_read_scattered(subject, count);
    }
}

pub(crate) fn a_transfer_may_have_more_segments_than_one_system_call_takes(subject: &Subject) {
    write_and_read_scattered(subject, MANY_SEGMENTS);
}

pub(crate) fn a_transfer_may_be_longer_than_the_device_takes_at_once(subject: &Subject) {
    let block = subject.block();
    let len = usize::try_from(subject.geometry().max_transfer).unwrap_or(usize::MAX);
    let blocks = (2 * (len.min(4 << 20) / block) + 1).min(subject.blocks() - 1);
    let bytes = pattern(17, blocks * block);
    let mut driver = Driver::open(subject, 4);
    driver.write(subject.at(1), &bytes);
    driver.run();
    assert_same(&driver.read_now(subject.at(1), bytes.len()), &bytes, "a long transfer");
}

pub(crate) fn the_last_block_can_be_written_and_read(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    let last = subject.at(subject.blocks() - 1);
    let bytes = pattern(18, subject.block());
    driver.write(last, &bytes);
    driver.run();
    assert_same(&driver.read_now(last, bytes.len()), &bytes, "the last block");
}

pub(crate) fn many_transfers_at_once_do_not_mix_their_bytes(subject: &Subject) {
    let mut driver = Driver::open(subject, 64);
    let block = subject.block();
    // Far apart and near, not in ascending order.
    let places: Vec<_> = (0..200).map(|number| (number * 89 + 7) % 512 * 3).collect();
    for (seed, &place) in (100..).zip(&places) {
        driver.write(subject.at(place), &pattern(seed, block));
    }
    driver.run();
    let reads: Vec<_> = places.iter().map(|&p| driver.read(subject.at(p), block)).collect();
    driver.run();
    for (seed, read) in (100..).zip(reads) {
        assert_same(&driver.take(read), &pattern(seed, block), "one of many");
    }
}

pub(crate) fn a_flush_completes(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    driver.bare(OpKind::Flush, 0, 0);
    driver.run();
    let bytes = pattern(19, subject.block());
    driver.write(subject.at(2), &bytes);
    driver.run();
    driver.bare(OpKind::Flush, 0, 0);
    driver.bare(OpKind::Flush, 0, 0);
    driver.run();
    assert_same(&driver.read_now(subject.at(2), bytes.len()), &bytes, "after a flush");
}

pub(crate) fn two_queues_see_each_others_completed_writes(subject: &Subject) {
    let mut queues = [Driver::open(subject, 4), Driver::open(subject, 4)];
    for round in 0..10 {
        let bytes = pattern(20 + round, 2 * subject.block());
        let [writer, reader] = &mut queues;
        writer.write(subject.at(3), &bytes);
        writer.run();
        let found = reader.read_now(subject.at(3), bytes.len());
        assert_same(&found, &bytes, "written on the other queue");
        queues.reverse();
    }
}

pub(crate) fn zeroes_are_written_where_asked_and_nowhere_else(subject: &Subject) {
    if !subject.geometry().write_zeroes {
        return Skipped::because("the device has no write-zeroes").report();
    }
    erase(subject, OpKind::WriteZeroes);
}

pub(crate) fn a_discard_leaves_its_neighbours_alone(subject: &Subject) {
    if !subject.geometry().discard {
        return Skipped::because("the device has no discard").report();
    }
    erase(subject, OpKind::Discard);
}

/// Erases 70 of 100 blocks.
fn erase(subject: &Subject, kind: OpKind) {
    let block = subject.block();
    let mut driver = Driver::open(subject, 4);
    let mut expected = pattern(40, 100 * block);
    driver.write(subject.at(7), &expected);
    driver.run();

    driver.bare(kind, subject.at(17), 70 * block as u64);
    driver.submit();
    let [(_, result)] = &driver.reap_results(1, None)[..] else { panic!("one op was in flight") };
    let erased = 10 * block..80 * block;
    let mut found = driver.read_now(subject.at(7), expected.len());
    match result {
        Ok(()) if kind == OpKind::WriteZeroes => expected[erased].fill(0),
        // What is in a discarded range is not said.
        Ok(()) => {
            expected[erased.clone()].fill(0);
            found[erased].fill(0);
        }
        // Of some file systems that is known only when they were asked; then nothing has changed.
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            Skipped::because(error).report();
        }
        Err(error) => panic!("{error}"),
    }
    assert_same(&found, &expected, kind.name());
}

//! A kernel that merges neighbours fails them together. Each transfer gets its own result all the
//! same.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::time::Instant;

use fakes::{Behaviour, device, kinds, os_error, within_seconds};
use raw_block_core::backend::{Completion, IoQueue, Op};
use raw_block_core::{Dispatcher, ErrorKind, ReadAt, WriteAt};

const EIO: i32 = 5;

/// Merges ops that are submitted together and are neighbours: if one of them has a bad byte, all
/// fail.
struct Merging {
    bad: Vec<u64>,
    failed: Vec<Completion>,
}

impl Behaviour for Merging {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let mut ops = Vec::from_iter(ops.drain(..));
        ops.sort_by_key(Op::offset);
        let ends = |op: &Op| op.offset() + op.len();
        let mut is_bad: Vec<bool> = Vec::new();
        for merged in ops.chunk_by(|one, next| ends(one) == next.offset()) {
            let range = merged[0].offset()..ends(&merged[merged.len() - 1]);
            is_bad.extend(merged.iter().map(|_| self.bad.iter().any(|at| range.contains(at))));
        }
        let (mut good, mut is_bad) = (VecDeque::new(), is_bad.into_iter());
        for op in ops {
            if is_bad.next().unwrap() {
                let error = os_error(&op, EIO);
                self.failed.push(op.fail_with(error));
            } else {
                good.push_back(op);
            }
        }
        honest.submit(&mut good);
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        done.append(&mut self.failed);
        honest.reap(min, deadline, done);
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight() + self.failed.len()
    }
}

/// A device with a bad byte in each of these transfers of that length.
fn bad_transfers(bad: &[u64], len: usize) -> Dispatcher {
    let bad: Vec<u64> = bad.iter().map(|number| number * len as u64 + 1000).collect();
    device(move |_| Ok(Box::new(Merging { bad: bad.clone(), failed: Vec::new() })))
}

/// Writes and reads this many neighbours, of which these are bad.
fn check(bad: &[u64], count: u8, len: usize) {
    let device = bad_transfers(bad, len);
    let expected: Vec<_> =
        (0..count.into()).map(|number| bad.contains(&number).then_some(ErrorKind::Io)).collect();
    let bytes: Vec<_> = (0..count).map(|number| vec![number + 1; len]).collect();
    let writes: Vec<_> =
        (0..).zip(&bytes).map(|(n, bytes)| WriteAt::new(n * len as u64, bytes)).collect();
    assert_eq!(kinds(&*device.write_buffers(&writes)), expected, "writes, {bad:?}");
    let mut found = vec![vec![0; len]; count.into()];
    let mut reads: Vec<_> =
        (0..).zip(&mut found).map(|(n, found)| ReadAt::new(n * len as u64, found)).collect();
    assert_eq!(kinds(&*device.read_buffers(&mut reads)), expected, "reads, {bad:?}");
    for ((found, bytes), expected) in found.iter().zip(&bytes).zip(&expected) {
        assert!(expected.is_some() || found == bytes);
    }
}

#[test]
fn parts_of_a_merged_op_are_not_merged_again() {
    let bad: [&[u64]; 4] = [&[3], &[0], &[15], &[3, 4, 10]];
    within_seconds(move || bad.iter().for_each(|bad| check(bad, 16, 32 << 10)));
}

#[test]
fn neighbours_that_fail_as_separate_ops_are_repeated_apart() {
    let bad: [&[u64]; 4] = [&[2], &[0], &[3], &[1, 2]];
    within_seconds(move || bad.iter().for_each(|bad| check(bad, 4, 256 << 10)));
}

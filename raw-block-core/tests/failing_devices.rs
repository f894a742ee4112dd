//! Errors of the device hit the transfers that they belong to, and no others.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fakes::{
    Behaviour, Failing, Gate, Honest, blocks, device, first_queue, kinds, os_error, owned,
    until_no_ticket_is_in_flight, within_seconds, writes,
};
use raw_block_core::backend::{Completion, IoQueue, Op, OpKind};
use raw_block_core::{AlignedBuf, Dispatcher, Error, ErrorKind, OwnedTransfer, ReadAt, WriteAt};

/// Length of each transfer: eight are merged into an op.
const LEN: usize = 32 << 10;
const EIO: i32 = 5;

/// The ranges that a device was asked for.
type Asked = Arc<Mutex<Vec<Range<u64>>>>;

/// A device with a bad byte in the middle of each of these transfers.
fn bad_transfers(numbers: &[u64]) -> (Dispatcher, Asked) {
    let bad: Vec<_> = numbers.iter().map(|number| number * LEN as u64 + 1000).collect();
    let asked = Asked::default();
    let shared = Arc::clone(&asked);
    let device = device(move |_| {
        let (bad, asked) = (bad.clone(), Arc::clone(&shared));
        Ok(Box::new(Failing::new(move |op| {
            let range = op.offset()..op.offset() + op.len();
            let is_bad = bad.iter().any(|at| range.contains(at));
            asked.lock().unwrap().push(range);
            is_bad.then(|| os_error(op, EIO))
        })))
    });
    (device, asked)
}

/// The transfers that a range consists of.
fn transfers(range: &Range<u64>) -> Range<u64> {
    range.start / LEN as u64..range.end / LEN as u64
}

/// Asserts that the transfers of failed merged ops, and only these, were repeated once and alone.
fn assert_repeated_once(asked: &Asked, bad: &[u64], count: u64) {
    let asked: Vec<_> = asked.lock().unwrap().iter().map(transfers).collect();
    let (merged, alone): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|range| range.end - range.start > 1);
    let mut carried: Vec<_> = merged.iter().cloned().flatten().collect();
    carried.sort_unstable();
    assert_eq!(carried, (0..count).collect::<Vec<_>>(), "each transfer is merged, and sent once");
    let failed = merged.into_iter().filter(|range| bad.iter().any(|number| range.contains(number)));
    let mut expected: Vec<_> = failed.flatten().collect();
    let mut repeated: Vec<_> = alone.into_iter().flatten().collect();
    expected.sort_unstable();
    repeated.sort_unstable();
    assert_eq!(repeated, expected, "the parts of what failed are repeated one by one");
}

fn expected_kinds(bad: &[u64], count: u64) -> Vec<Option<ErrorKind>> {
    (0..count).map(|number| bad.contains(&number).then_some(ErrorKind::Io)).collect()
}

#[test]
fn a_bad_block_fails_its_own_write_not_its_merged_neighbours() {
    within_seconds(|| {
        for bad in [&[3][..], &[0], &[31], &[3, 4, 20]] {
            let (device, asked) = bad_transfers(bad);
            let bytes: Vec<_> = (0..32).map(|number| [number + 1; LEN]).collect();
            let batch: Vec<_> =
                (0..).zip(&bytes).map(|(n, bytes)| WriteAt::new(n * LEN as u64, bytes)).collect();
            let results = device.write_buffers(&batch);
            assert_eq!(kinds(&*results), expected_kinds(bad, 32));
            let error = results[usize::try_from(bad[0]).unwrap()].as_ref().unwrap_err();
            let place = (error.offset(), error.length());
            assert_eq!(place, (Some(bad[0] * LEN as u64), Some(LEN as u64)), "its own place");
            assert_repeated_once(&asked, bad, 32);

            let stats = device.stats();
            let asked = asked.lock().unwrap().clone();
            let alone = asked.iter().filter(|range| range.end - range.start == LEN as u64).count();
            assert_eq!(stats.retries, alone as u64);
            assert_eq!(stats.ops, asked.len() as u64);
            assert_eq!(stats.errors(ErrorKind::Io), bad.len() as u64);
            assert_eq!(stats.written_bytes, (32 - bad.len() as u64) * LEN as u64);

            for (number, bytes) in (0..).zip(&bytes).filter(|(number, _)| !bad.contains(number)) {
                let mut found = [0; LEN];
                let read = ReadAt::new(number * LEN as u64, &mut found);
                device.read_buffers(&mut [read]).all().unwrap();
                assert!(found == *bytes, "transfer {number}");
            }
        }
    });
}

#[test]
fn a_bad_block_fails_its_own_read_and_not_its_merged_neighbours() {
    within_seconds(|| {
        let bad = [3, 17];
        let (device, asked) = bad_transfers(&bad);
        let good = (0..32_u8).filter(|number| !bad.contains(&u64::from(*number)));
        for number in good {
            let bytes = [number + 1; LEN];
            let write = WriteAt::new(u64::from(number) * LEN as u64, &bytes);
            device.write_buffers(&[write]).all().unwrap();
        }
        asked.lock().unwrap().clear();

        // Odd lengths, so that every one is staged in part.
        let mut found = vec![[0xEE; LEN]; 32];
        let mut batch: Vec<_> = (0..)
            .zip(&mut found)
            .map(|(n, found)| {
                ReadAt::new(n * LEN as u64, &mut found[..LEN - 5]).padded_to(LEN as u64)
            })
            .collect();
        assert_eq!(kinds(&*device.read_buffers(&mut batch)), expected_kinds(&bad, 32));
        assert_repeated_once(&asked, &bad, 32);
        for (number, found) in (0..32_u8).zip(&found) {
            assert_eq!(found[LEN - 5..], [0xEE; 5], "after transfer {number}");
            if !bad.contains(&u64::from(number)) {
                assert!(
                    found[..LEN - 5].iter().all(|&byte| byte == number + 1),
                    "transfer {number}"
                );
            }
        }
    });
}

#[test]
fn a_bad_block_fails_its_own_part_of_a_ticket() {
    within_seconds(|| {
        let bad = [5];
        let (device, asked) = bad_transfers(&bad);
        let batch = || -> Vec<_> {
            (0..32)
                .map(|n| OwnedTransfer::new(n * LEN as u64, AlignedBuf::zeroed(LEN).unwrap()))
                .collect()
        };
        let all: Vec<_> = device.batched_write(batch()).unwrap().wait();
        let results: Vec<_> = all.into_iter().map(|finished| finished.result).collect();
        assert_eq!(kinds(&results), expected_kinds(&bad, 32));
        assert_repeated_once(&asked, &bad, 32);

        // A dropped ticket repeats as well: a good neighbour of a bad block is written.
        let mut batch = batch();
        batch[4].buffer.as_mut_slice().unwrap().fill(77);
        drop(device.batched_write(batch).unwrap());
        until_no_ticket_is_in_flight(&device);
        let mut found = [0; LEN];
        device.read_buffers(&mut [ReadAt::new(4 * LEN as u64, &mut found)]).all().unwrap();
        assert_eq!(found, [77; LEN]);
    });
}

#[test]
fn a_failed_flush_stops_writes_and_not_reads() {
    within_seconds(|| {
        let fails = |op: &Op| (op.kind() == OpKind::Flush).then(|| os_error(op, EIO));
        let device = device(move |_| Ok(Box::new(Failing::new(fails))));
        let bytes = [7; 512];
        device.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap();
        assert_eq!(device.flush().unwrap_err().kind(), ErrorKind::Io);

        let stopped = Some(ErrorKind::WritesStopped);
        let batch = [WriteAt::new(0, &[8; 512]), WriteAt::new(512, &[8; 512])];
        assert_eq!(kinds(&*device.write_buffers(&batch)), [stopped, stopped]);
        let refused = device.batched_write(owned(&blocks(3))).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::WritesStopped);
        assert_eq!(refused.batch.len(), 3);
        for error in [device.flush(), device.discard(0, 512), device.write_zeroes(0, 512)] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::WritesStopped);
        }

        let mut found = [0; 512];
        device.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
        assert_eq!(found, bytes, "the last write before the flush");
        let all = device.batched_read(owned(&blocks(1))).unwrap().wait();
        assert!(all[0].result.is_ok() && all[0].buffer[..] == bytes);
    });
}

/// Fails what it takes, once the gate is open.
struct FailingAtGate {
    gate: Arc<Gate>,
    held: Vec<Op>,
}

impl Behaviour for FailingAtGate {
    fn submit(&mut self, _: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        self.held.extend(ops.drain(..));
    }

    fn reap(
        &mut self,
        _: &mut dyn IoQueue,
        _: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        self.gate.wait(deadline);
        done.extend(self.held.drain(..).map(|op| op.fail(io::Error::from_raw_os_error(EIO))));
    }

    fn in_flight(&self, _: &dyn IoQueue) -> usize {
        self.held.len()
    }
}

#[test]
fn a_flush_concurrent_with_one_that_fails_does_not_succeed() {
    within_seconds(|| {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        let device =
            first_queue(move || FailingAtGate { gate: Arc::clone(&shared), held: Vec::new() });
        let flush = || kinds(&[device.flush()]);
        thread::scope(|scope| {
            let first = scope.spawn(flush);
            gate.until_someone_waits();
            let others = [(); 3].map(|()| scope.spawn(flush));
            // Those have a queue that does not fail, and the time to use it.
            thread::sleep(Duration::from_millis(50));
            gate.open();
            assert_eq!(first.join().unwrap(), [Some(ErrorKind::Io)]);
            for other in others {
                assert_eq!(other.join().unwrap(), [Some(ErrorKind::WritesStopped)]);
            }
        });
        let written = kinds(&*device.write_buffers(&writes(&blocks(3))));
        assert_eq!(written, [Some(ErrorKind::WritesStopped); 3]);
    });
}

#[test]
fn a_flush_that_gets_no_queue_fails_and_stops_no_writes() {
    within_seconds(|| {
        let scarce = AtomicBool::new(true);
        let device = device(move |_| {
            if scarce.swap(false, Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::OutOfResources, "open a queue", "as scripted"));
            }
            Ok(Box::new(Honest))
        });
        assert_eq!(device.flush().unwrap_err().kind(), ErrorKind::OutOfResources);
        device.write_buffers(&writes(&blocks(3))).all().unwrap();
        device.flush().unwrap();
    });
}

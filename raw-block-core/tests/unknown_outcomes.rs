//! A transfer whose outcome is unknown is reported, and never repeated: it may still take effect.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use fakes::{
    Behaviour, Failing, blocks, device, first_queue, os_error, owned, within_seconds, writes,
};
use raw_block_core::backend::{IoQueue, Op};
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{
    AlignedBuf, Dispatcher, Error, ErrorClass, ErrorKind, Geometry, OwnedTransfer, ReadAt, WriteAt,
};

const BLOCK: u64 = 512;

/// Offset and length of each op that a queue was asked for.
type Asked = Arc<Mutex<Vec<(u64, u64)>>>;

/// A device that fails every op with an error of this class.
fn failing(class: ErrorClass) -> (Dispatcher, Asked) {
    let asked = Asked::default();
    let shared = Arc::clone(&asked);
    let device = device(move |_| {
        let asked = Arc::clone(&shared);
        Ok(Box::new(Failing::new(move |op: &Op| {
            asked.lock().unwrap().push((op.offset(), op.len()));
            Some(os_error(op, 5).with_class(class))
        })))
    });
    (device, asked)
}

/// Class and place of an error.
type Failure = (ErrorClass, Option<(u64, u64)>);

fn failures(results: &[Result<(), Error>]) -> Vec<Option<Failure>> {
    results
        .iter()
        .map(|result| {
            result.as_ref().err().map(|error| (error.class(), error.offset().zip(error.length())))
        })
        .collect()
}

/// What each of four neighbours fails with.
fn each_with(class: ErrorClass) -> Vec<Option<Failure>> {
    (0..4).map(|number| Some((class, Some((number * BLOCK, BLOCK))))).collect()
}

#[test]
fn a_merged_op_of_unknown_outcome_is_not_repeated() {
    within_seconds(|| {
        let bytes = [[1; 512]; 4];
        let batch: Vec<_> =
            (0..).zip(&bytes).map(|(n, bytes)| WriteAt::new(n * BLOCK, bytes)).collect();
        let (device, asked) = failing(ErrorClass::Unknown);
        let results = device.write_buffers(&batch);
        assert_eq!(failures(&results), each_with(ErrorClass::Unknown), "each with its own place");
        assert_eq!(*asked.lock().unwrap(), [(0, 4 * BLOCK)], "it was asked for once");
        assert_eq!(device.stats().retries, 0);

        let mut found = [[0; 512]; 4];
        let mut batch: Vec<_> =
            (0..).zip(&mut found).map(|(n, found)| ReadAt::new(n * BLOCK, found)).collect();
        let results = device.read_buffers(&mut batch);
        assert_eq!(failures(&results), each_with(ErrorClass::Unknown));

        let buffer = || AlignedBuf::zeroed(512).unwrap();
        let batch = (0..4).map(|n| OwnedTransfer::new(n * BLOCK, buffer())).collect();
        let all = device.batched_write(batch).unwrap().wait();
        let results: Vec<_> = all.into_iter().map(|finished| finished.result).collect();
        assert_eq!(failures(&results), each_with(ErrorClass::Unknown));
        assert_eq!(asked.lock().unwrap().len(), 3, "each batch was asked for once");
    });
}

#[test]
fn a_merged_op_that_has_ended_is_repeated_part_by_part() {
    within_seconds(|| {
        for class in [ErrorClass::NotStarted, ErrorClass::Failed] {
            let bytes = [[1; 512]; 4];
            let batch: Vec<_> =
                (0..).zip(&bytes).map(|(n, bytes)| WriteAt::new(n * BLOCK, bytes)).collect();
            let (device, asked) = failing(class);
            assert_eq!(failures(&device.write_buffers(&batch)), each_with(class));
            assert_eq!(asked.lock().unwrap().len(), 5, "the merged op, and each of its parts");
        }
    });
}

/// Loses all ops.
struct Losing;

impl Behaviour for Losing {
    fn submit(&mut self, _: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        ops.clear();
    }
}

#[test]
fn an_op_that_a_queue_lost_has_an_unknown_outcome() {
    within_seconds(|| {
        let device = first_queue(|| Losing);
        for result in &*device.write_buffers(&writes(&blocks(3))) {
            assert_eq!(result.as_ref().unwrap_err().class(), ErrorClass::Unknown);
        }
        let device = first_queue(|| Losing);
        for finished in device.batched_write(owned(&blocks(3))).unwrap().wait() {
            assert_eq!(finished.result.unwrap_err().class(), ErrorClass::Unknown);
        }
    });
}

#[test]
fn no_late_write_overwrites_what_was_acknowledged_before() {
    let geometry = Geometry::new(1 << 20, 512).unwrap();
    for seed in 0..20 {
        let simulated = SimulatedDevice::new(geometry, seed).unwrap();
        let device = Dispatcher::new(simulated.backend()).unwrap();
        // The first op fails, and takes effect after four newer ones.
        simulated.inject(DeviceFault::late_write(4).nth(1));
        let old = [[1; 512]; 4];
        let batch: Vec<_> =
            (0..).zip(&old).map(|(n, bytes)| WriteAt::new(n * BLOCK, bytes)).collect();
        let results = device.write_buffers(&batch);
        // A range whose write was reported as done may be written again.
        let mut expected = vec![1; 4 * 512];
        for (number, result) in results.iter().enumerate() {
            if let Err(error) = result {
                assert_eq!((error.class(), error.kind()), (ErrorClass::Unknown, ErrorKind::Io));
                continue;
            }
            let offset = number as u64 * BLOCK;
            device.write_buffers(&[WriteAt::new(offset, &[2; 512])]).all().unwrap();
            expected[number * 512..][..512].fill(2);
        }
        for _ in 0..4 {
            device.write_buffers(&[WriteAt::new(8 * BLOCK, &[3; 512])]).all().unwrap();
        }
        assert!(simulated.peek(0, expected.len()) == expected, "an old write came late, {seed}");
        assert_eq!(simulated.backend().stats().snapshot().errors(ErrorKind::Io), 4);
    }
}

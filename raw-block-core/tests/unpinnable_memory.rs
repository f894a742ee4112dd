//! Memory that the kernel cannot pin (`EFAULT`) is copied; only transfers from or to it are, and
//! only once.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use fakes::{Failing, device, os_error, within_seconds};
use raw_block_core::backend::Op;
use raw_block_core::{AlignedBuf, Dispatcher, ErrorClass, OwnedTransfer, ReadAt, WriteAt};

const EFAULT: i32 = 14;
const BLOCK: usize = 512;

/// Addresses that cannot be pinned, and with which class an op that names one fails.
#[derive(Clone)]
struct Secret(Arc<Mutex<(Vec<Range<usize>>, ErrorClass)>>);

impl Secret {
    fn new(class: ErrorClass) -> Self {
        Self(Arc::new(Mutex::new((Vec::new(), class))))
    }

    fn hide(&self, memory: &[u8]) {
        let start = memory.as_ptr().addr();
        self.0.lock().unwrap().0.push(start..start + memory.len());
    }

    /// The class with which this op fails.
    fn refuses(&self, op: &Op) -> Option<ErrorClass> {
        let (secret, class) = &*self.0.lock().unwrap();
        let named = |range: &Range<usize>| {
            op.iovecs().iter().any(|segment| range.contains(&segment.iov_base.addr()))
        };
        secret.iter().any(named).then_some(*class)
    }
}

/// A device that fails ops with `EFAULT` that name secret memory.
fn pinning(class: ErrorClass) -> (Dispatcher, Secret) {
    let secret = Secret::new(class);
    let shared = secret.clone();
    let device = device(move |_| {
        let secret = shared.clone();
        let error =
            move |op: &Op| secret.refuses(op).map(|class| os_error(op, EFAULT).with_class(class));
        Ok(Box::new(Failing::new(error)))
    });
    (device, secret)
}

fn buffer(byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
    buffer.fill(byte);
    buffer
}

/// Where transfer `number` lies: the first four are neighbours, the others stand alone.
fn place(number: usize) -> u64 {
    (BLOCK * if number < 4 { number } else { 2 * number }) as u64
}

fn assert_holds(device: &Dispatcher, number: usize, byte: u8) {
    let mut found = [0; BLOCK];
    device.read_buffers(&mut [ReadAt::new(place(number), &mut found)]).all().unwrap();
    assert_eq!(found, [byte; BLOCK], "transfer {number}");
}

#[test]
fn transfers_of_unpinnable_memory_are_copied() {
    within_seconds(|| {
        let (device, secret) = pinning(ErrorClass::Failed);
        let mut buffers: Vec<_> = (1..=6).map(buffer).collect();
        // One of four that are merged, and one alone.
        [1, 5].iter().for_each(|&number| secret.hide(&buffers[number]));
        let before = device.stats();
        let batch: Vec<_> =
            (0..).zip(&buffers).map(|(n, bytes)| WriteAt::new(place(n), bytes)).collect();
        device.write_buffers(&batch).all().unwrap();
        let written = device.stats();
        assert_eq!(written.retries - before.retries, 5, "the four that were merged, and the one");
        assert_eq!(written.staged_bytes - before.staged_bytes, 5 * BLOCK as u64);
        (0..6).zip(1..).for_each(|(number, byte)| assert_holds(&device, number, byte));

        let read = |buffers: &mut [AlignedBuf], with_calls: bool| {
            buffers.iter_mut().for_each(|buffer| buffer.fill(0xEE));
            let mut batch: Vec<_> =
                (0..).zip(&mut *buffers).map(|(n, bytes)| ReadAt::new(place(n), bytes)).collect();
            if with_calls {
                let mut calls = 0;
                device.read_buffers_with(&mut batch, |number, read| {
                    let [found] = read.unwrap();
                    assert!(found.iter().all(|&byte| usize::from(byte) == number + 1));
                    calls += 1;
                });
                assert_eq!(calls, 6, "each is handed over once");
            } else {
                device.read_buffers(&mut batch).all().unwrap();
            }
            for (byte, buffer) in (1..).zip(&*buffers) {
                assert!(buffer.iter().all(|&found| found == byte), "transfer {}", byte - 1);
            }
        };
        read(&mut buffers, false);
        read(&mut buffers, true);
        assert_eq!(device.stats().errors(raw_block_core::ErrorKind::Io), 0);
    });
}

#[test]
fn a_ticket_over_unpinnable_memory_is_copied() {
    within_seconds(|| {
        let (device, secret) = pinning(ErrorClass::Failed);
        let batch = |hidden: bool| -> Vec<_> {
            let buffers: Vec<_> = (1..=6).map(buffer).collect();
            if hidden {
                [1, 5].iter().for_each(|&number| secret.hide(&buffers[number]));
            }
            (0..).zip(buffers).map(|(n, bytes)| OwnedTransfer::new(place(n), bytes)).collect()
        };
        for finished in device.batched_write(batch(true)).unwrap().wait() {
            finished.result.unwrap();
        }
        let mut ticket = device.batched_read(batch(true)).unwrap();
        let all = std::iter::repeat_with(|| ticket.try_wait()).find_map(|all| all).unwrap();
        for (byte, finished) in (1..).zip(all) {
            finished.result.unwrap();
            assert!(finished.buffer.iter().all(|&found| found == byte));
        }
    });
}

#[test]
fn a_transfer_that_was_copied_is_not_copied_again() {
    within_seconds(|| {
        let device = device(|_| Ok(Box::new(Failing::new(|op: &Op| Some(os_error(op, EFAULT))))));
        let bytes = buffer(1);
        let batch = [0, 1, 5].map(|number| WriteAt::new(place(number), &bytes));
        for (number, result) in [0, 1, 5].into_iter().zip(&*device.write_buffers(&batch)) {
            let error = result.as_ref().unwrap_err();
            assert_eq!(error.os_error().unwrap().raw_os_error(), Some(EFAULT));
            assert_eq!((error.offset(), error.length()), (Some(place(number)), Some(BLOCK as u64)));
        }
        assert_eq!(device.stats().retries, 3, "each of the three once");
        device.flush().unwrap_err();
        assert_eq!(device.stats().retries, 3, "a flush has no memory to copy");
    });
}

#[test]
fn unpinnable_memory_with_an_unknown_outcome_is_not_copied() {
    within_seconds(|| {
        let (device, secret) = pinning(ErrorClass::Unknown);
        let bytes = buffer(1);
        secret.hide(&bytes);
        let error = device.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unknown);
        assert_eq!(device.stats().retries, 0);
    });
}

//! A long batch of reads is handed to its caller part by part.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use fakes::within_seconds;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{Dispatcher, ErrorKind, Geometry, ReadAt, WriteAt};

const LEN: usize = 256 << 10;
const COUNT: usize = 8;

/// A device with `COUNT` stretches of `LEN` bytes that hold their numbers, from 1 on.
fn numbered() -> (SimulatedDevice, Dispatcher) {
    let simulated = SimulatedDevice::new(Geometry::new(4 << 20, 512).unwrap(), 1).unwrap();
    let device = Dispatcher::new(simulated.backend()).unwrap();
    for (number, byte) in (0..COUNT).zip(1..) {
        let bytes = vec![byte; LEN];
        device.write_buffers(&[WriteAt::new(place(number), &bytes)]).all().unwrap();
    }
    (simulated, device)
}

fn place(number: usize) -> u64 {
    (number * LEN) as u64
}

/// Reads stretches of `len` bytes; returns for each, in the order of the calls, its number and what
/// was found.
fn read(
    device: &Dispatcher,
    len: usize,
    mut each: impl FnMut(usize),
) -> Vec<(usize, Result<bool, ErrorKind>)> {
    let mut buffers = vec![vec![0xEE; len]; COUNT];
    let mut batch: Vec<_> = (0..)
        .zip(&mut buffers)
        .map(|(number, buffer)| ReadAt::new(place(number), buffer))
        .collect();
    let mut calls = Vec::new();
    device.read_buffers_with(&mut batch, |number, read| {
        let found = read.map(|[found]| found.iter().all(|&byte| usize::from(byte) == number + 1));
        calls.push((number, found.map_err(|error| error.kind())));
        each(number);
    });
    calls
}

#[test]
fn a_part_is_handed_over_while_the_rest_is_in_flight() {
    within_seconds(|| {
        let (simulated, device) = numbered();
        let last = COUNT - 1;
        simulated.inject(DeviceFault::hold(OpKind::Read).within(place(last)..place(last) + 1));
        // The last one is held until another one was handed over: it would never end otherwise.
        let mut calls = read(&device, LEN, |_| simulated.clear_faults());
        assert_eq!(calls.last(), Some(&(last, Ok(true))));
        calls.sort_by_key(|&(number, _)| number);
        assert_eq!(calls, (0..COUNT).map(|number| (number, Ok(true))).collect::<Vec<_>>());
    });
}

#[test]
fn each_transfer_is_handed_over_once_with_its_own_result() {
    let (simulated, device) = numbered();
    // Neighbours that are merged, of which one fails, and is repeated by itself.
    for len in [512, LEN] {
        simulated.inject(DeviceFault::fail(OpKind::Read, 5).within(place(2)..place(2) + 1));
        let mut calls = read(&device, len, |_| {});
        calls.sort_by_key(|&(number, _)| number);
        let expected = |number| if number == 2 { Err(ErrorKind::Io) } else { Ok(true) };
        assert_eq!(
            calls,
            (0..COUNT).map(|number| (number, expected(number))).collect::<Vec<_>>(),
            "{len}"
        );
        simulated.clear_faults();
    }
}

#[test]
fn what_breaks_a_rule_is_handed_over_with_its_error() {
    let (_, device) = numbered();
    let (mut good, mut bad) = ([0; 512], [0; 512]);
    let mut batch = [ReadAt::new(4 << 20, &mut bad), ReadAt::new(0, &mut good)];
    let mut calls = Vec::new();
    device.read_buffers_with(&mut batch, |number, read| {
        calls.push((number, read.map(|[found]| found.len()).map_err(|error| error.kind())));
    });
    assert_eq!(calls, [(1, Ok(512)), (0, Err(ErrorKind::OutOfRange))]);
    device.read_buffers_with::<1>(&mut [], |_, _| unreachable!("there is nothing to read"));
}

#[test]
fn a_caller_that_panics_leaves_a_dispatcher_that_works() {
    within_seconds(|| {
        let (_, device) = numbered();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            read(&device, LEN, |_| panic!("as it should"));
        }));
        assert!(panicked.is_err());
        assert_eq!(read(&device, LEN, |_| {}).len(), COUNT);
    });
}

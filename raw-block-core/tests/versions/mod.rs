//! A simulated device, and writes to it whose every block contains their version.

#![allow(dead_code, reason = "each test program uses a part of this")]

use raw_block_core::simulated::SimulatedDevice;
use raw_block_core::{AlignedBuf, Dispatcher, Error, Geometry, OwnedTransfer, Ticket, WriteAt};

pub(crate) const BLOCK: usize = 512;
/// Blocks of each write.
pub(crate) const LEN: usize = 8;

pub(crate) fn shape() -> Geometry {
    let mut geometry = Geometry::new(1 << 20, 512).unwrap();
    (geometry.discard, geometry.write_zeroes) = (true, true);
    geometry
}

pub(crate) fn simulated(seed: u64) -> SimulatedDevice {
    SimulatedDevice::new(shape(), seed).unwrap()
}

pub(crate) fn open(device: &SimulatedDevice) -> Dispatcher {
    Dispatcher::new(device.backend()).unwrap()
}

/// Where the write of this number goes; no two are neighbours.
pub(crate) fn place(number: u64) -> u64 {
    number * 2 * (LEN * BLOCK) as u64
}

pub(crate) fn write(device: &Dispatcher, number: u64, version: u8) {
    let bytes = [version; LEN * BLOCK];
    device.write_buffers(&[WriteAt::new(place(number), &bytes)]).all().unwrap();
}

/// Calls `work` while a write is in flight. Returns the result of the write, and that of `work`.
pub(crate) fn while_written<R>(
    device: &Dispatcher,
    number: u64,
    version: u8,
    work: impl FnOnce() -> R,
) -> (Result<(), Error>, R) {
    let bytes = [version; LEN * BLOCK];
    let batch = [WriteAt::new(place(number), &bytes)];
    let (written, worked) = device.write_buffers_while(&batch, work);
    (written.all(), worked)
}

/// A write that is in flight, or soon will be.
pub(crate) fn start(device: &Dispatcher, number: u64, version: u8) -> Ticket {
    let mut buffer = AlignedBuf::zeroed(LEN * BLOCK).unwrap();
    buffer.fill(version);
    device.batched_write(vec![OwnedTransfer::new(place(number), buffer)]).unwrap()
}

/// The version that each block of a write has now. Asserts that each block is whole.
pub(crate) fn versions(device: &SimulatedDevice, number: u64) -> Vec<u8> {
    let bytes = device.peek(place(number), LEN * BLOCK);
    let version = |block: &[u8]| {
        assert!(block.iter().all(|&byte| byte == block[0]), "a logical block is torn");
        block[0]
    };
    bytes.chunks(BLOCK).map(version).collect()
}

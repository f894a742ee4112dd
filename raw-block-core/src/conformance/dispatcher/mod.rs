//! What a dispatcher makes of a backend's queues.

pub(super) mod long;
pub(super) mod merging;
pub(super) mod owned;
pub(super) mod registration;
pub(super) mod results;
pub(super) mod sharing;
pub(super) mod staging;
pub(super) mod statistics;
pub(super) mod tickets;
pub(super) mod working;

use crate::conformance::Subject;
use crate::conformance::bytes::assert_same;
use crate::{AlignedBuf, BatchResult, Dispatcher, Error, ErrorKind, Geometry, ReadAt, WriteAt};

/// How each transfer went: `None` for well.
fn kinds(results: &BatchResult) -> Vec<Option<ErrorKind>> {
    results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect()
}

/// Writes bytes that fill whole blocks.
#[track_caller]
fn fill(device: &Dispatcher, offset: u64, bytes: &[u8]) {
    device.write_buffers(&[WriteAt::new(offset, bytes)]).all().unwrap();
}

/// Asserts what the device holds from `offset` on, in whole blocks.
#[track_caller]
fn assert_holds(device: &Dispatcher, offset: u64, expected: &[u8], what: &str) {
    let mut found = vec![0xEE; expected.len()];
    device.read_buffers(&mut [ReadAt::new(offset, &mut found)]).all().unwrap();
    assert_same(&found, expected, what);
}

/// Places in memory that the device takes as they are, `len` bytes each, one every
/// [`stride`](direct_stride).
fn direct_memory(subject: &Subject, count: usize, len: usize) -> AlignedBuf {
    AlignedBuf::zeroed(count * direct_stride(subject.geometry(), len)).unwrap()
}

/// `len` rounded up to what the device demands of addresses.
fn direct_stride(geometry: &Geometry, len: usize) -> usize {
    len.next_multiple_of(geometry.memory_alignment as usize)
}

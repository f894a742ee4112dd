//! Executes an op by blocking system calls.

use std::io::{self, IoSliceMut};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::off_t;
use nix::sys::uio::{pread, preadv, pwrite, pwritev};
use raw_block_core::ErrorClass;
use raw_block_core::backend::{Completion, DeviceFile, Op, OpKind};

/// The most memory segments of one system call. The kernel takes 1024, but the list is on the
/// stack. The rest of a longer op takes further calls.
const MAX_SEGMENTS: usize = 128;
/// How often an op is retried after `EAGAIN`.
const MAX_EAGAIN: u32 = 50;
/// The pause before each of these retries.
const EAGAIN_PAUSE: Duration = Duration::from_millis(1);

/// The number of system calls that ops took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    /// All system calls.
    pub(crate) calls: u64,
    /// The calls that retried an op, or continued it.
    pub(crate) retries: u64,
}

impl CallCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.retries += other.retries;
    }
}

/// Executes an op to its end.
pub(crate) fn execute(device: &DeviceFile, op: Op) -> (Completion, CallCounts) {
    // If the size is unknown, the error of the transfer is reported.
    let len = || device.current_len().unwrap_or(u64::MAX);
    match op.kind() {
        OpKind::Read => move_all(op, len, |op| read_some(device, op)),
        OpKind::Write => move_all(op, len, |op| write_some(device, op)),
        OpKind::Flush => call(op, |_| device.sync_data()),
        OpKind::Discard => call(op, |op| device.discard(op.offset(), op.len())),
        OpKind::WriteZeroes => call(op, |op| device.write_zeroes(op.offset(), op.len())),
    }
}

/// Moves all bytes of a read or write, with as many calls of `move_some` as needed. `device_len`
/// returns the current length of the device.
fn move_all(
    mut op: Op,
    device_len: impl Fn() -> u64,
    mut move_some: impl FnMut(&mut Op) -> nix::Result<usize>,
) -> (Completion, CallCounts) {
    let mut counts = CallCounts::default();
    let mut refusals = 0;
    loop {
        counts.calls += 1;
        match move_some(&mut op) {
            Ok(0) if op.kind() == OpKind::Read => return (op.fail_at_end(), counts),
            Ok(0) => return (fail(op, io::ErrorKind::WriteZero.into()), counts),
            Ok(moved) => {
                op.advance(moved as u64);
                if op.is_empty() {
                    return (op.complete(), counts);
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if refusals < MAX_EAGAIN => {
                refusals += 1;
                thread::sleep(EAGAIN_PAUSE);
            }
            // A direct read ends inside a block at the end of the device, and cannot continue
            // there.
            Err(Errno::EINVAL)
                if op.kind() == OpKind::Read && op.offset() + op.len() > device_len() =>
            {
                return (op.fail_at_end(), counts);
            }
            Err(errno) => return (fail(op, errno.into()), counts),
        }
        counts.retries += 1;
    }
}

fn read_some(device: &DeviceFile, op: &mut Op) -> nix::Result<usize> {
    let offset = signed(op.offset())?;
    let count = op.iovecs_for_call(MAX_SEGMENTS).len();
    let mut segments = op.destination();
    if count == 1
        && let Some(one) = segments.next()
    {
        let len = one.len().min(Op::MAX_CALL_BYTES);
        return pread(device, &mut one[..len], offset);
    }
    let mut list: [_; MAX_SEGMENTS] =
        std::array::from_fn(|_| IoSliceMut::new(segments.next().unwrap_or_default()));
    preadv(device, &mut list[..count], offset)
}

fn write_some(device: &DeviceFile, op: &Op) -> nix::Result<usize> {
    let offset = signed(op.offset())?;
    let count = op.iovecs_for_call(MAX_SEGMENTS).len();
    match &op.source()[..count] {
        [one] => pwrite(device, &one[..one.len().min(Op::MAX_CALL_BYTES)], offset),
        many => pwritev(device, many, offset),
    }
}

/// Executes an op that is one system call without memory.
fn call(op: Op, mut attempt: impl FnMut(&Op) -> io::Result<()>) -> (Completion, CallCounts) {
    let mut counts = CallCounts::default();
    loop {
        counts.calls += 1;
        match attempt(&op) {
            Ok(()) => return (op.complete(), counts),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => counts.retries += 1,
            Err(error) => return (fail(op, error), counts),
        }
    }
}

/// Completes an op with an error. The call has returned, so the op has ended; a part of it may have
/// taken effect, whatever the error is.
fn fail(op: Op, error: io::Error) -> Completion {
    let error = op.error(error);
    let unknown = error.class() == ErrorClass::Unknown;
    op.fail_with(if unknown { error } else { error.with_class(ErrorClass::Failed) })
}

/// Converts an offset for the system calls.
fn signed(bytes: u64) -> nix::Result<off_t> {
    off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests;

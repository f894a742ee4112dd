//! One op, carried out by blocking system calls.

use std::io::{self, IoSliceMut};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::off_t;
use nix::sys::uio::{pread, preadv, pwrite, pwritev};
use raw_block_core::ErrorClass;
use raw_block_core::backend::{Completion, DeviceFile, Op, OpKind};

/// The most memory segments of one system call. The kernel takes 1024, but a list of them is made on the
/// stack; the rest of a longer op follows.
const MAX_SEGMENTS: usize = 128;
/// How often an op is issued again after `EAGAIN`, and how long it pauses before each time.
const AGAIN_LIMIT: u32 = 50;
const AGAIN_PAUSE: Duration = Duration::from_millis(1);
/// What carrying out ops took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    /// System calls.
    pub(crate) calls: u64,
    /// How many of them issued an op, or what was left of it, again.
    pub(crate) repeats: u64,
}

impl Effort {
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.repeats += other.repeats;
    }
}

/// Carries out an op from its beginning to its end.
pub(crate) fn carry_out(device: &DeviceFile, op: Op) -> (Completion, Effort) {
    // If the size cannot be asked for, the error of the transfer stands.
    let len = || device.current_len().unwrap_or(u64::MAX);
    match op.kind() {
        OpKind::Read => move_all(op, len, |op| read_some(device, op)),
        OpKind::Write => move_all(op, len, |op| write_some(device, op)),
        OpKind::Flush => call(op, |_| device.sync_data()),
        OpKind::Discard => call(op, |op| device.discard(op.offset(), op.len())),
        OpKind::WriteZeroes => call(op, |op| device.write_zeroes(op.offset(), op.len())),
    }
}

/// Moves every byte of a read or write, with as many calls of `move_some` as it takes. `device_len` asks how
/// long the device is now.
fn move_all(
    mut op: Op,
    device_len: impl Fn() -> u64,
    mut move_some: impl FnMut(&mut Op) -> nix::Result<usize>,
) -> (Completion, Effort) {
    let mut effort = Effort::default();
    let mut refusals = 0;
    loop {
        effort.calls += 1;
        match move_some(&mut op) {
            Ok(0) if op.kind() == OpKind::Read => return (op.fail_at_end(), effort),
            Ok(0) => return (fail(op, io::ErrorKind::WriteZero.into()), effort),
            Ok(moved) => {
                op.advance(moved as u64);
                if op.is_empty() {
                    return (op.complete(), effort);
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if refusals < AGAIN_LIMIT => {
                refusals += 1;
                thread::sleep(AGAIN_PAUSE);
            }
            // A direct read stops inside a block at the end of the device, and cannot go on there.
            Err(Errno::EINVAL)
                if op.kind() == OpKind::Read && op.offset() + op.len() > device_len() =>
            {
                return (op.fail_at_end(), effort);
            }
            Err(errno) => return (fail(op, errno.into()), effort),
        }
        effort.repeats += 1;
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

/// Carries out an op that is one system call without memory.
fn call(op: Op, mut attempt: impl FnMut(&Op) -> io::Result<()>) -> (Completion, Effort) {
    let mut effort = Effort::default();
    loop {
        effort.calls += 1;
        match attempt(&op) {
            Ok(()) => return (op.complete(), effort),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => effort.repeats += 1,
            Err(error) => return (fail(op, error), effort),
        }
    }
}

/// Gives an op back as failed. The call has returned, so the op has ended; a part of it may have taken effect,
/// whatever the error is.
fn fail(op: Op, error: io::Error) -> Completion {
    let error = op.error(error);
    let unknown = error.class() == ErrorClass::Unknown;
    op.fail_with(if unknown { error } else { error.with_class(ErrorClass::Failed) })
}

/// An offset as the system calls take it.
fn signed(bytes: u64) -> nix::Result<off_t> {
    off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests;

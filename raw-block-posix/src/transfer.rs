//! One op, carried out by blocking system calls.

use std::io::{self, IoSliceMut};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::off_t;
use nix::sys::uio::{pread, preadv, pwrite, pwritev};
use raw_block_core::{
    AlignedBuf, Completion, DeviceFile, Error, ErrorClass, MAX_CALL_BYTES, Op, OpKind,
};

/// The most memory segments of one system call. The kernel takes 1024, but a list of them is made on the
/// stack; the rest of a longer op follows.
const MAX_SEGMENTS: usize = 128;
/// How often an op is issued again after `EAGAIN`, and how long it pauses before each time.
const AGAIN_LIMIT: u32 = 50;
const AGAIN_PAUSE: Duration = Duration::from_millis(1);
/// Memory that the kernel cannot pin is copied in pieces of this many bytes, a multiple of any block.
const STAGED_BYTES: usize = 1 << 20;

/// How a call reaches the memory of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Direct,
    /// By way of memory that the kernel can pin.
    Staged,
}

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
        OpKind::Read => move_all(op, len, |op, memory| match memory {
            Memory::Direct => read_some(device, op),
            Memory::Staged => read_staged(device, op),
        }),
        OpKind::Write => move_all(op, len, |op, memory| match memory {
            Memory::Direct => write_some(device, op),
            Memory::Staged => write_staged(device, op),
        }),
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
    mut move_some: impl FnMut(&mut Op, Memory) -> nix::Result<usize>,
) -> (Completion, Effort) {
    let mut effort = Effort::default();
    let mut memory = Memory::Direct;
    let mut refusals = 0;
    loop {
        effort.calls += 1;
        match move_some(&mut op, memory) {
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
            // A direct transfer pins its memory, and the kernel cannot pin some mappings, such as those
            // of memfd_secret(2).
            Err(Errno::EFAULT) if memory == Memory::Direct => memory = Memory::Staged,
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
        let len = one.len().min(MAX_CALL_BYTES);
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
        [one] => pwrite(device, &one[..one.len().min(MAX_CALL_BYTES)], offset),
        many => pwritev(device, many, offset),
    }
}

fn read_staged(device: &DeviceFile, op: &mut Op) -> nix::Result<usize> {
    let offset = signed(op.offset())?;
    let Some(one) = op.destination().next() else { return Ok(0) };
    let mut staged = staging(one.len())?;
    let moved = pread(device, &mut staged, offset)?;
    one[..moved].copy_from_slice(&staged[..moved]);
    Ok(moved)
}

fn write_staged(device: &DeviceFile, op: &Op) -> nix::Result<usize> {
    let Some(one) = op.source().first() else { return Ok(0) };
    let mut staged = staging(one.len())?;
    let len = staged.len();
    staged.copy_from_slice(&one[..len]);
    pwrite(device, &staged, signed(op.offset())?)
}

/// Memory for the first piece of a segment with `len` bytes.
fn staging(len: usize) -> nix::Result<AlignedBuf> {
    AlignedBuf::zeroed(len.min(STAGED_BYTES)).map_err(|_| Errno::ENOMEM)
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

/// Gives an op back as failed.
///
/// The call has returned, so the kernel has finished with the op, a part of which may have taken effect whatever the
/// error is. Only a device that did not answer, or could not be reached, may still carry it out.
fn fail(op: Op, error: io::Error) -> Completion {
    let unanswered = matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ETIMEDOUT | Errno::ENOLINK)
    );
    let class = if unanswered && op.kind() != OpKind::Read {
        ErrorClass::Unknown
    } else {
        ErrorClass::Failed
    };
    let error = Error::os(op.kind().name(), error).at(op.offset(), op.len()).with_class(class);
    op.fail_with(error)
}

/// An offset as the system calls take it.
fn signed(bytes: u64) -> nix::Result<off_t> {
    off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests;

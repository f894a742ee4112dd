//! An op in a ring, and what a completion means for it.

use std::io;
use std::thread::{self, ThreadId};

use raw_block_core::backend::{Completion, DeviceFile, Op, OpKind};
use raw_block_core::{Error, ErrorClass};

/// How often an op is retried after a transient error before it fails.
const MAX_TRIES: u32 = 16;

/// An op with an entry in the ring.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) op: Op,
    /// The thread that last pushed its entry.
    issuer: ThreadId,
    tries: u32,
    /// Whether a part of it may have been executed.
    started: bool,
}

/// What a completion means for its op.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// Push the rest of the op again.
    Resubmit,
    /// The ring cannot execute it, for this `errno`; a system call may.
    NeedsCall(i32),
    /// It has ended.
    Ended(OpResult),
}

/// How an op ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OpResult {
    Done,
    /// The device ended before the range of the op.
    EndOfDevice,
    Failed(i32),
}

impl InFlight {
    /// An op that the thread `issuer` pushes.
    pub(crate) fn new(op: Op, issuer: ThreadId) -> Self {
        Self { op, issuer, tries: 0, started: false }
    }

    /// Records that this thread pushes the op again.
    pub(crate) fn issued_here(&mut self) {
        self.issuer = thread::current().id();
    }

    /// Judges the result of an entry or of a system call: a number of bytes, or a negative `errno`.
    pub(crate) fn judge(&mut self, result: i32, file: &DeviceFile) -> Verdict {
        match u32::try_from(result) {
            Ok(_) if !self.op.kind().transfers() => Verdict::Ended(OpResult::Done),
            Ok(0) => Verdict::Ended(OpResult::EndOfDevice),
            Ok(bytes) => {
                self.op.advance(u64::from(bytes));
                self.tries = 0;
                self.started = true;
                if self.op.is_empty() { Verdict::Ended(OpResult::Done) } else { Verdict::Resubmit }
            }
            Err(_) => self.judge_errno(-result, file),
        }
    }

    fn judge_errno(&mut self, errno: i32, file: &DeviceFile) -> Verdict {
        let may_repeat = self.tries < MAX_TRIES;
        let verdict = match errno {
            libc::EINTR if may_repeat => {
                self.started = true;
                Verdict::Resubmit
            }
            libc::EAGAIN if may_repeat => Verdict::Resubmit,
            // The kernel ends the ops of a thread that has ended, with either error. Which one
            // depends on how far it had executed them.
            libc::ECANCELED | libc::EFAULT
                if may_repeat && self.issuer != thread::current().id() =>
            {
                Verdict::Resubmit
            }
            // The kernel needs a worker thread for the op and cannot start one: the limit of
            // processes is reached.
            libc::ECANCELED => Verdict::NeedsCall(errno),
            // A direct read cannot continue inside a block, and a file can end there.
            libc::EINVAL if self.op.kind() == OpKind::Read && self.is_at_end(file) => {
                Verdict::Ended(OpResult::EndOfDevice)
            }
            // The ring does not support the op: write-zeroes on a file system that only has holes;
            // a discard of a block device before Linux 6.12; all three with completion polling; a
            // part of a block (EINVAL), or a page cache that the kernel cannot drop (EBUSY), on a
            // block device. If the error is real, the system call reports it too.
            libc::EOPNOTSUPP | libc::EINVAL | libc::EBUSY if !self.op.kind().transfers() => {
                Verdict::NeedsCall(errno)
            }
            errno => Verdict::Ended(OpResult::Failed(errno)),
        };
        self.tries += u32::from(matches!(verdict, Verdict::Resubmit));
        verdict
    }

    /// Whether the rest begins at or past the current end of the device.
    fn is_at_end(&self, file: &DeviceFile) -> bool {
        file.current_len().is_ok_and(|end| self.op.offset() >= end)
    }

    /// Completes the op.
    pub(crate) fn complete(self, result: OpResult) -> Completion {
        match result {
            OpResult::Done => self.op.complete(),
            OpResult::EndOfDevice => self.op.fail_at_end(),
            OpResult::Failed(errno) => {
                let error = self.op.error(io::Error::from_raw_os_error(errno));
                self.fail(error)
            }
        }
    }

    /// Completes an op that the kernel never got.
    pub(crate) fn lose(self, error: io::Error) -> Completion {
        let error = self.op.error(error).with_class(ErrorClass::NotStarted);
        self.fail(error)
    }

    fn fail(self, error: Error) -> Completion {
        let is_partial = self.started && error.class() == ErrorClass::NotStarted;
        let error = if is_partial { error.with_class(ErrorClass::Failed) } else { error };
        self.op.fail_with(error)
    }
}

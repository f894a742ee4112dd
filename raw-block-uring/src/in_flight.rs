//! An op that a ring has, and what a completion means for it.

use std::io;
use std::thread::{self, ThreadId};

use raw_block_core::backend::{Completion, DeviceFile, Op, OpKind};
use raw_block_core::{Error, ErrorClass};

/// How often one op is issued again after a transient error, before it fails.
const MAX_TRIES: u32 = 16;

/// An op that the kernel has, or is about to get.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) op: Op,
    /// The thread that issued it last.
    issuer: ThreadId,
    tries: u32,
    /// Whether a part of it may have been carried out.
    started: bool,
}

/// What a completion means for its op.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// The op, or what is left of it, is to be issued again.
    Again,
    /// The ring cannot carry it out, for this `errno`; a system call perhaps can.
    NeedsCall(i32),
    /// It has ended.
    Ended(End),
}

/// How an op ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Done,
    /// The device ended first.
    OfDevice,
    Failed(i32),
}

impl InFlight {
    /// An op that the thread `issuer` issues.
    pub(crate) fn new(op: Op, issuer: ThreadId) -> Self {
        Self { op, issuer, tries: 0, started: false }
    }

    /// Notes that this thread issues the op again.
    pub(crate) fn issued_here(&mut self) {
        self.issuer = thread::current().id();
    }

    /// Records the result of an entry or of a system call: a number of bytes, or a negative
    /// `errno`.
    pub(crate) fn judge(&mut self, result: i32, file: &DeviceFile) -> Verdict {
        match u32::try_from(result) {
            Ok(_) if !self.op.kind().transfers() => Verdict::Ended(End::Done),
            Ok(0) => Verdict::Ended(End::OfDevice),
            Ok(bytes) => {
                self.op.advance(u64::from(bytes));
                self.tries = 0;
                self.started = true;
                if self.op.is_empty() { Verdict::Ended(End::Done) } else { Verdict::Again }
            }
            Err(_) => self.judge_errno(-result, file),
        }
    }

    fn judge_errno(&mut self, errno: i32, file: &DeviceFile) -> Verdict {
        let may_repeat = self.tries < MAX_TRIES;
        let verdict = match errno {
            libc::EINTR if may_repeat => {
                self.started = true;
                Verdict::Again
            }
            libc::EAGAIN if may_repeat => Verdict::Again,
            // The kernel ends the ops of a thread that has ended with either error: which one
            // depends on how far it had come with them.
            libc::ECANCELED | libc::EFAULT
                if may_repeat && self.issuer != thread::current().id() =>
            {
                Verdict::Again
            }
            // It needs a worker for the op, and can start none: the limit of processes is reached.
            libc::ECANCELED => Verdict::NeedsCall(errno),
            // A direct read cannot go on inside a block, and the end of a file can lie there.
            libc::EINVAL if self.op.kind() == OpKind::Read && self.is_at_end(file) => {
                Verdict::Ended(End::OfDevice)
            }
            // A file system that knows holes but no zeroes; a discard of a block device before
            // Linux 6.12; all of them where completions are polled for; a part of a block (EINVAL),
            // or a page cache that the kernel cannot drop (EBUSY), on a block device. What is a
            // true error comes back from the call.
            libc::EOPNOTSUPP | libc::EINVAL | libc::EBUSY if !self.op.kind().transfers() => {
                Verdict::NeedsCall(errno)
            }
            errno => Verdict::Ended(End::Failed(errno)),
        };
        self.tries += u32::from(matches!(verdict, Verdict::Again));
        verdict
    }

    /// Whether what is left begins at or past the present end of the device.
    fn is_at_end(&self, file: &DeviceFile) -> bool {
        file.current_len().is_ok_and(|end| self.op.offset() >= end)
    }

    /// Gives the op back.
    pub(crate) fn complete(self, end: End) -> Completion {
        match end {
            End::Done => self.op.complete(),
            End::OfDevice => self.op.fail_at_end(),
            End::Failed(errno) => {
                let error = self.op.error(io::Error::from_raw_os_error(errno));
                self.fail(error)
            }
        }
    }

    /// Gives the op back as one that the kernel has not got.
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

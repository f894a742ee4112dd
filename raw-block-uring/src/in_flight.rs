//! An op that a ring has, and what a completion means for it.

use std::io;

use raw_block_core::{Completion, Op, OpKind};

/// How often one op is issued again after an error that may pass, before it is given up.
const MAX_TRIES: u32 = 16;

/// An op that the kernel has, or is about to get.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) op: Op,
    tries: u32,
    advanced: bool,
}

/// What a completion means for its op.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Done,
    Again,
    EndOfDevice,
    /// An op without memory that the ring cannot do, and a system call perhaps can.
    NeedsCall,
    Failed(i32),
}

impl InFlight {
    pub(crate) fn new(op: Op) -> Self {
        Self { op, tries: 0, advanced: false }
    }

    /// Takes in the result of an entry: a number of bytes, or a negative `errno`.
    pub(crate) fn judge(&mut self, result: i32) -> Verdict {
        match u32::try_from(result) {
            Ok(_) if !self.op.kind().transfers() => Verdict::Done,
            Ok(0) => Verdict::EndOfDevice,
            Ok(bytes) => {
                self.op.advance(u64::from(bytes));
                self.tries = 0;
                self.advanced = true;
                if self.op.is_empty() { Verdict::Done } else { Verdict::Again }
            }
            Err(_) => self.judge_errno(-result),
        }
    }

    fn judge_errno(&mut self, errno: i32) -> Verdict {
        match errno {
            // ECANCELED: the thread that submitted the op ended, and with it the kernel's worker.
            libc::EINTR | libc::EAGAIN | libc::ECANCELED if self.tries < MAX_TRIES => {
                self.tries += 1;
                Verdict::Again
            }
            // A direct read cannot go on inside a block, and only the end of the device makes one stop
            // there.
            libc::EINVAL if self.op.kind() == OpKind::Read && self.advanced => Verdict::EndOfDevice,
            // A file system that knows holes but no zeroes; a discard of a block device before Linux 6.12; all
            // of them where completions are polled for; a part of a block (EINVAL), or a page cache that the
            // kernel cannot drop (EBUSY), on a block device. What is a true error comes back from the call.
            libc::EOPNOTSUPP | libc::EINVAL | libc::EBUSY if !self.op.kind().transfers() => {
                Verdict::NeedsCall
            }
            errno => Verdict::Failed(errno),
        }
    }

    /// Gives the op back with what its last completion meant.
    pub(crate) fn complete(self, verdict: Verdict) -> Completion {
        match verdict {
            Verdict::Done => self.op.complete(),
            Verdict::EndOfDevice => self.op.fail_at_end(),
            Verdict::Failed(errno) => self.op.fail(io::Error::from_raw_os_error(errno)),
            Verdict::NeedsCall => self.op.fail(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
            Verdict::Again => self.op.fail(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }
}

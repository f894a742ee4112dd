//! Ops in flight, their parts, and the command of each part.

use std::time::Duration;

use io_uring::types::Timespec;
use libc::iovec;
use raw_block_core::backend::{Completion, Op};
use raw_block_core::{Error, ErrorClass};

use crate::command::Range;
use crate::limits::Position;

/// An op until its last command has completed.
#[derive(Debug)]
pub(crate) struct OpInFlight {
    pub(crate) op: Op,
    /// The number of its parts that are in the ring or wait for space there.
    pub(crate) parts: u32,
    /// The error of the first command that failed, or of the first one of class
    /// [`ErrorClass::Unknown`], if there is one. Parts that were not issued by then are not issued.
    pub(crate) error: Option<Error>,
    /// Whether a controller has started one of its commands.
    pub(crate) started: bool,
}

impl OpInFlight {
    pub(crate) fn new(op: Op) -> Self {
        Self { op, parts: 1, error: None, started: false }
    }

    /// Records the result of one of its commands.
    pub(crate) fn note(&mut self, error: Option<Error>) {
        self.started |= error.as_ref().is_none_or(|error| error.class() != ErrorClass::NotStarted);
        let Some(error) = error else { return };
        let is_unknown = |error: &Error| error.class() == ErrorClass::Unknown;
        if self.error.as_ref().is_none_or(|first| !is_unknown(first) && is_unknown(&error)) {
            self.error = Some(error);
        }
    }

    /// The completion of the op, after its last command has completed.
    pub(crate) fn complete(self) -> Completion {
        match self.error {
            None => self.op.complete(),
            // One command was refused, and others were executed.
            Some(error) if self.started && error.class() == ErrorClass::NotStarted => {
                self.op.fail_with(error.with_class(ErrorClass::Failed))
            }
            Some(error) => self.op.fail_with(error),
        }
    }
}

/// A part of an op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The index of its op.
    pub(crate) op: u32,
    /// Its first byte on the device, as the op counts.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Its first byte in the memory of the op.
    pub(crate) from: Position,
    /// The longest command for it, in bytes.
    pub(crate) max_command: u64,
    /// Whether that was halved because the kernel rejected a longer command.
    pub(crate) halved: bool,
}

/// A list of memory segments.
#[derive(Debug, Default)]
pub(crate) struct Segments(pub(crate) Vec<iovec>);

// SAFETY: the addresses are plain data here. Only the kernel follows them, while the op that they
// belong to lives.
unsafe impl Send for Segments {}

impl Segments {
    /// Appends a segment, or extends the last one if it ends where this one begins.
    pub(crate) fn push(&mut self, segment: iovec) {
        if let Some(last) = self.0.last_mut()
            && last.iov_base.cast::<u8>().wrapping_add(last.iov_len).cast() == segment.iov_base
        {
            last.iov_len += segment.iov_len;
        } else {
            self.0.push(segment);
        }
    }
}

/// A part of an op that one command executes, in a slot of the ring.
#[derive(Debug)]
pub(crate) struct CommandInFlight {
    pub(crate) part: Part,
    /// Its memory, from the segments of the op. The kernel reads the list while the command is in
    /// flight.
    pub(crate) segments: Segments,
    /// The ranges that Dataset Management reads from memory.
    pub(crate) ranges: Vec<Range>,
    /// The number of retries.
    pub(crate) tries: u32,
    /// Whether its entry names registered memory.
    pub(crate) registered: bool,
    /// Whether its entry must not name registered memory.
    pub(crate) plain: bool,
    /// The pause before it is issued again. While it is set, the entry in the ring is a timer.
    pub(crate) pause: Option<Box<Timespec>>,
}

impl CommandInFlight {
    pub(crate) fn new(part: Part, segments: Segments, ranges: Vec<Range>) -> Self {
        Self { part, segments, ranges, tries: 0, registered: false, plain: false, pause: None }
    }

    pub(crate) fn pause_for(&mut self, pause: Duration) {
        self.pause = Some(Box::new(Timespec::from(pause)));
    }
}

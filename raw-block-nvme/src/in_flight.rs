//! What is under way: ops, their parts, and the command of each part.

use std::time::Duration;

use io_uring::types::Timespec;
use libc::iovec;
use raw_block_core::backend::{Completion, Op};
use raw_block_core::{Error, ErrorClass};

use crate::command::Range;
use crate::limits::Position;

/// An op that was accepted, until its last command has completed.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) op: Op,
    /// How many parts of it are in the ring or wait for room there.
    pub(crate) parts: u32,
    /// The first error of one of its commands, or the first of class [`ErrorClass::Unknown`] if there is one.
    /// Parts that have not been issued by then are left out.
    pub(crate) error: Option<Error>,
    /// Whether a controller has begun one of its commands.
    pub(crate) begun: bool,
}

impl Accepted {
    pub(crate) fn new(op: Op) -> Self {
        Self { op, parts: 1, error: None, begun: false }
    }

    /// Notes how one of its commands ended.
    pub(crate) fn note(&mut self, error: Option<Error>) {
        self.begun |= error.as_ref().is_none_or(|error| error.class() != ErrorClass::NotStarted);
        let Some(error) = error else { return };
        let is_unknown = |error: &Error| error.class() == ErrorClass::Unknown;
        if self.error.as_ref().is_none_or(|first| !is_unknown(first) && is_unknown(&error)) {
            self.error = Some(error);
        }
    }

    /// The completion of the op, once its last command has completed.
    pub(crate) fn complete(self) -> Completion {
        match self.error {
            None => self.op.complete(),
            // Refused, while others of its commands were carried out.
            Some(error) if self.begun && error.class() == ErrorClass::NotStarted => {
                self.op.fail_with(error.with_class(ErrorClass::Failed))
            }
            Some(error) => self.op.fail_with(error),
        }
    }
}

/// A part of an op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The slot of its op.
    pub(crate) op: u32,
    /// Where on the device it begins, in bytes, as the op counts them.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Where in the op's memory it begins.
    pub(crate) from: Position,
    /// The longest command for it, in bytes.
    pub(crate) most: u64,
    /// Whether that was halved because the kernel did not take a longer one.
    pub(crate) halved: bool,
}

/// A list of memory segments.
#[derive(Debug, Default)]
pub(crate) struct Segments(pub(crate) Vec<iovec>);

// SAFETY: the addresses are plain data here; the kernel follows them, while the op that they belong to lives.
unsafe impl Send for Segments {}

impl Segments {
    /// Appends a segment, or lengthens the last one if it ends where this one begins.
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

/// A part of an op that one command carries out; it has a slot of the ring.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) part: Part,
    /// Its memory: the parts of the op's segments. The kernel reads the list while the command is under way.
    pub(crate) segments: Segments,
    /// The ranges that Dataset Management takes from memory.
    pub(crate) ranges: Vec<Range>,
    /// How often it was issued again.
    pub(crate) tries: u32,
    /// Whether its entry names registered memory.
    pub(crate) registered: bool,
    /// Whether registered memory is not to be used.
    pub(crate) plain: bool,
    /// Set while it waits to be issued again: what is in the ring then is a timer.
    pub(crate) pause: Option<Box<Timespec>>,
}

impl Issued {
    pub(crate) fn new(part: Part, segments: Segments, ranges: Vec<Range>) -> Self {
        Self { part, segments, ranges, tries: 0, registered: false, plain: false, pause: None }
    }

    pub(crate) fn pause_for(&mut self, pause: Duration) {
        self.pause = Some(Box::new(Timespec::from(pause)));
    }
}

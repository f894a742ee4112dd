//! Reporting how far a recovery is.

use crate::Progress;
use crate::format::Layout;

/// A callback for the progress of a recovery.
type Callback<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Counts the segments that a recovery has read.
pub(super) struct Steps<'a> {
    report: Option<Callback<'a>>,
    done: u64,
    of: u64,
    /// Bytes of a segment.
    segment_size: u64,
}

impl<'a> Steps<'a> {
    /// Reports that nothing is read.
    pub(super) fn new(report: Option<Callback<'a>>, layout: &Layout) -> Self {
        let of = layout.segment_count.into();
        let steps = Self { report, done: 0, of, segment_size: layout.segment_size() };
        steps.report();
        steps
    }

    /// Reports that one more segment is read.
    pub(super) fn one(&mut self) {
        self.done = (self.done + 1).min(self.of);
        self.report();
    }

    /// Reports that all segments are read.
    pub(super) fn end(&mut self) {
        self.done = self.of;
        self.report();
    }

    fn report(&self) {
        if let Some(report) = self.report {
            report(Progress {
                bytes_done: self.done * self.segment_size,
                bytes: self.of * self.segment_size,
            });
        }
    }
}

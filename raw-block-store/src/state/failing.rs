//! Writes that failed in a row: whether the fault is a segment's or the device's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Consecutive failures, in different segments, after which the device is at fault.
const LIMIT: u32 = 3;

/// Counts the segments in which writes failed since the last successful one, across all calls.
#[derive(Debug, Default)]
pub(super) struct FailingWrites {
    segments: AtomicU32,
    /// The generation of the last segment in which a write failed: no other segment has it.
    last: Mutex<u64>,
}

impl FailingWrites {
    /// A write to a segment succeeded.
    pub(super) fn succeeded(&self) {
        // Usually nothing changes, and all threads read this cache line.
        if self.segments.load(Ordering::Relaxed) > 0 {
            let mut last = self.lock();
            *last = 0;
            self.segments.store(0, Ordering::Relaxed);
        }
    }

    /// A checkpoint succeeded: the device may accept writes to segments again. One more failure
    /// shows that it does not.
    pub(super) fn on_probation(&self) {
        let mut last = self.lock();
        *last = 0;
        self.segments.fetch_min(LIMIT - 1, Ordering::Relaxed);
    }

    /// A write to the segment with this generation failed. Returns whether the fault is the
    /// device's.
    pub(super) fn failed(&self, generation: u64) -> bool {
        let mut last = self.lock();
        if std::mem::replace(&mut *last, generation) == generation {
            return self.segments.load(Ordering::Relaxed) >= LIMIT;
        }
        self.segments.fetch_add(1, Ordering::Relaxed) + 1 >= LIMIT
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_segments_in_a_row_are_the_device() {
        let failing = FailingWrites::default();
        assert!(!failing.failed(1));
        assert!(!failing.failed(1));
        assert!(!failing.failed(2));
        failing.succeeded();
        assert!(!failing.failed(3));
        assert!(!failing.failed(4));
        assert!(failing.failed(5));
        assert!(failing.failed(5));
        failing.on_probation();
        assert!(failing.failed(6));
        failing.succeeded();
        assert!(!failing.failed(6));
        failing.on_probation();
        assert!(!failing.failed(7));
    }
}

//! Writes that failed in a row: whether the fault is a segment's or the device's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Segments in which writes fail in a row, after which the device is at fault.
const LIMIT: u32 = 3;
/// Failed generations that are remembered. A late failure of an older one counts again.
const REMEMBERED: usize = 64;

/// A generation of a segment in which a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) segment: u32,
    pub(super) generation: u64,
}

/// Counts the segments in which writes failed since the last one that succeeded, whichever calls
/// they are of.
#[derive(Debug, Default)]
pub(super) struct FailingWrites {
    segments: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last generations in which writes failed since one succeeded. Each belongs to one
    /// segment, which is sealed: later failures in it are of writes that were in flight.
    generations: VecDeque<u64>,
    /// Media errors since the last write that succeeded: the next one shows that they are faults of
    /// segments.
    suspects: Vec<Suspect>,
    /// How many times in a row a checkpoint succeeded and the next write to a segment failed.
    failed_probations: u32,
    on_probation: bool,
}

impl FailingWrites {
    /// A write to a segment succeeded. If others had failed since the last success, returns those
    /// whose media errors were the faults of segments.
    pub(super) fn succeeded(&self) -> Option<Vec<Suspect>> {
        // Mostly there is nothing to change, in a cache line that all threads read.
        if self.segments.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let state = std::mem::take(&mut *self.lock());
        self.segments.store(0, Ordering::Relaxed);
        Some(state.suspects)
    }

    /// A checkpoint succeeded: the device may accept writes to segments again. A failure in one
    /// more segment shows that it does not.
    pub(super) fn on_probation(&self) {
        let mut state = self.lock();
        state.on_probation = true;
        self.segments.fetch_min(LIMIT - 1, Ordering::Relaxed);
    }

    /// How many times in a row a checkpoint succeeded and the next write to a segment failed.
    pub(super) fn failed_probations(&self) -> u32 {
        self.lock().failed_probations
    }

    /// A write to a segment failed. Returns whether the fault is the device's.
    pub(super) fn failed(&self, of: Suspect, is_media_error: bool) -> bool {
        let mut state = self.lock();
        let is_known = state.generations.contains(&of.generation);
        if is_known && state.on_probation {
            // As a rule it began before the checkpoint, when the device was at fault.
            return false;
        }
        if is_media_error && self.segments.load(Ordering::Relaxed) < LIMIT {
            state.suspects.push(of);
        }
        if !is_known {
            if state.generations.len() == REMEMBERED {
                state.generations.pop_front();
            }
            state.generations.push_back(of.generation);
            self.segments.fetch_add(1, Ordering::Relaxed);
        }
        let is_of_device = self.segments.load(Ordering::Relaxed) >= LIMIT;
        if is_of_device {
            state.suspects.clear();
            state.failed_probations += u32::from(std::mem::take(&mut state.on_probation));
        }
        is_of_device
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(generation: u64) -> Suspect {
        Suspect { segment: 7, generation }
    }

    #[test]
    fn three_segments_in_a_row_are_the_device() {
        let failing = FailingWrites::default();
        let failed = |generation| failing.failed(of(generation), true);
        assert!(!failed(1));
        assert!(!failed(1));
        assert!(!failed(2));
        failing.succeeded();
        assert!(!failed(3));
        assert!(!failed(4));
        assert!(failed(5));
        assert!(failed(5));
        failing.on_probation();
        assert!(failed(6));
        failing.succeeded();
        assert!(!failed(6));
        failing.on_probation();
        assert!(!failed(7));
    }

    #[test]
    fn a_segment_counts_once_whatever_fails_in_between() {
        let failing = FailingWrites::default();
        let failed = |generation| failing.failed(of(generation), true);
        assert!([1, 2, 1, 2, 1].into_iter().all(|generation| !failed(generation)));
        assert!(failed(3));
    }

    #[test]
    fn a_failure_from_before_a_checkpoint_does_not_count_after_it() {
        let failing = FailingWrites::default();
        assert!([1, 2, 3].into_iter().any(|generation| failing.failed(of(generation), true)));
        // One write succeeds and one fails, before the checkpoint is written.
        failing.succeeded();
        failing.failed(of(4), false);
        failing.on_probation();
        assert!(!failing.failed(of(4), true), "it is the same segment");
        assert!(!failing.failed(of(5), true), "it is the second one");
        assert!(failing.failed(of(6), true));

        failing.on_probation();
        assert!((4..7).all(|generation| !failing.failed(of(generation), true)));
        assert_eq!(failing.succeeded(), Some(Vec::new()), "the device was at fault");
    }

    #[test]
    fn a_success_shows_that_media_errors_are_those_of_segments() {
        let failing = FailingWrites::default();
        assert_eq!(failing.succeeded(), None);
        failing.failed(of(1), true);
        failing.failed(of(1), true);
        failing.failed(of(2), false);
        assert_eq!(failing.succeeded(), Some(vec![of(1), of(1)]));
        assert_eq!(failing.succeeded(), None);
        assert!((3..6).any(|generation| failing.failed(of(generation), true)));
        assert_eq!(failing.succeeded(), Some(Vec::new()), "it was the device");
    }

    #[test]
    fn probations_that_fail_are_counted_until_a_write_succeeds() {
        let failing = FailingWrites::default();
        assert!((1..5).any(|generation| failing.failed(of(generation), true)));
        assert_eq!(failing.failed_probations(), 0);
        for round in 1..4 {
            failing.on_probation();
            failing.failed(of(10 + u64::from(round)), true);
            failing.failed(of(20 + u64::from(round)), true);
            assert_eq!(failing.failed_probations(), round);
        }
        failing.succeeded();
        assert_eq!(failing.failed_probations(), 0);
    }
}

//! What the store was asked, and how it went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The counters of one open store at one moment. Everything counts from when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Slots in all.
    pub slots: u64,
    /// Slots that hold a live object: the number of keys.
    pub live_slots: u64,
    /// Slots that can be written now.
    pub free_slots: u64,
    /// Slots that were given up, and wait for a checkpoint, a flush, gets under way or pins.
    pub waiting_slots: u64,
    /// Slots that are pinned.
    pub pinned_slots: u64,
    /// Changes that the committed checkpoint does not speak for.
    pub uncovered_changes: u64,
    /// Objects that were put.
    pub puts: u64,
    /// Objects that were found and passed their checks.
    pub hits: u64,
    /// Keys that were not there.
    pub misses: u64,
    /// Objects that were there and failed a check: damaged on the device.
    pub failed_checks: u64,
    /// Keys that were deleted.
    pub deletes: u64,
    /// Objects that were evicted.
    pub evictions: u64,
    /// Checkpoints that were committed.
    pub checkpoints: u64,
    /// How long they took: half of them no longer than this.
    pub checkpoint_median: Duration,
    /// How long the longest of them took.
    pub checkpoint_longest: Duration,
}

/// The counters that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) puts: Counter,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) failed_checks: Counter,
    pub(crate) deletes: Counter,
    pub(crate) evictions: Counter,
    pub(crate) checkpoints: Times,
}

/// How long something took that is done now and then: in microseconds, exact to one per cent.
#[derive(Debug)]
pub(crate) struct Times(Mutex<Histogram<u64>>);

impl Default for Times {
    fn default() -> Self {
        // One hour is the longest that is told from longer ones.
        let times = Histogram::new_with_bounds(1, 3_600_000_000, 2).unwrap_or_else(|_| {
            unreachable!("the bounds are constants that the histogram accepts")
        });
        Self(Mutex::new(times))
    }
}

impl Times {
    pub(crate) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.with(|times| times.saturating_record(micros));
    }

    pub(crate) fn count(&self) -> u64 {
        self.with(|times| times.len())
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        self.with(|times| Duration::from_micros(times.value_at_quantile(quantile)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Histogram<u64>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

//! What the store was asked, and how it went.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The counters of one open store at one moment. Everything counts from when it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Slots that are quarantined: the outcome of a write to them is unknown, so they are not written again
    /// before the device is opened again.
    pub quarantined_slots: u64,
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
    /// Objects that were there and failed a check, also when the store was recovered: damaged on the device.
    pub failed_checks: u64,
    /// Keys that were deleted.
    pub deletes: u64,
    /// Objects that were evicted.
    pub evictions: u64,
    /// Checkpoints that were committed.
    pub checkpoints: u64,
    /// How long batches took to put: each call of [`put_many`](crate::Store::put_many), waits for room included.
    pub put_latency: Latency,
    /// How long batches took to get: each call of [`get_many`](crate::Store::get_many), and each read of a pinned
    /// object.
    pub get_latency: Latency,
    /// How long those checkpoints took.
    pub checkpoint_latency: Latency,
}

/// How long something took, each time that it was done: a histogram, exact to one per cent, up to one hour.
#[derive(Clone, PartialEq)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// How many times it was done.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time below which `quantile` (0.0 to 1.0) of all times stayed; zero if there is none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }
}

impl Default for Latency {
    fn default() -> Self {
        let hour = 3_600_000_000_000;
        Self(Histogram::new_with_bounds(1, hour, 2).unwrap_or_else(|_| {
            unreachable!("the bounds are constants that the histogram accepts")
        }))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("longest", &self.quantile(1.0))
            .finish()
    }
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
    pub(crate) put_latency: Times,
    pub(crate) get_latency: Times,
    pub(crate) checkpoint_latency: Times,
}

/// A [`Latency`] that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Times(Mutex<Latency>);

impl Times {
    /// What began then is over.
    pub(crate) fn add_since(&self, began: Instant) {
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.with(|Latency(times)| times.saturating_record(nanos));
    }

    pub(crate) fn get(&self) -> Latency {
        self.with(|times| times.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Latency) -> T) -> T {
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

//! How long calls took.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// How long something took, each time that it was done: a histogram, exact to one per cent, up to
/// one hour.
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

/// A [`Latency`] that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Times(Mutex<Latency>);

impl Times {
    /// What began then has ended.
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

//! Whether the device answers.

use std::time::{Duration, Instant};

use super::evidence::Evidence;
use super::options::AsyncOptions;
use crate::Error;

/// How many probes in a row have to succeed before the front accepts requests again.
const PROBES_TO_RECOVER: u32 = 2;

/// Whether the device answers, as the front sees it.
///
/// While it is slow or failed, the front answers without the device: keys are absent, and gets and
/// changes are refused with [`Error::Unavailable`](crate::Error::Unavailable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrontHealth {
    /// It does.
    #[default]
    Healthy,
    /// A call has been in progress for longer than
    /// [`AsyncOptions::slow_after`](crate::AsyncOptions::slow_after).
    Slow,
    /// The last calls failed, as many as
    /// [`AsyncOptions::failed_after`](crate::AsyncOptions::failed_after).
    Failed,
}

/// Follows the calls of the front, and decides when the device is slow, failed, or works again.
#[derive(Debug)]
pub(super) struct HealthTracker {
    slow_after: Duration,
    failed_after: u32,
    probe_interval: Duration,
    current: FrontHealth,
    /// Why it is not healthy.
    reason: String,
    failures: u32,
    passed_probes: u32,
    probe: Probe,
}

/// The next read that finds out whether the device works.
#[derive(Debug, PartialEq, Eq)]
enum Probe {
    Unneeded,
    At(Instant),
    /// A worker is to execute it.
    Due,
    Running,
}

impl HealthTracker {
    pub(super) fn new(options: &AsyncOptions) -> Self {
        Self {
            slow_after: options.slow_after,
            failed_after: options.failed_after.max(1),
            probe_interval: options.probe_interval,
            current: FrontHealth::Healthy,
            reason: String::new(),
            failures: 0,
            passed_probes: 0,
            probe: Probe::Unneeded,
        }
    }

    pub(super) fn current(&self) -> FrontHealth {
        self.current
    }

    /// Why it is not healthy; empty if it is.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// A call has ended. Returns whether the device is found failed from now on.
    pub(super) fn call_ended(&mut self, evidence: &Evidence, now: Instant) -> bool {
        match evidence {
            Evidence::None => return false,
            Evidence::Works => self.failures = 0,
            Evidence::Fails(_) => self.failures = self.failures.saturating_add(1),
        }
        let Evidence::Fails(error) = evidence else { return false };
        if self.failures < self.failed_after || self.current == FrontHealth::Failed {
            return false;
        }
        let reason = format!("{} calls in a row failed, the last one: {error}", self.failures);
        self.worsen(FrontHealth::Failed, reason, now);
        true
    }

    /// Compares the oldest call in progress with the clock. Returns whether the device is found
    /// slow from now on.
    pub(super) fn watch(&mut self, now: Instant, oldest: Option<Instant>) -> bool {
        if matches!(self.probe, Probe::At(at) if at <= now) {
            self.probe = Probe::Due;
        }
        let is_slow = self.current == FrontHealth::Healthy && self.is_old(now, oldest);
        if is_slow {
            let reason = format!("a call has been in progress for {:?}", self.slow_after);
            self.worsen(FrontHealth::Slow, reason, now);
        }
        is_slow
    }

    /// When [`watch`](Self::watch) has to be called next.
    pub(super) fn next_moment(&self, oldest: Option<Instant>) -> Option<Instant> {
        match (self.current, &self.probe) {
            (FrontHealth::Healthy, _) => {
                oldest.and_then(|began| began.checked_add(self.slow_after))
            }
            (_, &Probe::At(at)) => Some(at),
            _ => None,
        }
    }

    /// Whether a worker is to probe the device.
    pub(super) fn is_probe_due(&self) -> bool {
        self.probe == Probe::Due
    }

    /// A worker begins the probe that is due.
    pub(super) fn begin_probe(&mut self) {
        self.probe = Probe::Running;
    }

    /// A probe that began then has ended. Returns whether the device works again.
    pub(super) fn probe_ended(
        &mut self,
        began: Instant,
        now: Instant,
        result: &Result<(), Error>,
        oldest: Option<Instant>,
    ) -> bool {
        let in_time = now.saturating_duration_since(began) < self.slow_after;
        let passed = result.is_ok() && in_time && !self.is_old(now, oldest);
        self.passed_probes = if passed { self.passed_probes + 1 } else { 0 };
        let works = self.passed_probes >= PROBES_TO_RECOVER;
        if works {
            self.current = FrontHealth::Healthy;
            self.reason.clear();
            self.failures = 0;
        }
        self.probe = if works { Probe::Unneeded } else { self.next_probe(now) };
        works
    }

    fn worsen(&mut self, to: FrontHealth, reason: String, now: Instant) {
        self.current = to;
        self.reason = reason;
        self.passed_probes = 0;
        if self.probe == Probe::Unneeded {
            self.probe = self.next_probe(now);
        }
    }

    fn next_probe(&self, now: Instant) -> Probe {
        now.checked_add(self.probe_interval).map_or(Probe::Due, Probe::At)
    }

    fn is_old(&self, now: Instant, oldest: Option<Instant>) -> bool {
        oldest.is_some_and(|began| now.saturating_duration_since(began) >= self.slow_after)
    }
}

#[cfg(test)]
mod tests {
    use raw_block_core::ErrorKind;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tracker() -> (HealthTracker, Instant) {
        let options = AsyncOptions::new().slow_after(SECOND).failed_after(2).probe_interval(SECOND);
        (HealthTracker::new(&options), Instant::now())
    }

    fn failure() -> Error {
        let error = raw_block_core::Error::new(ErrorKind::Io, "read", "it failed");
        Error::Device { context: "get an object", error }
    }

    #[test]
    fn failures_count_only_in_a_row() {
        let (mut health, now) = tracker();
        let fails = Evidence::Fails(failure());
        assert!(!health.call_ended(&fails, now));
        assert!(!health.call_ended(&Evidence::Works, now));
        assert!(!health.call_ended(&fails, now));
        assert!(!health.call_ended(&Evidence::None, now), "it says nothing");
        assert!(health.call_ended(&fails, now));
        assert_eq!(health.current(), FrontHealth::Failed);
        assert!(health.reason().contains("it failed"));
        assert!(!health.call_ended(&fails, now), "it was failed already");
    }

    #[test]
    fn a_call_is_slow_at_the_threshold() {
        let (mut health, began) = tracker();
        assert_eq!(health.next_moment(Some(began)), Some(began + SECOND));
        assert!(!health.watch(began + SECOND / 2, Some(began)));
        assert!(!health.watch(began + SECOND, None));
        assert!(health.watch(began + SECOND, Some(began)));
        assert_eq!(health.current(), FrontHealth::Slow);
        assert!(!health.watch(began + SECOND, Some(began)), "it was slow already");
    }

    #[test]
    fn probes_in_a_row_end_bad_health() {
        let (mut health, began) = tracker();
        assert!(health.watch(began + SECOND, Some(began)));
        let mut now = began + SECOND;
        let mut probe = |took: Duration, result: Result<(), Error>, oldest| {
            assert_eq!(health.next_moment(None), Some(now + SECOND));
            assert!(!health.watch(now + SECOND, oldest) && health.is_probe_due());
            health.begin_probe();
            assert!(!health.is_probe_due() && health.next_moment(None).is_none());
            let began = now + SECOND;
            now = began + took;
            health.probe_ended(began, now, &result, oldest)
        };
        assert!(!probe(Duration::ZERO, Ok(()), None));
        assert!(!probe(Duration::ZERO, Err(failure()), None), "only those in a row count");
        assert!(!probe(Duration::ZERO, Ok(()), None));
        assert!(!probe(SECOND, Ok(()), None), "it was slow");
        assert!(!probe(Duration::ZERO, Ok(()), None));
        assert!(!probe(Duration::ZERO, Ok(()), Some(began)), "a call is still in progress");
        assert!(!probe(Duration::ZERO, Ok(()), None));
        assert!(probe(Duration::ZERO, Ok(()), None));
        assert_eq!((health.current(), health.reason()), (FrontHealth::Healthy, ""));
        assert_eq!(health.next_moment(None), None);
    }
}

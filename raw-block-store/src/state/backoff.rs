//! How long the background worker waits after a failure, and how many calls there are between the
//! attempts that they make for themselves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(10);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(10);

/// The waits after failures in a row, each twice as long as the one before.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure, and returns how long to wait.
    pub(crate) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        wait_after(self.failures)
    }

    /// Notes a success, and returns how many failures went before it.
    pub(crate) fn succeeded(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }
}

/// How long to wait after this number of consecutive failures.
pub(crate) fn wait_after(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    SHORTEST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST)
}

/// The most calls between two attempts.
const MOST_CALLS: u32 = 64;

/// Which calls of a store without a background worker make an attempt: the first one, and then,
/// while attempts fail, after twice as many calls each time. A number of calls, so that a
/// simulation always does the same.
#[derive(Debug, Default)]
pub(crate) struct CallBackoff {
    calls: AtomicU32,
}

impl CallBackoff {
    /// Whether this call makes an attempt.
    pub(crate) fn is_due(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        call.is_power_of_two() && call < MOST_CALLS || call.is_multiple_of(MOST_CALLS)
    }

    /// Notes a success.
    pub(crate) fn succeeded(&self) {
        self.calls.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_between_attempts_double_up_to_a_limit() {
        let backoff = CallBackoff::default();
        let due = || (1..200).filter(|_| backoff.is_due()).collect::<Vec<_>>();
        assert_eq!(due(), [1, 2, 4, 8, 16, 32, 64, 128, 192]);
        backoff.succeeded();
        assert_eq!(due()[..3], [1, 2, 4]);
    }

    #[test]
    fn waits_double_up_to_a_limit_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(), SHORTEST);
        assert_eq!(backoff.failed(), 2 * SHORTEST);
        assert_eq!(backoff.failed(), 4 * SHORTEST);
        for _ in 0..100 {
            assert!(backoff.failed() <= LONGEST);
        }
        assert_eq!(backoff.failed(), LONGEST);
        assert_eq!(backoff.succeeded(), 104);
        assert_eq!(backoff.failed(), SHORTEST);
    }
}

//! How long the background worker waits after a failure.

use std::time::Duration;

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(10);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(10);

/// The waits after failures in a row, each twice as long as the one before.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure, and returns how long to wait.
    pub(super) fn failed(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        SHORTEST.saturating_mul(factor).min(LONGEST)
    }

    /// Notes a success, and returns how many failures went before it.
    pub(super) fn succeeded(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

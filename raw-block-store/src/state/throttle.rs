//! How the writing of a checkpoint leaves the device to calls.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use raw_block_core::sync;

/// A checkpoint writes during one of this many parts of the time.
const PARTS: u32 = 32;
/// No pause is longer. A write that would ask for more was itself kept waiting, by a flush for
/// example.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a checkpoint pauses after a write that took this long.
pub(crate) fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PARTS - 1).min(LONGEST_PAUSE)
}

/// The pauses of checkpoints. There are none while a caller waits for a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// How many callers wait.
    waiting: Mutex<usize>,
    /// Signalled when another caller waits.
    suspended: Condvar,
}

impl Throttle {
    /// Ends the pause of a checkpoint in progress, and lets none begin until the guard is dropped.
    pub(crate) fn suspend(&self) -> ThrottleSuspension<'_> {
        *sync::lock(&self.waiting) += 1;
        self.suspended.notify_all();
        ThrottleSuspension { throttle: self }
    }

    /// Pauses for at most this long.
    pub(crate) fn pause(&self, at_most: Duration) {
        let waiting = sync::lock(&self.waiting);
        if *waiting == 0 {
            drop(sync::wait_for(&self.suspended, &self.waiting, waiting, at_most));
        }
    }
}

/// Keeps checkpoints from pausing: a caller waits for one, or takes one to get space.
#[must_use = "checkpoints do not pause until it is dropped"]
pub(crate) struct ThrottleSuspension<'a> {
    throttle: &'a Throttle,
}

impl Drop for ThrottleSuspension<'_> {
    fn drop(&mut self) {
        *sync::lock(&self.throttle.waiting) -= 1;
    }
}

/// How much of a body is written, in blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteProgress {
    pub(crate) written: u64,
    pub(crate) of: u64,
}

/// Whether a checkpoint that was `progress` far can take its time: of the `spare` segments that
/// were free when it began, no larger part is used up than is written of the body.
pub(crate) fn is_in_time(progress: WriteProgress, spare: u64, used: u64) -> bool {
    u128::from(used) * u128::from(progress.of) <= u128::from(spare) * u128::from(progress.written)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_pause_is_many_times_the_write_and_has_a_limit() {
        assert_eq!(pause_after(Duration::from_micros(200)), Duration::from_micros(6200));
        assert_eq!(pause_after(Duration::from_secs(1)), LONGEST_PAUSE);
        assert_eq!(pause_after(Duration::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_pause_ends_when_a_caller_waits_and_none_begins_until_then() {
        const LONG: Duration = Duration::from_secs(100);
        let (throttle, began) = (Throttle::default(), Instant::now());
        thread::scope(|scope| {
            let pausing = scope.spawn(|| throttle.pause(LONG));
            // It is likely to have begun, and ends whether it had or not.
            thread::sleep(Duration::from_millis(50));
            let _unthrottled = throttle.suspend();
            pausing.join().unwrap();
            throttle.pause(LONG);
        });
        assert!(began.elapsed() < LONG, "it did not last");
        assert_eq!(*throttle.waiting.lock().unwrap(), 0);
    }

    #[test]
    fn a_checkpoint_is_in_time_while_free_space_outlasts_it() {
        let half = WriteProgress { written: 50, of: 100 };
        assert!(is_in_time(half, 10, 5));
        assert!(!is_in_time(half, 10, 6));
        assert!(is_in_time(WriteProgress { written: 100, of: 100 }, 10, 10));
        assert!(!is_in_time(WriteProgress { written: 0, of: 100 }, 10, 1));
        assert!(is_in_time(WriteProgress { written: 0, of: 0 }, 0, 0));
    }
}

//! How a checkpoint leaves the device to the puts and gets beside it.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use raw_block_core::waiting;

/// A checkpoint writes during one of so many parts of the time.
const PARTS: u32 = 32;
/// No pause is longer. A write that would ask for more was itself kept waiting, by a flush for example.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a checkpoint pauses behind a write that took so long.
pub(crate) fn pause_behind(took: Duration) -> Duration {
    took.saturating_mul(PARTS - 1).min(LONGEST_PAUSE)
}

/// The pauses of a checkpoint, which end when somebody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many wait.
    waiting: Mutex<usize>,
    /// Signalled when there is one more.
    hurry: Condvar,
}

impl Pace {
    /// Locks what a checkpoint holds while it is written. One that is under way makes no pause until then.
    pub(crate) fn lock<'a, T>(&self, held: &'a Mutex<T>) -> MutexGuard<'a, T> {
        *waiting::lock(&self.waiting) += 1;
        self.hurry.notify_all();
        let guard = waiting::lock(held);
        *waiting::lock(&self.waiting) -= 1;
        guard
    }

    /// Pauses for no longer than this.
    pub(crate) fn pause(&self, at_most: Duration) {
        let waiting = waiting::lock(&self.waiting);
        if *waiting == 0 {
            drop(waiting::wait_for(&self.hurry, &self.waiting, waiting, at_most));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const AN_HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_pause_is_many_times_the_write_and_has_an_end() {
        assert_eq!(pause_behind(Duration::from_micros(200)), Duration::from_micros(6200));
        assert_eq!(pause_behind(Duration::from_secs(1)), LONGEST_PAUSE);
        assert_eq!(pause_behind(Duration::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_pause_ends_when_somebody_waits_and_none_begins_while_somebody_does() {
        let (pace, held) = (Pace::default(), Mutex::new(()));
        thread::scope(|scope| {
            let guard = held.lock().unwrap();
            scope.spawn(|| drop(pace.lock(&held)));
            // Whichever of the two comes first.
            while *pace.waiting.lock().unwrap() == 0 {
                pace.pause(AN_HOUR);
            }
            pace.pause(AN_HOUR);
            drop(guard);
        });
        assert_eq!(*pace.waiting.lock().unwrap(), 0);
    }
}

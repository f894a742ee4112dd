//! How calls wake the background worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wakes the background worker, and ends it.
///
/// The worker is no part of a simulation, so its waits do not go through the deterministic
/// scheduler.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Whether a worker sleeps, and nothing woke it: a look at this costs next to nothing.
    idle: AtomicBool,
    present: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    woken: bool,
    ended: bool,
}

impl Signal {
    /// Whether a worker sleeps, and would do something if it was [woken](Self::wake).
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether there is a worker.
    pub(crate) fn is_present(&self) -> bool {
        self.present.load(Ordering::Relaxed)
    }

    /// Lets the worker look whether there is something to do.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.idle.store(false, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Ends the worker when it has done what it is doing.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.present.store(false, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Whether the worker is to end.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// A worker begins. It looks for something to do at once.
    pub(crate) fn begin(&self) {
        *self.lock() = State { woken: true, ended: false };
        self.present.store(true, Ordering::Relaxed);
    }

    /// Waits until woken. Returns `false` when the worker is to end.
    pub(crate) fn wait(&self) -> bool {
        let sleeps = |state: &mut State| {
            let sleeps = !state.woken && !state.ended;
            self.idle.store(sleeps, Ordering::Relaxed);
            sleeps
        };
        let state = self.changed.wait_while(self.lock(), sleeps);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        !state.ended
    }

    /// Waits this long, whether woken or not. Returns `false` when the worker is to end.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = self.lock();
        while !state.ended {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_signal_wakes_once_and_ends_for_good() {
        let signal = Signal::default();
        assert!(!signal.is_idle(), "there is no worker");
        signal.begin();
        assert!(signal.wait(), "a worker looks for work when it begins");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| signal.wait());
            while !signal.is_idle() {
                thread::yield_now();
            }
            signal.wake();
            assert!(!signal.is_idle());
            assert!(waiting.join().unwrap());
            let pausing = scope.spawn(|| signal.pause(Duration::from_secs(100)));
            signal.end();
            assert!(!pausing.join().unwrap());
        });
        assert!(!signal.wait() && signal.has_ended());
    }

    #[test]
    fn a_pause_lasts_although_it_is_woken() {
        let signal = Signal::default();
        signal.begin();
        let began = Instant::now();
        signal.wake();
        assert!(signal.pause(Duration::from_millis(20)));
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}

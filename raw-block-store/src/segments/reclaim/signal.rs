//! How calls wake the background worker.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wakes the background worker, and ends it.
///
/// The worker is no part of a simulation, so its waits do not go through the deterministic scheduler.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a worker sleeps here or will look here again. Without one nothing is signalled.
    listening: bool,
    woken: bool,
    ended: bool,
}

impl Signal {
    /// Lets the worker look whether there is something to do.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        if state.listening && !state.woken {
            state.woken = true;
            self.changed.notify_one();
        }
    }

    /// Ends the worker when it has done what it is doing.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Whether the worker is to end.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// A worker begins.
    pub(super) fn listen(&self) {
        let mut state = self.lock();
        *state = State { listening: true, woken: true, ended: false };
    }

    /// Waits until woken. Returns `false` when the worker is to end.
    pub(super) fn wait(&self) -> bool {
        let sleeps = |state: &mut State| !state.woken && !state.ended;
        let state = self.changed.wait_while(self.lock(), sleeps);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        !state.ended
    }

    /// Waits this long, whether woken or not. Returns `false` when the worker is to end.
    pub(super) fn pause(&self, time: Duration) -> bool {
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
        signal.wake();
        signal.listen();
        assert!(signal.wait(), "a worker looks for work when it begins");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| signal.wait());
            signal.wake();
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
        signal.listen();
        let began = Instant::now();
        signal.wake();
        assert!(signal.pause(Duration::from_millis(20)));
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}

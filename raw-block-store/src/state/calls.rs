//! The calls in progress, which closing a store waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use raw_block_core::sync;

/// Set when calls are refused.
const CLOSED: u64 = 1;
/// Added for each call in progress.
const CALL: u64 = 2;

/// Counts the calls in progress. Once it is closed, it admits no more.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    state: AtomicU64,
    closing: Mutex<()>,
    /// Signalled when the last call has ended and no other may begin.
    ended: Condvar,
}

/// A call in progress.
#[derive(Debug)]
#[must_use = "the call is in progress until this is dropped"]
pub(crate) struct CallGuard<'a> {
    calls: &'a Calls,
}

impl Calls {
    /// Begins a call; `None` after [`close`](Self::close).
    pub(super) fn begin(&self) -> Option<CallGuard<'_>> {
        let before = self.state.fetch_add(CALL, Ordering::AcqRel);
        let call = CallGuard { calls: self };
        (before & CLOSED == 0).then_some(call)
    }

    /// Refuses calls from now on, and waits until those in progress have ended.
    pub(crate) fn close(&self) {
        if self.state.fetch_or(CLOSED, Ordering::AcqRel) < CALL {
            return;
        }
        let mut guard = sync::lock(&self.closing);
        while self.state.load(Ordering::Acquire) != CLOSED {
            guard = sync::wait(&self.ended, &self.closing, guard);
        }
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if self.calls.state.fetch_sub(CALL, Ordering::AcqRel) == CLOSED + CALL {
            // With the lock, so that `close` either sees the count or waits already.
            let _guard = sync::lock(&self.calls.closing);
            self.calls.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn closing_waits_for_calls_and_admits_no_others() {
        let (calls, closed) = (Calls::default(), AtomicBool::new(false));
        let (first, second) = (calls.begin().unwrap(), calls.begin().unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                calls.close();
                closed.store(true, Ordering::SeqCst);
            });
            while calls.begin().is_some() {
                thread::yield_now();
            }
            drop(first);
            assert!(calls.begin().is_none());
            assert!(!closed.load(Ordering::SeqCst), "the second call is in progress");
            drop(second);
        });
        assert!(closed.load(Ordering::SeqCst) && calls.begin().is_none());
        calls.close();
    }
}

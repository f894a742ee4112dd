//! The lanes of a pool that no caller has, and the threads that close theirs when they end.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};

use super::lane::Lane;
use crate::process;

/// The idle lanes of a pool, and how many it has.
///
/// Apart from the pool, so that a thread that ends does not keep the backend open: its caller may
/// have joined it only as far as its results go, and may be about to open the device again.
pub(super) struct Lanes {
    /// The process that opened the device: a forked child shares neither its rings nor its threads.
    process: u32,
    state: Mutex<State>,
    /// Signalled when a lane is idle or closed.
    returned: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) idle: Vec<Lane>,
    /// Lanes that exist, idle or lent.
    pub(super) open: usize,
    /// Threads that end and are closing their lanes.
    ending: usize,
    /// Callers that wait for a lane. A signal that no thread waits for would be a system call.
    waiting: usize,
}

impl State {
    /// An idle lane that any thread may use.
    pub(super) fn take_shared(&mut self) -> Option<Lane> {
        self.take(|lane| lane.owner().is_none())
    }

    /// An idle lane, whichever thread may use it.
    pub(super) fn take_any(&mut self) -> Option<Lane> {
        self.take(|_| true)
    }

    pub(super) fn take(&mut self, wanted: impl Fn(&Lane) -> bool) -> Option<Lane> {
        let position = self.idle.iter().rposition(wanted)?;
        Some(self.idle.swap_remove(position))
    }
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { process: process::id(), state: Mutex::default(), returned: Condvar::new() }
    }

    /// In a forked child the lock may have no owner: do not take it there.
    pub(super) fn are_of_this_process(&self) -> bool {
        process::id() == self.process
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a lane is returned or closed, or for no reason at all.
    pub(super) fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let mut state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    /// Takes a lane back, or notes that what was lent is broken, or was not even `opened`. Returns
    /// the lane if it is beyond the limit.
    pub(super) fn take_back(
        &self,
        lane: Option<Lane>,
        opened: bool,
        max_lanes: usize,
    ) -> Option<Lane> {
        let mut state = self.state();
        let kept = lane.is_some() && state.open <= max_lanes;
        let mut beyond = lane;
        if kept {
            state.idle.extend(beyond.take());
        } else {
            state.open -= 1;
        }
        if opened && state.waiting > 0 {
            self.returned.notify_one();
        } else if !opened && state.open == 0 {
            // The callers that wait cannot open a queue either, and need to know only when nothing
            // is left to wait for.
            self.returned.notify_all();
        }
        beyond
    }

    /// Closes an idle lane, so that what it holds can be had again. Returns whether there was one.
    pub(super) fn close_idle(&self) -> bool {
        let mut state = self.state();
        let lane = state.take_any();
        state.open -= usize::from(lane.is_some());
        drop(state);
        lane.is_some()
    }

    /// Has the calling thread close its idle lanes when it ends. Returns whether it will: not when
    /// it ends already.
    pub(super) fn close_with_this_thread(self: &Arc<Self>) -> bool {
        let noted = USED.try_with(|used| {
            let mut used = used.0.borrow_mut();
            used.retain(|lanes| lanes.strong_count() > 0);
            let this = Arc::downgrade(self);
            if !used.iter().any(|lanes| lanes.ptr_eq(&this)) {
                used.push(this);
            }
        });
        noted.is_ok()
    }

    /// Closes the idle lanes of a thread, which calls this as it ends: of a ring of one thread, no
    /// other can give back what it holds.
    fn close_those_of(&self, thread: ThreadId) {
        if !self.are_of_this_process() {
            return;
        }
        let mut state = self.state();
        let lanes: Vec<_> =
            state.idle.extract_if(.., |lane| lane.owner() == Some(thread)).collect();
        if lanes.is_empty() {
            return;
        }
        let closed = lanes.len();
        state.ending += 1;
        drop(state);
        for lane in lanes {
            // A panic in the end of a thread would end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(lane)));
        }
        let mut state = self.state();
        state.ending -= 1;
        state.open -= closed;
        drop(state);
        self.returned.notify_all();
    }

    /// Closes all idle lanes, and returns when no lane is left: not even one that a thread closes
    /// which ends.
    pub(super) fn close(&self) {
        if !self.are_of_this_process() {
            return;
        }
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        drop(
            self.returned
                .wait_while(state, |state| state.ending > 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
        drop(idle);
    }
}

/// The pools in which a thread has its own lanes. When the thread ends it closes them.
struct Used(RefCell<Vec<Weak<Lanes>>>);

thread_local! {
    static USED: Used = const { Used(RefCell::new(Vec::new())) };
}

impl Drop for Used {
    fn drop(&mut self) {
        let thread = thread::current().id();
        for lanes in self.0.get_mut().drain(..) {
            if let Some(lanes) = lanes.upgrade() {
                lanes.close_those_of(thread);
            }
        }
    }
}

//! What the submitter of a batch and the driver share: the results, once there are any.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};
use std::task::Waker;
use std::time::Instant;

use crate::dispatch::ticket::Finished;
use crate::{Buffer, Error, ErrorKind, process, sync};

/// The results of a batch of a driver.
#[derive(Debug)]
pub(in crate::dispatch) struct Outcome {
    /// The process whose driver runs the batch. In a forked child nothing completes it.
    process: u32,
    transfers: usize,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// Whether the ticket is gone.
    abandoned: bool,
    finished: Option<Vec<Finished>>,
    /// Woken when the batch has ended.
    waker: Option<Waker>,
}

impl Outcome {
    /// The outcome of a batch of this many transfers.
    pub(in crate::dispatch) fn new(transfers: usize) -> Self {
        let process = process::id();
        Self { process, transfers, state: Mutex::default(), ended: Condvar::new() }
    }

    /// The results in a forked child: none of its buffers reaches it.
    fn lost_by_fork(&self) -> Option<Vec<Finished>> {
        if process::id() == self.process {
            return None;
        }
        let rule = "this process is a forked child of the one that started the batch";
        let error = Error::new(ErrorKind::Forked, "wait for a batch", rule);
        let lost =
            || Finished { buffer: Buffer::default(), more: Vec::new(), result: Err(error.clone()) };
        Some(std::iter::repeat_with(lost).take(self.transfers).collect())
    }

    /// Stores the results, and wakes the threads and the task that wait for them. Without a ticket
    /// the memory is freed. Calls `count` after that, and before the ticket shows the results.
    pub(in crate::dispatch) fn publish(&self, finished: Vec<Finished>, count: impl FnOnce()) {
        let mut state = sync::lock(&self.state);
        state.ended = true;
        if !state.abandoned {
            state.finished = Some(finished);
        } else {
            drop(finished);
        }
        count();
        let waker = state.waker.take();
        drop(state);
        self.ended.notify_all();
        // A waker is the caller's code: its panic must not end the driver.
        if catch_unwind(AssertUnwindSafe(|| waker.map(Waker::wake))).is_err() {
            tracing::error!("the waker of a ticket panicked");
        }
    }

    /// Drops the results, now or when there are some.
    pub(in crate::dispatch) fn abandon(&self) {
        if process::id() == self.process {
            let mut state = sync::lock(&self.state);
            state.abandoned = true;
            let left = (state.waker.take(), state.finished.take());
            drop(state);
            drop(left);
        }
    }

    /// Takes the results, if the batch has completed and they were not taken.
    pub(in crate::dispatch) fn try_take(&self) -> Option<Vec<Finished>> {
        self.lost_by_fork().or_else(|| sync::lock(&self.state).finished.take())
    }

    /// Takes the results, or has `waker` woken when there are some. Empty if they were taken.
    pub(in crate::dispatch) fn poll(&self, waker: &Waker) -> Option<Vec<Finished>> {
        if let Some(lost) = self.lost_by_fork() {
            return Some(lost);
        }
        let mut state = sync::lock(&self.state);
        if state.ended {
            return Some(state.finished.take().unwrap_or_default());
        }
        match &mut state.waker {
            Some(present) => present.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        None
    }

    /// Waits for the results until `deadline`, and takes them.
    pub(in crate::dispatch) fn take(&self, deadline: Option<Instant>) -> Option<Vec<Finished>> {
        if let Some(lost) = self.lost_by_fork() {
            return Some(lost);
        }
        let mut state = sync::lock(&self.state);
        while !state.ended {
            let Some(deadline) = deadline else {
                state = sync::wait(&self.ended, &self.state, state);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = sync::wait_timeout(&self.ended, &self.state, state, left).0;
        }
        state.finished.take()
    }
}

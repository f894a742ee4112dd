//! Where submitters leave jobs for the thread of a driver, and how they wake it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::outcome::Outcome;
use crate::backend::OpKind;
use crate::{Error, OwnedTransfer, sync};

/// A batch that no thread has begun.
pub(in crate::dispatch) struct Job {
    pub(in crate::dispatch) kind: OpKind,
    pub(in crate::dispatch) transfers: Vec<OwnedTransfer>,
    pub(in crate::dispatch) outcome: Arc<Outcome>,
}

/// The jobs that the thread has not taken.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Signalled when the thread sleeps here, and a job arrives or the driver closes.
    arrived: Condvar,
    /// Signalled when the thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Set while the thread waits in a queue: ends that wait.
    waker: Option<Waker>,
    /// The thread, until it needs neither its queue nor the backend.
    thread: Option<ThreadId>,
    closing: bool,
    /// The number of jobs whose results are not published.
    open: usize,
}

impl Inbox {
    /// Adds a job, and wakes the thread. Calls `start` if there is none.
    ///
    /// # Errors
    /// The error of `start`, and the job.
    pub(super) fn add(
        &self,
        job: Job,
        start: impl FnOnce() -> Result<ThreadId, Error>,
    ) -> Result<(), (Error, Job)> {
        let mut state = sync::lock(&self.state);
        if state.thread.is_none() {
            match start() {
                Ok(thread) => state.thread = Some(thread),
                Err(error) => return Err((error, job)),
            }
        }
        state.jobs.push(job);
        state.open += 1;
        self.wake(state);
        Ok(())
    }

    /// Notes that the results of this many jobs are about to be published.
    pub(super) fn note_completed(&self, jobs: usize) {
        sync::lock(&self.state).open -= jobs;
    }

    /// Has the thread end once all jobs have completed. If they have, waits for its end.
    pub(super) fn close(&self) {
        let mut state = sync::lock(&self.state);
        state.closing = true;
        let idle = state.open == 0;
        self.wake(state);
        // A waker that the thread calls may drop the dispatcher.
        let ended = |state: &State| state.thread.is_none_or(|id| id == thread::current().id());
        let mut state = sync::lock(&self.state);
        while idle && !ended(&state) {
            state = sync::wait(&self.ended, &self.state, state);
        }
    }

    /// Whether the thread is to end once all jobs have completed.
    pub(super) fn is_closing(&self) -> bool {
        sync::lock(&self.state).closing
    }

    /// Notes that the thread ends, and drops its `device`.
    ///
    /// # Errors
    /// The device, if a job has arrived.
    pub(super) fn end<T>(&self, device: T) -> Result<(), T> {
        let mut state = sync::lock(&self.state);
        if !state.jobs.is_empty() {
            return Err(device);
        }
        drop(device);
        state.thread = None;
        drop(state);
        self.ended.notify_all();
        Ok(())
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        // One wake suffices until the thread looks here again.
        let waker = state.waker.take();
        drop(state);
        match waker {
            Some(waker) => waker.wake(),
            None => self.arrived.notify_one(),
        }
    }

    /// Announces that the thread is about to wait in a queue that `waker` wakes. Any job that
    /// arrives later ends that wait. Returns `false` if there is a job already.
    pub(super) fn announce_wait(&self, waker: &Waker) -> bool {
        let mut state = sync::lock(&self.state);
        let waits = state.jobs.is_empty();
        state.waker = waits.then(|| waker.clone());
        waits
    }

    /// Takes the jobs.
    pub(super) fn take(&self) -> Vec<Job> {
        let mut state = sync::lock(&self.state);
        state.waker = None;
        std::mem::take(&mut state.jobs)
    }

    /// Sleeps until a job arrives, the driver closes, or `limit` has passed. Returns whether it
    /// has passed.
    pub(super) fn sleep(&self, limit: Duration) -> bool {
        let mut state = sync::lock(&self.state);
        state.waker = None;
        let mut passed = false;
        while state.jobs.is_empty() && !state.closing && !passed {
            (state, passed) = sync::wait_timeout(&self.arrived, &self.state, state, limit);
        }
        passed
    }
}

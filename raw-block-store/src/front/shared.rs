//! What the handles, the workers and the timer of a front share.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use raw_block_core::{ErrorKind, process, sync};

use super::evidence::Evidence;
use super::job::{Job, QueueKind};
use super::options::AsyncOptions;
use super::request_queue::Queued;
use super::state::{Phase, Size, State, Task};
use crate::Error;

/// The shared part of a front. It does not keep the store open, so that a future that is kept for
/// long does not either.
#[derive(Debug)]
pub(super) struct Shared {
    device: String,
    /// The process that started the front: a forked child has none of its threads.
    process: u32,
    state: Mutex<Watched>,
    /// For each queue, signalled when its workers have something to do.
    work: [Condvar; QueueKind::ALL.len()],
    /// Signalled when the timer has to look sooner than it intended to.
    timer: Condvar,
    /// Signalled when a thread that closes the front may go on.
    settled: Condvar,
}

/// The state, and the threads that wait for it to change.
#[derive(Debug)]
struct Watched {
    state: State,
    /// Workers of each queue that wait.
    idle: [usize; QueueKind::ALL.len()],
    /// When the timer wakes; `None` if it waits for a signal.
    timer_wakes: Option<Instant>,
    timer_waits: bool,
    /// Threads that close the front, and wait.
    closers: usize,
}

impl Shared {
    pub(super) fn new(device: &str, options: &AsyncOptions) -> Self {
        let state = State::new(device.to_owned(), options);
        Self {
            device: device.to_owned(),
            process: process::id(),
            state: Mutex::new(Watched {
                state,
                idle: [0; QueueKind::ALL.len()],
                timer_wakes: None,
                timer_waits: false,
                closers: 0,
            }),
            work: Default::default(),
            timer: Condvar::new(),
            settled: Condvar::new(),
        }
    }

    /// Whether this is a forked child of the process that started the front. There a thread of the
    /// parent may have held any lock.
    pub(super) fn is_inherited(&self) -> bool {
        process::id() != self.process
    }

    /// # Errors
    /// [`Error::Device`] of kind [`ErrorKind::Forked`].
    pub(super) fn check_process(&self) -> Result<(), Error> {
        if !self.is_inherited() {
            return Ok(());
        }
        let rule = "this process is a forked child of the one that opened the store: open it here \
                    again";
        let error = raw_block_core::Error::new(ErrorKind::Forked, "use a store", rule);
        Err(Error::Device { context: "submit a request", error: error.on(self.device.as_str()) })
    }

    /// Accepts a request, which `make` returns for its id. Does not wait for the device, and looks
    /// nothing up.
    ///
    /// # Errors
    /// [`Error::Device`] in a forked child, [`Error::DeadlinePassed`], and those of
    /// [`State::check`]; `make` was not called.
    pub(super) fn submit(
        &self,
        size: Size,
        deadline: Option<Instant>,
        make: impl FnOnce(u64) -> Job,
    ) -> Result<u64, Error> {
        self.check_process()?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::DeadlinePassed);
        }
        let mut watched = sync::lock(&self.state);
        let state = &mut watched.state;
        state.check(size)?;
        let id = state.next_id();
        let job = make(id);
        if !state.is_healthy() {
            state.counters.turned_away += 1;
            let error = state.unavailable();
            drop(watched);
            job.miss(&error);
            return Ok(id);
        }
        let Size { kind, objects, bytes } = size;
        state.queue_mut(kind).push(Queued { id, deadline, objects, bytes, job });
        self.signal(watched);
        Ok(id)
    }

    /// Removes a request if it waits. Its result is not wanted any more.
    pub(super) fn cancel(&self, kind: QueueKind, id: u64) {
        let mut watched = sync::lock(&self.state);
        let cancelled = watched.state.queue_mut(kind).take_one(id);
        watched.state.counters.cancelled += u64::from(cancelled.is_some());
        self.signal(watched);
        drop(cancelled);
    }

    /// Removes the requests that wait and of which this is true.
    pub(super) fn cancel_if(&self, is_wanted: impl Fn(&Job) -> bool) {
        let mut watched = sync::lock(&self.state);
        let state = &mut watched.state;
        let cancelled: Vec<_> = QueueKind::ALL
            .into_iter()
            .flat_map(|kind| state.queue_mut(kind).take_if(&is_wanted))
            .collect();
        state.counters.cancelled += cancelled.len() as u64;
        self.signal(watched);
        drop(cancelled);
    }

    /// Waits for something to do for a worker of this queue. `None` when it is to end.
    pub(super) fn next(&self, kind: QueueKind) -> Option<Task> {
        let mut watched = sync::lock(&self.state);
        loop {
            let now = Instant::now();
            let expired = watched.state.take_expired(now);
            if !expired.is_empty() {
                self.signal(watched);
                expired.into_iter().for_each(|request| request.job.fail(&Error::DeadlinePassed));
                watched = sync::lock(&self.state);
                continue;
            }
            let task = watched.state.take(kind, now);
            if task.is_some() || watched.state.phase == Phase::Ended {
                self.signal(watched);
                return task;
            }
            watched.idle[kind as usize] += 1;
            watched = sync::wait(&self.work[kind as usize], &self.state, watched);
            watched.idle[kind as usize] -= 1;
        }
    }

    /// The requests that [`next`](Self::next) returned have been executed. Returns whether the
    /// health has changed.
    pub(super) fn ended(&self, kind: QueueKind, id: u64, evidence: &Evidence) -> bool {
        let mut watched = sync::lock(&self.state);
        let before = watched.state.health.current();
        let turned_away = watched.state.ended(kind, id, evidence, Instant::now());
        let changed = watched.state.health.current() != before;
        let error = changed.then(|| watched.state.unavailable());
        self.signal(watched);
        if let Some(error) = error {
            turned_away.into_iter().for_each(|request| request.job.miss(&error));
        }
        changed
    }

    /// Uses the state under its lock, and wakes the threads that the change concerns.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut watched = sync::lock(&self.state);
        let result = act(&mut watched.state);
        self.signal(watched);
        result
    }

    /// Waits for the next moment at which the timer has something to do, and then calls `act`.
    /// `None` when the timer is to end.
    pub(super) fn at_next_moment<T>(
        &self,
        act: impl FnOnce(&mut State, Instant) -> T,
    ) -> Option<T> {
        let mut watched = sync::lock(&self.state);
        loop {
            let now = Instant::now();
            if watched.state.phase == Phase::Ended {
                return None;
            }
            match watched.state.next_moment() {
                Some(moment) if moment <= now => {
                    let result = act(&mut watched.state, now);
                    self.signal(watched);
                    return Some(result);
                }
                next => {
                    watched.timer_wakes = next;
                    watched.timer_waits = true;
                    watched = match next {
                        None => sync::wait(&self.timer, &self.state, watched),
                        Some(moment) => {
                            let time = moment.saturating_duration_since(now);
                            sync::wait_timeout(&self.timer, &self.state, watched, time).0
                        }
                    };
                    watched.timer_waits = false;
                }
            }
        }
    }

    /// Waits until `done` is true, at most until `limit`. Returns whether it is.
    pub(super) fn wait_until(&self, limit: Option<Instant>, done: impl Fn(&State) -> bool) -> bool {
        let mut watched = sync::lock(&self.state);
        loop {
            if done(&watched.state) {
                return true;
            }
            let time = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
            if time.is_some_and(|time| time.is_zero()) {
                return false;
            }
            watched.closers += 1;
            watched = match time {
                None => sync::wait(&self.settled, &self.state, watched),
                Some(time) => sync::wait_timeout(&self.settled, &self.state, watched, time).0,
            };
            watched.closers -= 1;
        }
    }

    /// Releases the lock, and wakes the threads that a change of the state concerns. They would
    /// only wait for the lock if they were woken before.
    fn signal(&self, watched: MutexGuard<'_, Watched>) {
        let state = &watched.state;
        let ended = state.phase == Phase::Ended;
        let workers = QueueKind::ALL
            .map(|kind| watched.idle[kind as usize] > 0 && (ended || state.has_work(kind)));
        let is_early = is_sooner(state.next_moment(), watched.timer_wakes);
        let timer = watched.timer_waits && (ended || is_early);
        let closers = watched.closers > 0;
        drop(watched);
        for (work, _) in self.work.iter().zip(workers).filter(|&(_, wakes)| wakes) {
            if ended {
                work.notify_all();
            } else {
                work.notify_one();
            }
        }
        if timer {
            self.timer.notify_one();
        }
        if closers {
            self.settled.notify_all();
        }
    }
}

/// Whether a moment comes before another one, which may never come.
fn is_sooner(moment: Option<Instant>, other: Option<Instant>) -> bool {
    moment.is_some_and(|moment| other.is_none_or(|other| moment < other))
}

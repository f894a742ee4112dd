//! The state of the front: its queues, its health, and what workers do next.

use std::time::Instant;

use super::evidence::Evidence;
use super::health::{FrontHealth, HealthTracker};
use super::job::{Job, QueueKind};
use super::options::AsyncOptions;
use super::request_queue::{Queued, RequestQueue};
use super::stats::AsyncStats;
use crate::Error;

/// How far the front has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// New requests are refused; those that were accepted are executed.
    Closing,
    /// Workers end.
    Ended,
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Task {
    /// Execute requests, which began then.
    Run { id: u64, jobs: Vec<Job> },
    /// Read from the device to find out whether it works.
    Probe,
    /// Close the store.
    Close,
}

/// The closing of the store by a worker.
#[derive(Debug)]
pub(super) enum StoreClosing {
    Unwanted,
    Due,
    Running,
    Done(Result<(), Error>),
}

/// What is known of a request before it is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) kind: QueueKind,
    pub(super) objects: usize,
    /// Bytes of memory that it owns.
    pub(super) bytes: u64,
}

/// The state of the front. All of it is under one lock, during which no foreign code runs.
#[derive(Debug)]
pub(super) struct State {
    device: String,
    max_queued: usize,
    max_store_bytes: u64,
    store_window: u64,
    queues: [RequestQueue; QueueKind::ALL.len()],
    last_id: u64,
    pub(super) phase: Phase,
    pub(super) health: HealthTracker,
    pub(super) closing: StoreClosing,
    pub(super) counters: AsyncStats,
}

impl State {
    pub(super) fn new(device: String, options: &AsyncOptions) -> Self {
        Self {
            device,
            max_queued: options.max_queued,
            max_store_bytes: options.max_store_bytes,
            store_window: options.store_window,
            queues: Default::default(),
            last_id: 0,
            phase: Phase::Open,
            health: HealthTracker::new(options),
            closing: StoreClosing::Unwanted,
            counters: AsyncStats::default(),
        }
    }

    pub(super) fn queue(&self, kind: QueueKind) -> &RequestQueue {
        &self.queues[kind as usize]
    }

    pub(super) fn queue_mut(&mut self, kind: QueueKind) -> &mut RequestQueue {
        &mut self.queues[kind as usize]
    }

    /// Checks whether a request can be accepted.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Overloaded`], [`Error::Unavailable`].
    pub(super) fn check(&mut self, size: Size) -> Result<(), Error> {
        if self.phase != Phase::Open {
            return Err(self.closed());
        }
        // Presence is answered without the device.
        if size.kind != QueueKind::Lookup && !self.is_healthy() {
            return Err(self.unavailable());
        }
        let queue = self.queue(size.kind);
        let bytes = queue.bytes().saturating_add(size.bytes);
        let (what, limit) = if queue.waiting() >= self.max_queued {
            ("queued requests", self.max_queued as u64)
        } else if size.kind == QueueKind::Store && bytes > self.max_store_bytes {
            ("bytes of queued puts", self.max_store_bytes)
        } else {
            return Ok(());
        };
        self.counters.overloaded += 1;
        Err(Error::Overloaded { what, limit })
    }

    /// The id of the next request.
    pub(super) fn next_id(&mut self) -> u64 {
        self.counters.submitted += 1;
        self.last_id += 1;
        self.last_id
    }

    /// Whether [`take`](Self::take) returns something.
    pub(super) fn has_work(&self, kind: QueueKind) -> bool {
        let extra = match kind {
            QueueKind::Lookup => false,
            QueueKind::Load => self.health.is_probe_due(),
            QueueKind::Store => matches!(self.closing, StoreClosing::Due),
        };
        extra || self.queue(kind).can_take(self.window(kind))
    }

    /// The most bytes that may run concurrently.
    fn window(&self, kind: QueueKind) -> u64 {
        let loads = !self.queue(QueueKind::Load).is_idle();
        if kind == QueueKind::Store && loads { self.store_window } else { u64::MAX }
    }

    /// What a worker of this queue does next, if there is something.
    pub(super) fn take(&mut self, kind: QueueKind, now: Instant) -> Option<Task> {
        if kind == QueueKind::Load && self.health.is_probe_due() {
            self.health.begin_probe();
            return Some(Task::Probe);
        }
        if kind == QueueKind::Store && matches!(self.closing, StoreClosing::Due) {
            self.closing = StoreClosing::Running;
            return Some(Task::Close);
        }
        let window = self.window(kind);
        let (id, taken) = self.queue_mut(kind).take(now, window)?;
        Some(Task::Run { id, jobs: taken.into_iter().map(|request| request.job).collect() })
    }

    /// Requests have been executed. Returns what was turned away because the device is found
    /// failed.
    pub(super) fn ended(
        &mut self,
        kind: QueueKind,
        id: u64,
        evidence: &Evidence,
        now: Instant,
    ) -> Vec<Queued> {
        let requests = self.queue_mut(kind).ended(id);
        self.counters.executed += requests as u64;
        if self.health.call_ended(evidence, now) { self.turn_away() } else { Vec::new() }
    }

    /// Takes the requests whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Queued> {
        let expired: Vec<_> =
            self.queues.iter_mut().flat_map(|queue| queue.take_expired(now)).collect();
        self.counters.expired += expired.len() as u64;
        expired
    }

    /// Takes all requests that wait, to answer them without executing them.
    pub(super) fn turn_away(&mut self) -> Vec<Queued> {
        let waiting: Vec<_> = self.queues.iter_mut().flat_map(RequestQueue::take_all).collect();
        self.counters.turned_away += waiting.len() as u64;
        waiting
    }

    /// When the oldest call that uses the device began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let began = [QueueKind::Load, QueueKind::Store].map(|kind| self.queue(kind).oldest());
        began.into_iter().flatten().min()
    }

    /// When something has to be done that no call does.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let deadlines = self.queues.iter().filter_map(RequestQueue::next_deadline);
        deadlines.chain(self.health.next_moment(self.oldest())).min()
    }

    /// Has a worker close the store, unless one does or did.
    pub(super) fn want_store_closed(&mut self) {
        if matches!(self.closing, StoreClosing::Unwanted | StoreClosing::Done(Err(_))) {
            self.closing = StoreClosing::Due;
        }
    }

    /// Whether a worker is to close the store, and has not ended.
    pub(super) fn is_store_closing(&self) -> bool {
        matches!(self.closing, StoreClosing::Due | StoreClosing::Running)
    }

    /// Whether nothing waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.iter().all(RequestQueue::is_idle)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.health.current() == FrontHealth::Healthy
    }

    pub(super) fn stats(&self) -> AsyncStats {
        AsyncStats {
            health: self.health.current(),
            queued: self.queues.iter().map(RequestQueue::waiting).sum(),
            running: self.queues.iter().map(RequestQueue::running).sum(),
            store_bytes: self.queue(QueueKind::Store).bytes(),
            ..self.counters
        }
    }

    pub(super) fn closed(&self) -> Error {
        Error::Closed { device: self.device.clone() }
    }

    pub(super) fn unavailable(&self) -> Error {
        let reason = self.health.reason().to_owned();
        Error::Unavailable { device: self.device.clone(), reason }
    }
}

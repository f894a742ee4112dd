//! A lane: a queue with the batch that runs on it.

use std::thread::{self, ThreadId};
use std::time::Duration;

use super::batch::Batch;
use crate::Geometry;
use crate::backend::{IoBackend, IoQueue};

/// How often a lane checks whether a backend that breaks its contract has dropped its ops.
const RELEASE_POLL: Duration = Duration::from_millis(1);

/// A queue with the batch that runs on it. The batch keeps its allocations from one use to the
/// next.
pub(super) struct Lane {
    /// `None` once it has broken its contract.
    queue: Option<Box<dyn IoQueue>>,
    /// The only thread that may use the queue, if it is local.
    owner: Option<ThreadId>,
    pub(super) batch: Batch,
    /// The geometry when the dispatcher was made: a plan that was made with one geometry cannot be
    /// executed with another.
    geometry: Geometry,
}

/// What [`Lane::drive`] waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum WaitMode {
    /// Until the batch has completed.
    All,
    /// Until the batch has completed, or requests of it that had not before.
    Part,
}

impl WaitMode {
    /// Whether to return although the batch has not completed.
    fn stops_waiting(self, batch: &Batch) -> bool {
        match self {
            Self::All => false,
            Self::Part => !batch.finished.is_empty(),
        }
    }
}

impl Lane {
    /// A lane for this thread, or for any thread if `queue` is not local.
    pub(super) fn new(queue: Box<dyn IoQueue>, geometry: Geometry) -> Self {
        let owner = queue.is_local().then(|| thread::current().id());
        Self { queue: Some(queue), owner, batch: Batch::new(), geometry }
    }

    /// The only thread that may use this lane, if its queue is local.
    pub(super) fn owner(&self) -> Option<ThreadId> {
        self.owner
    }

    /// Makes the ops of the first wave.
    pub(super) fn begin(&mut self, backend: &dyn IoBackend) {
        self.batch.requests.sort();
        self.batch.next_wave(&self.geometry, backend.stats());
    }

    /// Makes the ops of the first wave, and starts those that the queue accepts.
    ///
    /// If the queue breaks, the next reap returns the ops that it failed.
    pub(super) fn begin_and_start(&mut self, backend: &dyn IoBackend) {
        self.begin(backend);
        self.top_up();
    }

    /// Advances the batch. Returns whether it has completed: then no op is left that could access
    /// its memory.
    ///
    /// When it has not, ops are in flight that were started, and the queue is full or no op waits
    /// for it. So the device has work while the caller does its own.
    pub(super) fn drive(&mut self, backend: &dyn IoBackend, mode: WaitMode) -> bool {
        loop {
            if !self.batch.wave.is_settled() {
                self.pump(backend, mode);
            } else if !self.next_wave(backend) {
                return true;
            }
            let stops = !self.batch.wave.is_settled() && mode.stops_waiting(&self.batch);
            if stops && self.top_up() {
                return false;
            }
        }
    }

    /// Submits ops to the queue and reaps completions from it, once.
    fn pump(&mut self, backend: &dyn IoBackend, mode: WaitMode) {
        let Self { queue: Some(queue), batch, .. } = self else {
            return self.batch.abandon(backend.engine());
        };
        let wave = &mut batch.wave;
        queue.submit(&mut wave.waiting);
        wave.note_accepted();
        let in_flight = queue.in_flight();
        let min = match mode {
            // More ops wait: refill the queue well before it is empty, but not one by one.
            _ if !wave.waiting.is_empty() => (queue.depth() / 4).max(1),
            WaitMode::Part => wave.ops_of_a_part().min(in_flight),
            WaitMode::All => in_flight,
        };
        queue.reap(min, None, &mut wave.done);
        batch.settle(&self.geometry, backend.stats());
        // Nothing is in flight, or the queue counts ops that no longer exist, and yet an op has not
        // completed: the queue breaks its contract.
        let lost = in_flight == 0 || queue.in_flight() > 0 && batch.wave.has_only_waiting_ops();
        if lost && !batch.wave.is_settled() {
            tracing::error!(engine = backend.engine(), device = backend.name(), "a queue lost ops");
            self.queue = None;
        }
    }

    /// Makes the ops of the next wave. Returns `false` when the batch has completed.
    fn next_wave(&mut self, backend: &dyn IoBackend) -> bool {
        if !self.batch.wave.waiting.is_empty() {
            tracing::error!("a queue left ops of another batch among those of this one");
            self.batch.wave.waiting.clear();
            self.queue = None;
        }
        self.wait_until_released();
        self.batch.next_wave(&self.geometry, backend.stats())
    }

    /// Fills the queue and starts what it accepted. Returns `false` when nothing is in flight: the
    /// queue broke, and the next reap returns the ops that it failed.
    fn top_up(&mut self) -> bool {
        // Without a queue, the next call abandons the ops that are left.
        let Self { queue: Some(queue), batch: Batch { wave, .. }, .. } = self else { return true };
        if !wave.waiting.is_empty() {
            let waiting = wave.waiting.len();
            queue.submit(&mut wave.waiting);
            wave.note_accepted();
            queue.start();
            if queue.depth() == 0 && wave.waiting.len() < waiting {
                return false;
            }
        }
        queue.in_flight() > 0
    }

    /// Returns once no op is left that could access the memory of the batch.
    ///
    /// With a backend that keeps its contract, that is at once.
    fn wait_until_released(&mut self) {
        let mut reported = false;
        while !self.batch.wave.is_released() {
            if !std::mem::replace(&mut reported, true) {
                tracing::error!(
                    "a backend keeps ops that it completed or dropped; waiting for them"
                );
            }
            thread::sleep(RELEASE_POLL);
        }
    }

    /// Whether the lane can be used again.
    pub(super) fn is_sound(&mut self) -> bool {
        let working = self.queue.as_ref().is_some_and(|queue| queue.depth() > 0);
        working && self.batch.wave.is_settled() && self.batch.wave.is_released()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A queue drains when it is dropped.
        self.queue = None;
        self.batch.wave.waiting.clear();
        self.batch.wave.done.clear();
        if self.batch.requests.borrowed {
            self.wait_until_released();
        }
    }
}

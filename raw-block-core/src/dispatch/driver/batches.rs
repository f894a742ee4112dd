//! The batches of a driver: those that have ops to submit, and those in flight.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::inbox::Job;
use super::order::{InFlight, Key, Order};
use super::outcome::Outcome;
use crate::backend::{Completion, IoBackend, IoQueue, Op, OpKind};
use crate::dispatch::batch::Batch;
use crate::dispatch::ticket::Finished;
use crate::{Error, Geometry};

/// The most ops that a batch submits in one turn: a long batch does not delay a short one by more.
const TURN_OPS: usize = 32;

/// Batches that are kept with their allocations for later jobs.
const SPARE_BATCHES: usize = 16;

/// The most batches among which the thread looks for the one that completes next.
const COMPARED_BATCHES: usize = 64;

struct Driven {
    batch: Batch,
    outcome: Arc<Outcome>,
}

/// A batch that has completed, with its results.
pub(super) struct CompletedJob {
    pub(super) outcome: Arc<Outcome>,
    pub(super) finished: Vec<Finished>,
}

/// The batches that have not completed.
#[derive(Default)]
pub(super) struct Batches {
    /// By the address of their memory, to which each op refers.
    driven: HashMap<Key, Driven>,
    order: Order,
    in_flight: InFlight,
    /// Batches all of whose ops have completed, and whose memory a backend still keeps: it breaks
    /// its contract.
    unreleased: Vec<Key>,
    completed: Vec<CompletedJob>,
    spare: Vec<Batch>,
    /// The ops of one turn.
    turn: VecDeque<Op>,
    /// The batches with completions that are not settled.
    touched: Vec<Key>,
}

impl Batches {
    pub(super) fn is_empty(&self) -> bool {
        self.driven.is_empty()
    }

    /// Whether a backend keeps memory of ops that it completed.
    pub(super) fn has_unreleased(&self) -> bool {
        !self.unreleased.is_empty()
    }

    /// The number of ops that the queue accepted and that have not completed.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.ops
    }

    /// Whether a batch has ops to submit.
    pub(super) fn has_waiting(&self) -> bool {
        !self.order.is_empty()
    }

    /// Takes the batches that have completed.
    pub(super) fn take_completed(&mut self) -> Vec<CompletedJob> {
        std::mem::take(&mut self.completed)
    }

    /// The number of completions before which no batch completes, and a queue of this depth is not
    /// short of ops.
    pub(super) fn awaited(&self, depth: usize) -> usize {
        if self.driven.len() > COMPARED_BATCHES {
            return 1;
        }
        let outstanding = self.driven.values().map(|driven| driven.batch.wave.outstanding());
        let least = outstanding.filter(|&ops| ops > 0).min().unwrap_or(1);
        if self.has_waiting() { least.min((depth / 4).max(1)) } else { least }
    }

    /// Begins a batch.
    pub(super) fn add(&mut self, job: Job, geometry: &Geometry, backend: &dyn IoBackend) {
        let Job { kind, transfers, outcome } = job;
        let mut batch = self.spare.pop().unwrap_or_else(Batch::new);
        batch.start(kind, transfers.len());
        batch.add_owned(transfers, geometry);
        batch.requests.sort();
        let key: Key = Arc::as_ptr(&batch.wave.memory).addr();
        self.driven.insert(key, Driven { batch, outcome });
        self.proceed(key, geometry, backend);
    }

    /// Submits ops while the queue accepts any, in the order of the batches.
    pub(super) fn fill(&mut self, queue: &mut dyn IoQueue) {
        while queue.in_flight() < queue.depth()
            && let Some((key, bytes)) = self.order.pop(self.in_flight)
        {
            let Some(Driven { batch, .. }) = self.driven.get_mut(&key) else { continue };
            let loads = batch.requests.kind == OpKind::Read;
            let wave = &mut batch.wave;
            let mut left = bytes;
            while self.turn.len() < TURN_OPS
                && left > 0
                && let Some(op) = wave.waiting.pop_front()
            {
                left = left.saturating_sub(op.len());
                self.turn.push_back(op);
            }
            let count = self.turn.len();
            let bytes: u64 = self.turn.iter().map(Op::len).sum();
            queue.submit(&mut self.turn);
            let accepted = count - self.turn.len();
            let refused: u64 = self.turn.iter().map(Op::len).sum();
            self.in_flight.ops += accepted;
            if loads {
                self.in_flight.loads += accepted;
            } else {
                self.in_flight.store_bytes += bytes - refused;
            }
            while let Some(op) = self.turn.pop_back() {
                wave.waiting.push_front(op);
            }
            wave.note_accepted();
            if !wave.waiting.is_empty() {
                self.order.push(key, loads);
            }
            if accepted == 0 {
                break;
            }
        }
    }

    /// Hands completions to their batches, and completes those that have no op left.
    pub(super) fn settle(
        &mut self,
        done: &mut Vec<Completion>,
        geometry: &Geometry,
        backend: &dyn IoBackend,
    ) {
        for completion in done.drain(..) {
            let key = completion.op().memory_address();
            match self.driven.get_mut(&key) {
                Some(driven) => driven.batch.wave.done.push(completion),
                None => tracing::error!("a queue returned an op that no batch waits for"),
            }
            if self.touched.last() != Some(&key) {
                self.touched.push(key);
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let Some(Driven { batch, .. }) = self.driven.get_mut(&key) else { continue };
            let before = batch.wave.outstanding();
            let bytes: u64 = batch.wave.done.iter().map(|completion| completion.op().len()).sum();
            batch.settle(geometry, backend.stats());
            let settled = before - batch.wave.outstanding();
            self.in_flight.ops = self.in_flight.ops.saturating_sub(settled);
            if batch.requests.kind == OpKind::Read {
                self.in_flight.loads = self.in_flight.loads.saturating_sub(settled);
            } else {
                self.in_flight.store_bytes = self.in_flight.store_bytes.saturating_sub(bytes);
            }
            self.proceed(key, geometry, backend);
        }
        self.touched = touched;
    }

    /// Looks again at batches whose memory a backend kept.
    pub(super) fn retry_unreleased(&mut self, geometry: &Geometry, backend: &dyn IoBackend) {
        for key in std::mem::take(&mut self.unreleased) {
            self.proceed(key, geometry, backend);
        }
    }

    /// Fails the ops that a broken queue accepted and lost. With `all`, fails all ops.
    pub(super) fn abandon(&mut self, all: bool, geometry: &Geometry, backend: &dyn IoBackend) {
        // Of ops that are dropped here, the queue may or may not have started some.
        self.turn.clear();
        self.in_flight = InFlight::default();
        let keys: Vec<_> = self.driven.keys().copied().collect();
        for key in keys {
            let Some(Driven { batch, .. }) = self.driven.get_mut(&key) else { continue };
            if all || batch.wave.has_accepted() {
                self.order.remove(key);
                batch.abandon(backend.engine());
                self.proceed(key, geometry, backend);
            }
        }
    }

    /// Fails all ops, none of which a queue has accepted, with this error.
    pub(super) fn fail_all(&mut self, error: &Error, geometry: &Geometry, backend: &dyn IoBackend) {
        let keys: Vec<_> = self.driven.keys().copied().collect();
        for key in keys {
            let Some(Driven { batch, .. }) = self.driven.get_mut(&key) else { continue };
            self.order.remove(key);
            batch.refuse(error);
            self.proceed(key, geometry, backend);
        }
    }

    /// If all ops of a batch have completed, begins its next wave or takes its results.
    fn proceed(&mut self, key: Key, geometry: &Geometry, backend: &dyn IoBackend) {
        let Some(Driven { batch, .. }) = self.driven.get_mut(&key) else { return };
        while batch.wave.is_settled() {
            if !batch.wave.is_released() {
                return self.unreleased.push(key);
            }
            if !batch.next_wave(geometry, backend.stats()) {
                return self.complete(key, backend);
            }
            if !batch.wave.is_settled() {
                return self.order.push(key, batch.requests.kind == OpKind::Read);
            }
        }
    }

    fn complete(&mut self, key: Key, backend: &dyn IoBackend) {
        let Some(Driven { mut batch, outcome }) = self.driven.remove(&key) else { return };
        let finished = batch.take_finished(backend);
        self.completed.push(CompletedJob { outcome, finished });
        if self.spare.len() < SPARE_BATCHES {
            self.spare.push(batch);
        }
    }
}

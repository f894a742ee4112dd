//! A wave: the ops of a batch that are in flight at one time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reuse;
use crate::backend::{BatchMemory, Completion, Op};
use crate::{AlignedBuf, Error, WriteOptions};

/// The bytes of a batch that complete before `WaitMode::Part` returns.
const PART_BYTES: u64 = 256 << 10;
/// Staging memory in bytes that a wave keeps for the next batch.
const KEPT_STAGING: usize = 4 << 20;

/// One op of the wave, and the requests that it carries.
#[derive(Debug)]
pub(super) struct Run {
    /// Its requests, as positions in the order of the batch.
    pub(super) requests: Range<usize>,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) options: WriteOptions,
    /// Its part of `BatchMemory::segments`.
    pub(super) segments: Range<usize>,
    /// When a queue accepted it.
    accepted: Option<Instant>,
    completed: bool,
}

impl Run {
    pub(super) fn new(
        requests: Range<usize>,
        offset: u64,
        len: u64,
        options: WriteOptions,
        segments: Range<usize>,
    ) -> Self {
        Self { requests, offset, len, options, segments, accepted: None, completed: false }
    }
}

/// What became of a run.
pub(super) struct Settled {
    pub(super) requests: Range<usize>,
    pub(super) len: u64,
    pub(super) result: Result<(), Error>,
}

#[derive(Debug, Default)]
pub(super) struct Wave {
    pub(super) runs: Vec<Run>,
    /// The number of `runs` that a queue has accepted.
    accepted: usize,
    /// The number of `runs` that have not completed.
    outstanding: usize,
    pub(super) memory: Arc<BatchMemory>,
    /// Ops that no queue has accepted yet.
    pub(super) waiting: VecDeque<Op>,
    /// Completions that were reaped and not settled.
    pub(super) done: Vec<Completion>,
    /// The latencies of the completions that are settled now.
    pub(super) latencies: Vec<Duration>,
}

impl Wave {
    /// The memory of the ops, while there are none.
    pub(super) fn memory(&mut self) -> &mut BatchMemory {
        Arc::get_mut(&mut self.memory)
            .unwrap_or_else(|| unreachable!("lanes and waves start and end when the ops are gone"))
    }

    /// Forgets the runs of the last wave.
    pub(super) fn clear(&mut self) {
        self.accepted = 0;
        self.runs.clear();
    }

    /// Notes that the wave has all its runs.
    pub(super) fn begin(&mut self) {
        self.outstanding = self.runs.len();
    }

    /// Notes which ops a queue has taken from the front of `waiting`.
    pub(super) fn note_accepted(&mut self) {
        let accepted = self.runs.len().saturating_sub(self.waiting.len());
        if accepted > self.accepted {
            let now = Some(Instant::now());
            for run in &mut self.runs[self.accepted..accepted] {
                run.accepted = now;
            }
            self.accepted = accepted;
        }
    }

    /// Drops the op of a completion, and notes its latency. `None` if the op is not one of this
    /// wave.
    #[inline]
    pub(super) fn settle(&mut self, completion: Completion, now: Instant) -> Option<Settled> {
        let Completion { op, result } = completion;
        let run = match self.runs.get_mut(op.index as usize) {
            Some(run) if !run.completed && op.points_into(&self.memory) => run,
            _ => {
                tracing::error!("a queue returned an op of another batch");
                return None;
            }
        };
        run.completed = true;
        // From here on no backend accesses the memory of this op.
        drop(op);
        self.outstanding -= 1;
        self.latencies.push(since(run.accepted, now));
        Some(Settled { requests: run.requests.clone(), len: run.len, result })
    }

    /// How long the wave kept its queue busy, if it has completed.
    pub(super) fn busy(&self, now: Instant) -> Duration {
        let completed = self.runs.first().filter(|_| self.outstanding == 0);
        completed.map_or(Duration::ZERO, |first| since(first.accepted, now))
    }

    /// Drops all ops that wait, and returns the requests of those that a queue lost.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Range<usize>> {
        self.waiting.clear();
        self.outstanding = 0;
        let lost = self.runs.iter_mut().filter(|run| !run.completed);
        lost.map(|run| {
            run.completed = true;
            run.requests.clone()
        })
    }

    /// The number of ops that carry [`PART_BYTES`].
    pub(super) fn ops_of_a_part(&self) -> usize {
        let bytes = self.runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.len));
        let ops = PART_BYTES.saturating_mul(self.runs.len() as u64) / bytes.max(1);
        usize::try_from(ops).unwrap_or(usize::MAX).max(1)
    }

    /// Whether every op has completed.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding == 0
    }

    /// The number of ops that have not completed.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether a queue has accepted ops that have not completed.
    pub(super) fn has_accepted(&self) -> bool {
        self.outstanding > self.waiting.len()
    }

    /// Whether no ops exist but those that wait for a queue.
    pub(super) fn has_only_waiting_ops(&self) -> bool {
        Arc::strong_count(&self.memory) == 1 + self.waiting.len()
    }

    /// Whether no op is left that could access the memory.
    pub(super) fn is_released(&mut self) -> bool {
        Arc::get_mut(&mut self.memory).is_some()
    }

    /// Empties the lists, and frees what a long batch allocated.
    pub(super) fn shrink(&mut self) {
        reuse::clear(&mut self.runs);
        reuse::clear(&mut self.done);
        reuse::clear(&mut self.latencies);
        self.waiting.shrink_to(reuse::KEPT_TRANSFERS);
        let memory = self.memory();
        reuse::clear(&mut memory.segments);
        if memory.staging.len() > KEPT_STAGING {
            memory.staging = AlignedBuf::default();
        }
    }
}

fn since(accepted: Option<Instant>, now: Instant) -> Duration {
    accepted.map_or(Duration::ZERO, |at| now - at)
}

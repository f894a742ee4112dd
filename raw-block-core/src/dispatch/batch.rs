//! A batch: what the caller asked for, the ops that it became, and how each transfer went.
//!
//! A batch runs in waves. The first waves carry all its transfers, merged where they are neighbours;
//! there is more than one only when the transfers need more staging memory than one wave may use. Later
//! waves repeat transfers, each by itself: those of merged ops that failed, so that one bad block does
//! not fail its neighbours, and those whose memory the kernel could not use, which is now copied. A
//! transfer whose outcome is unknown is never repeated: the first attempt may still take effect, after
//! newer writes.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::layout::{Piece, lay_out};
use super::request::Request;
use crate::backend::{BatchMemory, Segment};
use crate::backend::{Completion, IoBackend, Op, OpKind, Stats};
use crate::{AlignedBuf, Error, ErrorClass, ErrorKind, Geometry, WriteOptions};

/// A part of a batch, in bytes: how much is to be over before its caller is told.
const PART: u64 = 256 << 10;
/// Staging memory of one wave, in bytes, unless a single transfer needs more.
const MAX_STAGING: usize = 64 << 20;
/// Staging memory that a batch keeps for the next one, in bytes.
const KEPT_STAGING: usize = 4 << 20;
/// The number of transfers for which a batch keeps its lists allocated. They take about 350 bytes for each
/// transfer: less than 2 MiB in all. A longer batch allocates them anew, which costs little compared with its I/O.
const KEPT_TRANSFERS: usize = 4096;

/// One op of the current wave.
#[derive(Debug)]
pub(super) struct Run {
    /// The requests it carries, in `Batch::order`.
    pub(super) requests: Range<usize>,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) options: WriteOptions,
    /// Its part of `BatchMemory::segments`.
    pub(super) segments: Range<usize>,
    /// When a queue accepted it.
    accepted: Option<Instant>,
    over: bool,
}

impl Run {
    pub(super) fn new(
        requests: Range<usize>,
        offset: u64,
        len: u64,
        options: WriteOptions,
        segments: Range<usize>,
    ) -> Self {
        Self { requests, offset, len, options, segments, accepted: None, over: false }
    }
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) kind: OpKind,
    pub(super) requests: Vec<Request>,
    /// The callers' memory segments.
    pub(super) callers: Vec<Segment>,
    pub(super) results: Vec<Result<(), Error>>,
    /// The requests that these waves carry, as they lie on the device.
    pub(super) order: Vec<u32>,
    /// How many of `order` were carried by earlier waves.
    carried: usize,
    /// Requests that a later wave repeats.
    retry: Vec<u32>,
    retrying: bool,
    pub(super) runs: Vec<Run>,
    /// How many of `runs` a queue has accepted.
    accepted: usize,
    /// How many of `runs` are not over.
    outstanding: usize,
    /// Requests that succeeded since somebody asked.
    pub(super) finished: Vec<u32>,
    pub(super) memory: Arc<BatchMemory>,
    /// Ops that no queue has accepted yet.
    pub(super) waiting: VecDeque<Op>,
    /// Completions on their way from the queue to [`settle`](Self::settle).
    pub(super) done: Vec<Completion>,
    /// How long each of them took.
    latencies: Vec<Duration>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            kind: OpKind::Flush,
            requests: Vec::new(),
            callers: Vec::new(),
            results: Vec::new(),
            order: Vec::new(),
            carried: 0,
            retry: Vec::new(),
            retrying: false,
            runs: Vec::new(),
            accepted: 0,
            outstanding: 0,
            finished: Vec::new(),
            memory: Arc::default(),
            waiting: VecDeque::new(),
            done: Vec::new(),
            latencies: Vec::new(),
        }
    }
}

impl Batch {
    /// Empties the batch for so many transfers of one kind.
    pub(super) fn start(&mut self, kind: OpKind, transfers: usize) {
        self.kind = kind;
        self.requests.clear();
        self.callers.clear();
        self.results.clear();
        self.results.reserve(transfers);
        self.order.clear();
        self.carried = 0;
        self.retry.clear();
        self.retrying = false;
        self.finished.clear();
    }

    /// How many transfers were added.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// The batch's memory, while there are no ops.
    pub(super) fn memory(&mut self) -> &mut BatchMemory {
        Arc::get_mut(&mut self.memory)
            .unwrap_or_else(|| unreachable!("lanes and waves start and end when the ops are gone"))
    }

    /// Turns the next transfers into ops, in `waiting`. Returns `false` when all have been carried.
    pub(super) fn next_wave(&mut self, geometry: &Geometry, stats: &Stats) -> bool {
        if self.carried == self.order.len() {
            if self.retry.is_empty() {
                return false;
            }
            std::mem::swap(&mut self.order, &mut self.retry);
            self.retry.clear();
            self.carried = 0;
            self.retrying = true;
        }
        let (wave, staging) = self.cut_wave(geometry);
        self.carried = wave.end;
        self.accepted = 0;
        self.runs.clear();
        if let Err(error) = self.plan(wave.clone(), staging, self.retrying, geometry, stats) {
            for &index in &self.order[wave] {
                self.results[index as usize] = Err(error.clone());
            }
        }
        self.outstanding = self.runs.len();
        true
    }

    /// The next transfers that share one wave, and how much staging memory they need.
    fn cut_wave(&mut self, geometry: &Geometry) -> (Range<usize>, usize) {
        let first = self.carried;
        let mut staging = 0;
        for (position, &index) in self.order.iter().enumerate().skip(first) {
            if !self.kind.transfers() {
                break;
            }
            let request = &mut self.requests[index as usize];
            let segments = &self.callers[request.segments.clone()];
            // A request of the largest length behind another one of it would end behind every address.
            if staging > MAX_STAGING {
                return (first..position, staging);
            }
            let end = lay_out(segments, request, geometry, staging, |_| {});
            if end > MAX_STAGING && position > first {
                return (first..position, staging);
            }
            request.staging = staging;
            request.staged = end > staging;
            staging = end;
        }
        (first..self.order.len(), staging)
    }

    /// Notes that a queue took ops from the front of `waiting`.
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

    /// Takes in the completions in `done`.
    pub(super) fn settle(&mut self, geometry: &Geometry, stats: &Stats) {
        if self.done.is_empty() {
            return;
        }
        let now = Instant::now();
        let since =
            |accepted: Option<Instant>| accepted.map_or_else(Default::default, |at| now - at);
        let (mut moved, mut retries) = (0, 0);
        let mut done = std::mem::take(&mut self.done);
        self.latencies.clear();
        for Completion { op, result } in done.drain(..) {
            let run = match self.runs.get_mut(op.index as usize) {
                Some(run) if !run.over && op.points_into(&self.memory) => run,
                _ => {
                    tracing::error!("a queue handed out an op that is not this batch's");
                    continue;
                }
            };
            run.over = true;
            // From here on the memory of this op is ours again.
            drop(op);
            self.outstanding -= 1;
            self.latencies.push(since(run.accepted));
            let requests = run.requests.clone();
            match result {
                Ok(()) => {
                    moved += run.len;
                    self.finished.extend(&self.order[requests.clone()]);
                    self.unstage(requests, geometry);
                }
                Err(error) => retries += self.fail(requests, &error),
            }
        }
        self.done = done;
        let over = self.runs.first().filter(|_| self.outstanding == 0);
        stats.update(|stats| {
            stats.count_done(self.kind, moved);
            stats.retries += retries;
            self.latencies.iter().for_each(|&latency| stats.count_latency(latency));
            stats.count_busy(over.map_or_else(Default::default, |first| since(first.accepted)));
        });
    }

    /// Repeats the requests of an op that failed, or gives them the error. Returns how many are repeated.
    fn fail(&mut self, requests: Range<usize>, error: &Error) -> u64 {
        let merged = requests.len() > 1;
        let ended = error.class() != ErrorClass::Unknown;
        // EFAULT: the kernel cannot pin the memory (`memfd_secret(2)`, mappings of devices). The processor can
        // copy it.
        let faulted = error.os_error().and_then(io::Error::raw_os_error) == Some(libc::EFAULT);
        let mut repeated = 0;
        for &index in &self.order[requests] {
            let request = &mut self.requests[index as usize];
            let to_copy = faulted && self.kind.transfers() && !request.copied;
            if ended && (merged || to_copy) {
                request.copied |= to_copy;
                self.retry.push(index);
                repeated += 1;
            } else {
                let error = error.clone();
                self.results[index as usize] =
                    Err(if merged { error.at(request.offset, request.total_len) } else { error });
            }
        }
        repeated
    }

    /// Copies what was read into staging memory to where the caller wants it.
    fn unstage(&self, requests: Range<usize>, geometry: &Geometry) {
        if self.kind != OpKind::Read {
            return;
        }
        for &index in &self.order[requests] {
            let request = &self.requests[index as usize];
            if !request.staged {
                continue;
            }
            let segments = &self.callers[request.segments.clone()];
            lay_out(segments, request, geometry, request.staging, |piece| {
                if let Piece::Staged { caller: Segment(caller), at } = piece {
                    // SAFETY: `cut_wave` laid out the same pieces, so `at` is inside the staging memory.
                    let from = unsafe { self.memory.staging.start().add(at) };
                    let to = caller.iov_base.cast::<u8>();
                    // SAFETY: both are `iov_len` bytes: the caller's, which the contract of `add` makes
                    // ours, and this request's part of the staging memory, whose op was dropped.
                    unsafe { from.as_ptr().copy_to_nonoverlapping(to, caller.iov_len) };
                }
            });
        }
    }

    /// Fails what a broken queue accepted and will never give back.
    pub(super) fn give_up(&mut self, engine: &str) {
        self.waiting.clear();
        for run in self.runs.iter_mut().filter(|run| !run.over) {
            run.over = true;
            for &index in &self.order[run.requests.clone()] {
                let request = &self.requests[index as usize];
                let rule = format!(
                    "the {engine} backend lost this op; what the device holds there is unknown"
                );
                let error = Error::new(ErrorKind::Io, self.kind.name(), rule)
                    .with_class(ErrorClass::Unknown)
                    .at(request.offset, request.total_len);
                self.results[index as usize] = Err(error);
            }
        }
        self.outstanding = 0;
    }

    /// How many ops of this wave are a part of the batch that is worth telling its caller of.
    pub(super) fn ops_of_a_part(&self) -> usize {
        let bytes = self.runs.iter().fold(0, |sum: u64, run| sum.saturating_add(run.len));
        let ops = PART.saturating_mul(self.runs.len() as u64) / bytes.max(1);
        usize::try_from(ops).unwrap_or(usize::MAX).max(1)
    }

    /// Whether every op of the current wave is over.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether all ops that there are still wait for a queue.
    pub(super) fn has_only_waiting_ops(&self) -> bool {
        Arc::strong_count(&self.memory) == 1 + self.waiting.len()
    }

    /// Whether nobody but this batch can reach its memory any more.
    pub(super) fn is_released(&mut self) -> bool {
        Arc::get_mut(&mut self.memory).is_some()
    }

    /// The buffers of [`add_owned`](Self::add_owned), in the same order, once the batch is over.
    pub(super) fn take_owned(&mut self) -> Vec<AlignedBuf> {
        std::mem::take(&mut self.memory().owned)
    }

    /// The results in the order in which the transfers were added, once the batch is over.
    pub(super) fn take_results(&mut self, backend: &dyn IoBackend) -> Vec<Result<(), Error>> {
        self.shrink();
        let mut results = std::mem::take(&mut self.results);
        backend.stats().update(|stats| {
            stats.batches += 1;
            stats.transfers += results.len() as u64;
            for error in results.iter_mut().filter_map(|result| result.as_mut().err()) {
                error.name_backend(backend.name());
                stats.count_error(error);
            }
        });
        results
    }

    /// Frees what a long batch allocated, and keeps what most batches need.
    fn shrink(&mut self) {
        keep(&mut self.requests);
        keep(&mut self.callers);
        keep(&mut self.order);
        keep(&mut self.retry);
        keep(&mut self.runs);
        keep(&mut self.finished);
        keep(&mut self.done);
        keep(&mut self.latencies);
        self.waiting.shrink_to(KEPT_TRANSFERS);
        let memory = self.memory();
        keep(&mut memory.segments);
        if memory.staging.len() > KEPT_STAGING {
            memory.staging = AlignedBuf::default();
        }
    }
}

fn keep<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(KEPT_TRANSFERS);
}

//! A batch: its requests, and the waves that carry them.
//!
//! The first waves carry all valid requests, merged where they are neighbours; there is more than
//! one only if the requests need more staging memory than one wave may use. Later waves repeat
//! requests, each as a separate op: those of merged ops that failed, so that one bad block does not
//! fail its neighbours; neighbours that failed together as separate ops, because the kernel may
//! have merged them; and those whose memory the kernel could not use, which is now copied. A
//! request whose outcome is unknown is never repeated: the first attempt may still take effect,
//! after newer writes.

use std::io;
use std::ops::Range;
use std::time::Instant;

use super::layout::Piece;
use super::requests::Requests;
use super::reuse;
use super::ticket::Finished;
use super::wave::Wave;
use crate::backend::{IoBackend, OpKind, Segment, Stats};
use crate::{Error, ErrorClass, ErrorKind, Geometry, OwnedTransfer};

/// Staging memory of one wave in bytes, unless a single request needs more.
const MAX_STAGING: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) requests: Requests,
    pub(super) wave: Wave,
    /// The number of requests, in their order, that earlier waves carried.
    carried: usize,
    /// Requests that a later wave repeats.
    retry: Vec<u32>,
    /// The positions of requests whose ops carried nothing else and had a media error.
    failed_alone: Vec<usize>,
    retrying: bool,
    /// The number of repeated requests that come before their neighbours.
    apart: usize,
    /// Requests that have succeeded since the list was last emptied.
    pub(super) finished: Vec<u32>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            requests: Requests::new(),
            wave: Wave::default(),
            carried: 0,
            retry: Vec::new(),
            failed_alone: Vec::new(),
            retrying: false,
            apart: 0,
            finished: Vec::new(),
        }
    }

    /// Empties the batch, for `transfers` transfers of one kind.
    pub(super) fn start(&mut self, kind: OpKind, transfers: usize) {
        self.requests.start(kind, transfers);
        self.carried = 0;
        self.retry.clear();
        self.failed_alone.clear();
        self.retrying = false;
        self.apart = 0;
        self.finished.clear();
    }

    /// Adds transfers with their memory.
    pub(super) fn add_owned(&mut self, mut transfers: Vec<OwnedTransfer>, geometry: &Geometry) {
        // SAFETY: the transfers move into the memory of the ops, which does not move their bytes
        // (`Buffer::segment`). They are taken from there only when no op is left.
        unsafe { self.requests.add_owned(&mut transfers, geometry) };
        self.wave.memory().owned = transfers;
    }

    /// Makes the ops of the next wave. Returns `false` when all requests have been carried.
    pub(super) fn next_wave(&mut self, geometry: &Geometry, stats: &Stats) -> bool {
        if self.carried == self.requests.order.len() {
            self.repeat_neighbours(stats);
            if self.retry.is_empty() {
                return false;
            }
            std::mem::swap(&mut self.requests.order, &mut self.retry);
            self.retry.clear();
            self.carried = 0;
            self.retrying = true;
            self.apart = self.requests.take_apart();
        }
        let (positions, staging) = self.cut_wave(geometry);
        self.carried = positions.end;
        self.wave.clear();
        if let Err(error) = self.plan(positions.clone(), staging, self.retrying, geometry, stats) {
            for &index in &self.requests.order[positions] {
                self.requests.results[index as usize] = Err(error.clone());
            }
        }
        self.wave.begin();
        true
    }

    /// The positions of the requests that share the next wave, and the staging memory that they
    /// need.
    fn cut_wave(&mut self, geometry: &Geometry) -> (Range<usize>, usize) {
        let first = self.carried;
        let end = if first < self.apart { self.apart } else { self.requests.order.len() };
        if !self.requests.kind.transfers() {
            return (first..end, 0);
        }
        let mut staging = 0;
        for position in first..end {
            let index = self.requests.order[position];
            // Another request of the maximum length would exceed the address space.
            if staging > MAX_STAGING {
                return (first..position, staging);
            }
            let request = self.requests.get(index);
            let next = self.requests.lay_out(request, geometry, staging, |_| {});
            if next > MAX_STAGING && position > first {
                return (first..position, staging);
            }
            let request = self.requests.get_mut(index);
            request.staging = staging;
            request.staged = next > staging;
            staging = next;
        }
        (first..end, staging)
    }

    /// Settles the completions that were reaped.
    pub(super) fn settle(&mut self, geometry: &Geometry, stats: &Stats) {
        if self.wave.done.is_empty() {
            return;
        }
        let now = Instant::now();
        let (mut moved, mut retries) = (0, 0);
        let mut done = std::mem::take(&mut self.wave.done);
        self.wave.latencies.clear();
        for completion in done.drain(..) {
            let Some(run) = self.wave.settle(completion, now) else { continue };
            match run.result {
                Ok(()) => {
                    moved += run.len;
                    self.finished.extend(&self.requests.order[run.requests.clone()]);
                    self.unstage(run.requests, geometry);
                }
                Err(error) => retries += self.fail(run.requests, &error),
            }
        }
        self.wave.done = done;
        stats.update(|stats| {
            stats.count_done(self.requests.kind, moved);
            stats.retries += retries;
            self.wave.latencies.iter().for_each(|&latency| stats.count_latency(latency));
            stats.count_busy(self.wave.busy(now));
        });
    }

    /// Repeats the requests of an op that failed, or gives them the error. Returns the number of
    /// those that are repeated.
    fn fail(&mut self, positions: Range<usize>, error: &Error) -> u64 {
        let merged = positions.len() > 1;
        let ended = error.class() != ErrorClass::Unknown;
        // EFAULT: the kernel cannot pin the memory (`memfd_secret(2)`, mappings of devices). The
        // processor can copy it.
        let faulted = error.os_error().and_then(io::Error::raw_os_error) == Some(libc::EFAULT);
        let mut repeated = 0;
        for position in positions {
            let index = self.requests.order[position];
            let transfers = self.requests.kind.transfers();
            let request = self.requests.get_mut(index);
            let to_copy = faulted && transfers && !request.copied;
            if ended && (merged || to_copy) {
                request.copied |= to_copy;
                self.retry.push(index);
                repeated += 1;
            } else if merged {
                self.requests.fail(index, error.clone());
            } else {
                self.requests.results[index as usize] = Err(error.clone());
                if ended && !self.retrying && error.kind().is_io() {
                    self.failed_alone.push(position);
                }
            }
        }
        repeated
    }

    /// Repeats requests of separate ops that failed together with a neighbour: the kernel may have
    /// merged them.
    fn repeat_neighbours(&mut self, stats: &Stats) {
        let mut failed = std::mem::take(&mut self.failed_alone);
        failed.sort_unstable();
        let requests = &mut self.requests;
        let before = self.retry.len();
        for neighbours in failed.chunk_by(|&one, &next| {
            let (index, next_index) = (requests.order[one], requests.order[next]);
            let request = requests.get(index);
            next == one + 1 && request.offset + request.total_len == requests.get(next_index).offset
        }) {
            if neighbours.len() > 1 {
                self.retry.extend(neighbours.iter().map(|&position| requests.order[position]));
            }
        }
        let repeated = &self.retry[before..];
        repeated.iter().for_each(|&index| requests.results[index as usize] = Ok(()));
        if !repeated.is_empty() {
            stats.update(|stats| stats.retries += repeated.len() as u64);
        }
    }

    /// Copies what was read into staging memory to the caller's memory.
    fn unstage(&self, positions: Range<usize>, geometry: &Geometry) {
        if self.requests.kind != OpKind::Read {
            return;
        }
        for &index in &self.requests.order[positions] {
            let request = self.requests.get(index);
            if !request.staged {
                continue;
            }
            self.requests.lay_out(request, geometry, request.staging, |piece| {
                if let Piece::Staged { caller: Segment(caller), at } = piece {
                    // SAFETY: `cut_wave` laid out the same pieces, so `at` is inside the staging
                    // memory.
                    let from = unsafe { self.wave.memory.staging.start().add(at) };
                    let to = caller.iov_base.cast::<u8>();
                    // SAFETY: both are `iov_len` bytes: the caller's, exclusively this batch's by
                    // the contract of `Requests::add`, and this request's part of the staging
                    // memory, whose op was dropped.
                    unsafe { from.as_ptr().copy_to_nonoverlapping(to, caller.iov_len) };
                }
            });
        }
    }

    /// Fails the requests whose ops a broken queue accepted and lost.
    pub(super) fn abandon(&mut self, engine: &str) {
        for positions in self.wave.abandon() {
            for position in positions {
                let rule = format!(
                    "the {engine} backend lost this op; what the device holds there is unknown"
                );
                let error = Error::new(ErrorKind::Io, self.requests.kind.name(), rule)
                    .with_class(ErrorClass::Unknown);
                self.requests.fail(self.requests.order[position], error);
            }
        }
    }

    /// Fails the requests whose ops no queue has accepted, because there is no queue.
    pub(super) fn refuse(&mut self, error: &Error) {
        let lost: Vec<_> = self.wave.abandon().flatten().collect();
        for position in lost {
            self.requests.fail(self.requests.order[position], error.clone());
        }
    }

    /// The memory of the transfers of [`add_owned`](Self::add_owned), and their results, in the
    /// same order, once the batch has completed.
    pub(super) fn take_finished(&mut self, backend: &dyn IoBackend) -> Vec<Finished> {
        let transfers = std::mem::take(&mut self.wave.memory().owned);
        let finish = |(transfer, result)| {
            let OwnedTransfer { buffer, more, .. } = transfer;
            Finished { buffer, more, result }
        };
        transfers.into_iter().zip(self.take_results(backend)).map(finish).collect()
    }

    /// The results in the order in which the transfers were added, once the batch has completed.
    pub(super) fn take_results(&mut self, backend: &dyn IoBackend) -> Vec<Result<(), Error>> {
        self.requests.shrink();
        self.wave.shrink();
        reuse::clear(&mut self.retry);
        reuse::clear(&mut self.finished);
        let mut results = std::mem::take(&mut self.requests.results);
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
}

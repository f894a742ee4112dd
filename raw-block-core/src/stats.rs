//! The counters of a device.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::backend::OpKind;
use crate::{Error, ErrorKind};

/// The counters of one open device, updated once per batch and once per system call.
///
/// # Examples
/// ```
/// use raw_block_core::backend::Stats;
///
/// let stats = Stats::new();
/// stats.update(|counters| counters.submissions += 1);
/// assert_eq!(stats.snapshot().submissions, 1);
/// ```
#[derive(Debug, Default)]
pub struct Stats(Mutex<StatsSnapshot>);

impl Stats {
    /// Counters that all stand at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        self.update(|counters| counters.clone())
    }

    /// Changes the counters, all at once as seen by [`snapshot`](Self::snapshot).
    pub fn update<R>(&self, change: impl FnOnce(&mut StatsSnapshot) -> R) -> R {
        // A panic between two additions leaves counters that are merely incomplete.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The counters of one open device at one time, counted since it was opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct StatsSnapshot {
    /// Batches that were given to the dispatcher.
    pub batches: u64,
    /// Transfers in those batches, as the callers counted them.
    pub transfers: u64,
    /// Ops that reached the backend, after merging. Parts of a failed merge count again.
    pub ops: u64,
    /// Transfers that shared an op with a neighbour.
    pub merged_transfers: u64,
    /// Bytes read by completed ops.
    pub read_bytes: u64,
    /// Bytes written by completed ops.
    pub written_bytes: u64,
    /// Bytes moved from or to the caller's memory as it is.
    pub direct_bytes: u64,
    /// Bytes moved through aligned memory of the dispatcher.
    pub staged_bytes: u64,
    /// Submissions: system calls, except where a thread of the kernel polls for ops.
    pub submissions: u64,
    /// Entries that a ring submitted: several for an op that the backend splits at the limits of
    /// the device. Backends without a ring count none.
    pub commands: u64,
    /// The sum of the entries in flight at each submission; see
    /// [`depth_at_submission`](Self::depth_at_submission).
    pub in_flight_at_submissions: u64,
    /// Ops, or rests of ops, that were issued again: short transfers, `EAGAIN`, parts of a failed
    /// merge.
    pub retries: u64,
    /// Ops that a backend served from registered memory.
    pub registered_ops: u64,
    /// Times that memory could not be registered, so that transfers from and to it work without.
    pub refused_registrations: u64,
    /// Ops whose memory is registered, but not in one piece, so that a backend served them without.
    pub crossing_ops: u64,
    /// Calls of [`Dispatcher::flush`](crate::Dispatcher::flush) that waited for a flush or
    /// performed one.
    pub flush_calls: u64,
    /// Flushes that were submitted. Fewer than `flush_calls`, because one serves all callers that
    /// wait.
    pub flushes: u64,
    /// Batches of tickets that have not completed, whether their tickets exist or not.
    pub tickets_in_flight: u64,
    /// Time in nanoseconds during which a queue had something in flight, summed over the queues.
    pub busy_ns: u64,
    errors: [u64; ErrorKind::COUNT],
    latency_ns: u64,
    latency: Histogram<u64>,
}

impl StatsSnapshot {
    /// How many transfers failed with an error of this kind.
    #[must_use]
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize]
    }

    /// The latency below which `quantile` (0.0 to 1.0) of all ops stayed: from the moment a queue
    /// accepted the op until it was reaped. Exact to one per cent, up to one minute.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }

    /// The mean number of ops in flight per queue while it was busy (by Little's law: the sum of
    /// all latencies over the busy time).
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean of counters needs no more than 52 bits")]
    pub fn achieved_depth(&self) -> f64 {
        if self.busy_ns == 0 {
            return 0.0;
        }
        self.latency_ns as f64 / self.busy_ns as f64
    }

    /// The mean number of entries in flight right after a submission: how full the ring is kept.
    /// Unlike [`achieved_depth`](Self::achieved_depth), it counts what ops were split into.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean of counters needs no more than 52 bits")]
    pub fn depth_at_submission(&self) -> f64 {
        if self.submissions == 0 {
            return 0.0;
        }
        self.in_flight_at_submissions as f64 / self.submissions as f64
    }

    pub(crate) fn count_error(&mut self, error: &Error) {
        self.errors[error.kind() as usize] += 1;
    }

    pub(crate) fn count_latency(&mut self, latency: Duration) {
        let ns = nanoseconds(latency);
        self.latency_ns = self.latency_ns.saturating_add(ns);
        self.latency.saturating_record(ns);
    }

    pub(crate) fn count_busy(&mut self, busy: Duration) {
        self.busy_ns = self.busy_ns.saturating_add(nanoseconds(busy));
    }

    pub(crate) fn count_done(&mut self, kind: OpKind, bytes: u64) {
        match kind {
            OpKind::Read => self.read_bytes += bytes,
            OpKind::Write => self.written_bytes += bytes,
            OpKind::Flush | OpKind::Discard | OpKind::WriteZeroes => {}
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for StatsSnapshot {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 2).unwrap_or_else(|_| {
            unreachable!("the bounds are constants that the histogram accepts")
        });
        Self {
            batches: 0,
            transfers: 0,
            ops: 0,
            merged_transfers: 0,
            read_bytes: 0,
            written_bytes: 0,
            direct_bytes: 0,
            staged_bytes: 0,
            submissions: 0,
            commands: 0,
            in_flight_at_submissions: 0,
            retries: 0,
            registered_ops: 0,
            refused_registrations: 0,
            crossing_ops: 0,
            flush_calls: 0,
            flushes: 0,
            tickets_in_flight: 0,
            busy_ns: 0,
            errors: [0; ErrorKind::COUNT],
            latency_ns: 0,
            latency,
        }
    }
}

impl fmt::Debug for StatsSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsSnapshot")
            .field("batches", &self.batches)
            .field("transfers", &self.transfers)
            .field("ops", &self.ops)
            .field("submissions", &self.submissions)
            .field("achieved_depth", &self.achieved_depth())
            .field("p50", &self.latency(0.5))
            .field("p99", &self.latency(0.99))
            .finish_non_exhaustive()
    }
}

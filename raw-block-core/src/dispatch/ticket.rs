//! A batch that owns its memory and runs while its caller does other work.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use super::lane::WaitMode;
use super::pool::LaneGuard;
use crate::{Buffer, Error, OwnedTransfer};

/// A batch in flight, with its memory. Any thread may wait for it.
///
/// Each call of the ticket refills the queue. So a batch that exceeds
/// [`queue_depth`](crate::DispatcherOptions::queue_depth) makes progress beyond it only in these
/// calls.
///
/// Dropping a ticket waits for the batch to end. Forgetting it (`std::mem::forget`) loses its queue
/// and its memory for good, which is sound, and visible as
/// [`tickets_out`](crate::StatsSnapshot::tickets_out).
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::{AlignedBuf, Dispatcher, MemoryBackend, OwnedTransfer};
///
/// let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
/// let batch = vec![OwnedTransfer::new(4096, AlignedBuf::zeroed(4096)?)];
/// let ticket = device.batched_read(batch).map_err(|refused| refused.error)?;
/// // ... other work ...
/// for finished in ticket.wait() {
///     finished.result?;
///     assert_eq!(finished.buffer.len(), 4096);
/// }
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[must_use = "dropping a ticket waits for its batch and throws the results away"]
pub struct Ticket {
    id: u64,
    /// `None` once the results were taken.
    lane: Option<LaneGuard>,
}

/// One transfer of an owned batch that has completed.
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
pub struct Finished {
    /// The memory of the transfer, as it was given. Empty in a forked child, which has none.
    pub buffer: Buffer,
    /// The other memory segments, in sequence; most transfers have none.
    pub more: Vec<Buffer>,
    /// Its result. After a failed read the contents of the memory are unspecified.
    pub result: Result<(), Error>,
}

/// An owned batch that was not started, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Refused {
    /// Why it was not started.
    pub error: Error,
    /// The batch, as it was given.
    pub batch: Vec<OwnedTransfer>,
}

impl Ticket {
    pub(super) fn new(id: u64, lane: LaneGuard) -> Self {
        Self { id, lane: Some(lane) }
    }

    /// A number that no other batch of this dispatcher has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A descriptor that is readable when [`try_wait`](Self::try_wait) may make progress, if the
    /// backend has one.
    #[must_use]
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.lane.as_ref()?.event_fd()
    }

    /// Waits until the batch has completed. The results are in the order of the batch.
    ///
    /// Empty if [`try_wait`](Self::try_wait) or [`wait_deadline`](Self::wait_deadline) has returned
    /// them.
    #[must_use]
    pub fn wait(mut self) -> Vec<Finished> {
        self.advance(WaitMode::All).unwrap_or_default()
    }

    /// Reaps completions and refills the queue, without waiting. Returns the results if the batch
    /// has completed.
    ///
    /// When it has not, ops are in flight, and [`event_fd`](Self::event_fd) is readable as soon as
    /// one completes.
    #[must_use]
    pub fn try_wait(&mut self) -> Option<Vec<Finished>> {
        self.advance(WaitMode::Poll)
    }

    /// Waits until the batch has completed or `deadline` has passed. Returns the results if it has
    /// completed. After the deadline it does only what [`try_wait`](Self::try_wait) does.
    #[must_use]
    pub fn wait_deadline(&mut self, deadline: Instant) -> Option<Vec<Finished>> {
        self.advance(WaitMode::Until(deadline))
    }

    fn advance(&mut self, mode: WaitMode) -> Option<Vec<Finished>> {
        // Taken from the ticket first: if the backend panics, the panic drops the lane, and the
        // drop of the ticket does nothing.
        let mut lane = self.lane.take()?;
        if let Err(error) = lane.pool.check_process() {
            // The queue belongs to the parent; no completion reaches the copy in the child.
            let lost = || Finished {
                buffer: Buffer::default(),
                more: Vec::new(),
                result: Err(error.clone()),
            };
            return Some(std::iter::repeat_with(lost).take(lane.batch.requests.len()).collect());
        }
        let backend = Arc::clone(&lane.pool.backend);
        if !lane.drive(&*backend, mode) {
            self.lane = Some(lane);
            return None;
        }
        let transfers = lane.batch.take_owned();
        let results = lane.batch.take_results(&*backend);
        let finish = |(transfer, result)| {
            let OwnedTransfer { buffer, more, .. } = transfer;
            Finished { buffer, more, result }
        };
        Some(transfers.into_iter().zip(results).map(finish).collect())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.advance(WaitMode::All);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).field("taken", &self.lane.is_none()).finish()
    }
}

//! A batch that owns its memory and runs while its caller does other work.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::driver::Outcome;
use crate::{Buffer, Error, OwnedTransfer};

/// A batch in flight, with its memory. Any thread may wait for it.
///
/// A thread of the dispatcher runs the batch, whatever its length, without calls of the ticket. It
/// runs the batches of all tickets over one queue: reads first, and in the meantime 1 MiB of writes
/// at a time.
///
/// A ticket is a future too. Its output is that of [`wait`](Self::wait), and it needs no runtime.
/// An event loop polls it with the waker of a [`WakeFd`](crate::WakeFd).
///
/// Dropping a ticket does not wait: the batch goes on, its results are discarded, and its memory
/// is freed when it has completed.
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
#[must_use = "dropping a ticket throws the results of its batch away"]
pub struct Ticket {
    id: u64,
    outcome: Arc<Outcome>,
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
    pub(super) fn new(id: u64, outcome: Arc<Outcome>) -> Self {
        Self { id, outcome }
    }

    /// A number that no other batch of this dispatcher has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits until the batch has completed. The results are in the order of the batch.
    ///
    /// Empty if [`try_wait`](Self::try_wait) or [`wait_deadline`](Self::wait_deadline) has returned
    /// them.
    #[must_use]
    pub fn wait(self) -> Vec<Finished> {
        self.outcome.take(None).unwrap_or_default()
    }

    /// Returns the results if the batch has completed. Does not wait.
    #[must_use]
    pub fn try_wait(&mut self) -> Option<Vec<Finished>> {
        self.outcome.try_take()
    }

    /// Waits until the batch has completed or `deadline` has passed. Returns the results if it has
    /// completed.
    #[must_use]
    pub fn wait_deadline(&mut self, deadline: Instant) -> Option<Vec<Finished>> {
        self.outcome.take(Some(deadline))
    }
}

impl Future for Ticket {
    type Output = Vec<Finished>;

    /// The results are empty if they were returned before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Finished>> {
        self.outcome.poll(context.waker()).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.outcome.abandon();
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).finish_non_exhaustive()
    }
}

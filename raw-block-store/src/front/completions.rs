//! A completion queue: submissions return ids, and one descriptor shows completions.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::async_store::AsyncStore;
use super::batch::{Batch, Refused};
use super::completion_list::{Completion, CompletionList, Outcome, RequestId};
use super::job::{Job, Reply};
use super::operation::{CONTAINS, DELETE, FLUSH_SIZE, GET, Operation, PUT, PUT_IF_ABSENT};
use super::owned::{OwnedGet, OwnedPut};
use crate::Error;

/// A queue of completions, for event loops.
///
/// Submissions return an id at once. [`event_fd`](Self::event_fd) is readable while there are
/// completions, and [`drain`](Self::drain) returns them. Each id completes exactly once.
///
/// The queue is a handle of its front: while it lives, the front does not end by itself. When it is
/// dropped, its requests that wait are removed, and the results of those in progress are dropped.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
/// use raw_block_store::core::MemoryBackend;
/// use raw_block_store::{AsyncOptions, AsyncStore, FormatOptions, Outcome, OwnedPut, Store};
/// use raw_block_store::AlignedBuf;
///
/// let device = Arc::new(MemoryBackend::new(16 << 20)?);
/// Store::format(device.clone(), &FormatOptions::default())?;
/// let store = AsyncStore::start(Store::open(device)?, &AsyncOptions::new())?;
/// let queue = store.completions(64)?;
/// let put = queue.submit_put([OwnedPut::new(b"layer 0", AlignedBuf::zeroed(4096)?)])?;
///
/// let mut completions = Vec::new();
/// while completions.is_empty() {
///     poll(&mut [PollFd::new(queue.event_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
///     queue.drain(&mut completions)?;
/// }
/// assert_eq!(completions[0].id, put);
/// assert!(matches!(&completions[0].outcome, Outcome::Put(puts) if puts[0].result.is_ok()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CompletionQueue {
    store: AsyncStore,
    list: Arc<CompletionList>,
    capacity: usize,
}

impl AsyncStore {
    /// Makes a completion queue. At most `capacity` of its requests are outstanding: submitted, and
    /// their completions not drained.
    ///
    /// # Errors
    /// [`Error::Device`] when the process can have no further descriptor, or in a forked child.
    pub fn completions(&self, capacity: usize) -> Result<CompletionQueue, Error> {
        self.shared().check_process()?;
        let list = Arc::new(CompletionList::new()?);
        Ok(CompletionQueue { store: self.clone(), list, capacity })
    }
}

impl CompletionQueue {
    /// Submits puts: [`AsyncStore::put_many`].
    ///
    /// # Errors
    /// [`Error::Overloaded`] when a limit is reached, [`Error::Unavailable`] while the device is
    /// slow or failed, [`Error::DeadlinePassed`], [`Error::Closed`], and [`Error::Device`] in a
    /// forked child; the batch is returned.
    pub fn submit_put(
        &self,
        puts: impl Into<Batch<OwnedPut>>,
    ) -> Result<RequestId, Refused<OwnedPut>> {
        self.submit(&PUT, puts.into())
    }

    /// Submits puts of absent keys: [`AsyncStore::put_many_if_absent`].
    ///
    /// # Errors
    /// Those of [`submit_put`](Self::submit_put).
    pub fn submit_put_if_absent(
        &self,
        puts: impl Into<Batch<OwnedPut>>,
    ) -> Result<RequestId, Refused<OwnedPut>> {
        self.submit(&PUT_IF_ABSENT, puts.into())
    }

    /// Submits gets: [`AsyncStore::get_many`].
    ///
    /// # Errors
    /// Those of [`submit_put`](Self::submit_put).
    pub fn submit_get(
        &self,
        gets: impl Into<Batch<OwnedGet>>,
    ) -> Result<RequestId, Refused<OwnedGet>> {
        self.submit(&GET, gets.into())
    }

    /// Submits deletes: [`AsyncStore::delete_many`].
    ///
    /// # Errors
    /// Those of [`submit_put`](Self::submit_put).
    pub fn submit_delete(
        &self,
        keys: impl Into<Batch<Vec<u8>>>,
    ) -> Result<RequestId, Refused<Vec<u8>>> {
        self.submit(&DELETE, keys.into())
    }

    /// Submits look-ups: [`AsyncStore::contains_many`].
    ///
    /// # Errors
    /// Those of [`submit_put`](Self::submit_put), except [`Error::Unavailable`].
    pub fn submit_contains(
        &self,
        keys: impl Into<Batch<Vec<u8>>>,
    ) -> Result<RequestId, Refused<Vec<u8>>> {
        self.submit(&CONTAINS, keys.into())
    }

    /// Submits a flush: [`AsyncStore::flush`].
    ///
    /// # Errors
    /// Those of [`submit_put`](Self::submit_put).
    pub fn submit_flush(&self) -> Result<RequestId, Error> {
        self.reserve()?;
        let list = Arc::clone(&self.list);
        let make =
            |id| Job::Flush(Reply::Completion { list, id: RequestId(id), outcome: Outcome::Flush });
        let submitted = self.store.shared().submit(FLUSH_SIZE, None, make);
        submitted.map(RequestId).inspect_err(|_| self.list.dismiss())
    }

    /// A descriptor that is readable while there are completions, for `poll(2)` and `epoll(7)`. It
    /// stays the same.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.list.descriptor()
    }

    /// Appends all completions that are there to `completions`, in the order in which they
    /// completed, and returns how many. Does not wait.
    ///
    /// # Errors
    /// [`Error::Device`] in a forked child.
    pub fn drain(&self, completions: &mut Vec<Completion>) -> Result<usize, Error> {
        self.store.shared().check_process()?;
        Ok(self.list.drain(completions))
    }

    fn submit<R, T>(
        &self,
        operation: &Operation<R, T>,
        batch: Batch<R>,
    ) -> Result<RequestId, Refused<R>> {
        if let Err(error) = self.reserve() {
            return Err(Refused { error, items: batch.items });
        }
        let list = Arc::clone(&self.list);
        let outcome = operation.outcome;
        let reply = |id| Reply::Completion { list, id: RequestId(id), outcome };
        let submitted = operation.submit(self.store.shared(), batch, reply);
        submitted.map(RequestId).inspect_err(|_| self.list.dismiss())
    }

    fn reserve(&self) -> Result<(), Error> {
        self.store.shared().check_process()?;
        if self.list.admit(self.capacity) {
            return Ok(());
        }
        Err(Error::Overloaded { what: "outstanding requests", limit: self.capacity as u64 })
    }
}

impl AsFd for CompletionQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event_fd()
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        if !self.store.shared().is_inherited() {
            self.list.close();
            self.store.shared().cancel_if(|job| job.is_for(&self.list));
        }
    }
}

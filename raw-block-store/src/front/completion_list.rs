//! The completions that a completion queue returns, and its descriptor.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use nix::sys::eventfd::{EfdFlags, EventFd};
use raw_block_core::sync;

use super::batch::Finished;
use super::catch;
use super::owned::{OwnedGet, OwnedPut};
use crate::error::Context;
use crate::{Error, GetInfo};

/// The number of a request of a completion queue. No other request of its store has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// A request that has completed.
#[derive(Debug)]
#[must_use = "each object of the batch may have failed"]
#[non_exhaustive]
pub struct Completion {
    /// What the submission returned.
    pub id: RequestId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request, in the order of its batch.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Of `submit_put`.
    Put(Vec<Finished<OwnedPut, ()>>),
    /// Of `submit_put_if_absent`: whether each object was put.
    PutIfAbsent(Vec<Finished<OwnedPut, bool>>),
    /// Of `submit_get`: what was found for each key.
    Get(Vec<Finished<OwnedGet, Option<GetInfo>>>),
    /// Of `submit_delete`: whether there was an object with each key.
    Delete(Vec<Finished<Vec<u8>, bool>>),
    /// Of `submit_contains`: whether there is an object with each key.
    Contains(Vec<Finished<Vec<u8>, bool>>),
    /// Of `submit_flush`.
    Flush(Result<(), Error>),
}

/// The completions of one queue that were not drained yet.
#[derive(Debug)]
pub(super) struct CompletionList {
    /// Readable while there are completions.
    descriptor: EventFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    completions: Vec<Completion>,
    /// Requests that were submitted and whose completions were not drained.
    outstanding: usize,
    /// The queue was dropped.
    is_closed: bool,
}

impl CompletionList {
    pub(super) fn new() -> Result<Self, Error> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let descriptor = EventFd::from_flags(flags)
            .map_err(|errno| raw_block_core::Error::os("create an eventfd", errno.into()))
            .context("make a completion queue")?;
        Ok(Self { descriptor, state: Mutex::default() })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Counts a request as outstanding, unless that many are.
    pub(super) fn admit(&self, capacity: usize) -> bool {
        let mut state = sync::lock(&self.state);
        let admitted = state.outstanding < capacity;
        state.outstanding += usize::from(admitted);
        admitted
    }

    /// A request was refused after all.
    pub(super) fn dismiss(&self) {
        sync::lock(&self.state).outstanding -= 1;
    }

    /// Adds a completion; drops it if the queue was dropped.
    pub(super) fn push(&self, id: RequestId, outcome: Outcome) {
        let mut state = sync::lock(&self.state);
        if state.is_closed {
            drop(state);
            catch::logged("the memory of a request", || drop(outcome));
            return;
        }
        state.completions.push(Completion { id, outcome });
        if state.completions.len() == 1 {
            // Under the lock, so that the descriptor shows what the list holds. It cannot block,
            // because its counter is 0 or 1.
            let _ = self.descriptor.write(1);
        }
    }

    /// Moves all completions to `to`. Returns how many.
    pub(super) fn drain(&self, to: &mut Vec<Completion>) -> usize {
        let mut state = sync::lock(&self.state);
        let count = state.completions.len();
        if count > 0 {
            // Resets the counter.
            let _ = self.descriptor.read();
            state.outstanding -= count;
            to.append(&mut state.completions);
        }
        count
    }

    /// Drops what is there, and what comes.
    pub(super) fn close(&self) {
        let mut state = sync::lock(&self.state);
        state.is_closed = true;
        let completions = std::mem::take(&mut state.completions);
        drop(state);
        drop(completions);
    }
}

//! A request in the front: what is to be done, and where its result goes.

use std::sync::Arc;

use super::batch::Finished;
use super::completion_list::{CompletionList, Outcome, RequestId};
use super::owned::{OwnedGet, OwnedPut};
use super::slot::Slot;
use crate::{Error, GetInfo};

/// Which queue a request goes to, and which workers execute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueKind {
    /// Presence: never waits for the device.
    Lookup,
    /// Gets.
    Load,
    /// Puts, deletes and flushes.
    Store,
}

impl QueueKind {
    pub(super) const ALL: [Self; 3] = [Self::Lookup, Self::Load, Self::Store];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Load => "load",
            Self::Store => "store",
        }
    }
}

/// Where the result of a request goes. It is sent once, because sending consumes this.
#[derive(Debug)]
pub(super) enum Reply<V> {
    Future(Arc<Slot<V>>),
    Completion { list: Arc<CompletionList>, id: RequestId, outcome: fn(V) -> Outcome },
}

impl<V> Reply<V> {
    pub(super) fn send(self, value: V) {
        match self {
            Self::Future(slot) => slot.send(value),
            Self::Completion { list, id, outcome } => list.push(id, outcome(value)),
        }
    }

    fn is_for(&self, queue: &Arc<CompletionList>) -> bool {
        matches!(self, Self::Completion { list, .. } if Arc::ptr_eq(list, queue))
    }
}

/// A batch, and where its results go.
#[derive(Debug)]
pub(super) struct Call<R, T> {
    pub(super) items: Vec<R>,
    pub(super) reply: Reply<Vec<Finished<R, T>>>,
}

impl<R, T> Call<R, T> {
    /// Completes it with these results, one for each item.
    pub(super) fn send(self, results: impl Iterator<Item = Result<T, Error>>) {
        let finished = self.items.into_iter().zip(results);
        self.reply.send(finished.map(|(item, result)| Finished { item, result }).collect());
    }

    fn fail(self, error: &Error) {
        self.send(std::iter::repeat_with(|| Err(error.clone())));
    }
}

/// A request.
#[derive(Debug)]
pub(super) enum Job {
    Put(Call<OwnedPut, ()>),
    PutIfAbsent(Call<OwnedPut, bool>),
    Get(Call<OwnedGet, Option<GetInfo>>),
    Delete(Call<Vec<u8>, bool>),
    Contains(Call<Vec<u8>, bool>),
    Flush(Reply<Result<(), Error>>),
}

impl Job {
    /// Completes it with this error.
    pub(super) fn fail(self, error: &Error) {
        match self {
            Self::Put(call) => call.fail(error),
            Self::PutIfAbsent(call) => call.fail(error),
            Self::Get(call) => call.fail(error),
            Self::Delete(call) | Self::Contains(call) => call.fail(error),
            Self::Flush(reply) => reply.send(Err(error.clone())),
        }
    }

    /// Completes it without the device: every key is absent. Anything but presence gets the error.
    pub(super) fn miss(self, error: &Error) {
        match self {
            Self::Contains(call) => call.send(std::iter::repeat_with(|| Ok(false))),
            other => other.fail(error),
        }
    }

    /// Whether its result goes to this completion queue.
    pub(super) fn is_for(&self, queue: &Arc<CompletionList>) -> bool {
        match self {
            Self::Put(call) => call.reply.is_for(queue),
            Self::PutIfAbsent(call) => call.reply.is_for(queue),
            Self::Get(call) => call.reply.is_for(queue),
            Self::Delete(call) | Self::Contains(call) => call.reply.is_for(queue),
            Self::Flush(reply) => reply.is_for(queue),
        }
    }
}

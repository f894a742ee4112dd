//! The operations of the front: which queue each one goes to, and what its results are.

use std::mem;

use super::batch::{Batch, Finished, Refused};
use super::completion_list::Outcome;
use super::job::{Call, Job, QueueKind, Reply};
use super::owned::{OwnedGet, OwnedPut};
use super::shared::Shared;
use super::state::Size;
use crate::GetInfo;

/// An operation on batches of `R`, with a result `T` for each.
pub(super) struct Operation<R, T> {
    pub(super) kind: QueueKind,
    /// Bytes of memory that an item owns.
    bytes: fn(&R) -> u64,
    job: fn(Call<R, T>) -> Job,
    pub(super) outcome: fn(Vec<Finished<R, T>>) -> Outcome,
}

pub(super) const PUT: Operation<OwnedPut, ()> = Operation {
    kind: QueueKind::Store,
    bytes: OwnedPut::bytes,
    job: Job::Put,
    outcome: Outcome::Put,
};

pub(super) const PUT_IF_ABSENT: Operation<OwnedPut, bool> = Operation {
    kind: QueueKind::Store,
    bytes: OwnedPut::bytes,
    job: Job::PutIfAbsent,
    outcome: Outcome::PutIfAbsent,
};

pub(super) const GET: Operation<OwnedGet, Option<GetInfo>> = Operation {
    kind: QueueKind::Load,
    bytes: OwnedGet::bytes,
    job: Job::Get,
    outcome: Outcome::Get,
};

pub(super) const DELETE: Operation<Vec<u8>, bool> = Operation {
    kind: QueueKind::Store,
    bytes: key_bytes,
    job: Job::Delete,
    outcome: Outcome::Delete,
};

pub(super) const CONTAINS: Operation<Vec<u8>, bool> = Operation {
    kind: QueueKind::Lookup,
    bytes: key_bytes,
    job: Job::Contains,
    outcome: Outcome::Contains,
};

/// What a flush needs.
pub(super) const FLUSH_SIZE: Size = Size { kind: QueueKind::Store, objects: 0, bytes: 0 };

#[expect(clippy::ptr_arg, reason = "the items of a batch are vectors")]
fn key_bytes(key: &Vec<u8>) -> u64 {
    key.len() as u64
}

impl<R, T> Operation<R, T> {
    /// Submits a batch; `reply` says for its id where its results go. Returns the id.
    pub(super) fn submit(
        &self,
        shared: &Shared,
        batch: Batch<R>,
        reply: impl FnOnce(u64) -> Reply<Vec<Finished<R, T>>>,
    ) -> Result<u64, Refused<R>> {
        let Batch { mut items, deadline } = batch;
        let bytes = items.iter().map(self.bytes).sum();
        let size = Size { kind: self.kind, objects: items.len(), bytes };
        let make = |id| (self.job)(Call { items: mem::take(&mut items), reply: reply(id) });
        let submitted = shared.submit(size, deadline, make);
        submitted.map_err(|error| Refused { error, items })
    }
}

//! The future of a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use raw_block_core::process;

use super::job::QueueKind;
use super::shared::Shared;
use super::slot::Slot;

/// A request that was submitted, as a future of its result.
///
/// The request was submitted when the future was made, and goes on whether it is polled or not.
/// Dropping the future gives up the result: a request that waits is removed from its queue, one
/// that runs ends in its own time, and then its memory is released. The drop does not wait for it.
///
/// In a forked child, a future that was made by the parent never completes.
#[derive(Debug)]
#[must_use = "a request whose future is dropped may not be executed"]
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
    /// `None` once there is nothing to cancel.
    request: Option<Request>,
}

#[derive(Debug)]
struct Request {
    /// The future does not keep the front alive.
    shared: Weak<Shared>,
    /// The process that submitted it.
    process: u32,
    kind: QueueKind,
    id: u64,
}

impl<T> Pending<T> {
    /// A request with this id, whose result comes to `slot`.
    pub(super) fn new(slot: Arc<Slot<T>>, shared: &Arc<Shared>, kind: QueueKind, id: u64) -> Self {
        let (shared, process) = (Arc::downgrade(shared), process::id());
        Self { slot, request: Some(Request { shared, process, kind, id }) }
    }

    /// A request that was refused, with this result.
    pub(super) fn ready(result: T) -> Self {
        Self { slot: Arc::new(Slot::ready(result)), request: None }
    }
}

impl<T> Future for Pending<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.request.as_ref().is_some_and(Request::is_inherited) {
            return Poll::Pending;
        }
        let result = self.slot.poll(context);
        if result.is_ready() {
            self.request = None;
        }
        result
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take()
            && !request.is_inherited()
        {
            self.slot.abandon();
            request.cancel();
        }
    }
}

impl Request {
    fn is_inherited(&self) -> bool {
        process::id() != self.process
    }

    fn cancel(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.cancel(self.kind, self.id);
        }
    }
}

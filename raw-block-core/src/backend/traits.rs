//! The two traits that a backend implements.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use super::flush_state::FlushState;
use super::op::{Completion, Op};
use crate::buffer::Arena;
use crate::stats::Stats;
use crate::{Error, ErrorKind, Geometry};

/// An open device: a backend of an engine.
///
/// A backend hands out queues and answers questions; all transfers go through the queues. Dropping
/// it closes the device once the last queue is gone.
pub trait IoBackend: Send + Sync {
    /// The engine's name: `"memory"`, `"posix"`, `"uring"`, ...
    fn engine(&self) -> &str;

    /// The name of this backend in errors and logs: the path of its device, or what identifies it.
    fn name(&self) -> &str;

    /// What the device can do. Never changes while the backend lives.
    fn geometry(&self) -> &Geometry;

    /// The counters of this device. The backend counts its submissions and retries in it, the
    /// dispatcher everything else.
    fn stats(&self) -> &Stats;

    /// The flushes of this device, which the dispatchers on this backend share. The backend keeps
    /// it and leaves it alone; it is always the same one.
    fn flush_state(&self) -> &FlushState;

    /// Opens a queue that holds up to `depth` ops in flight; the backend may grant another depth.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] when the system has no more memory, threads or descriptors.
    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error>;

    /// As [`open_queue`](Self::open_queue), for the calling thread alone. A backend that gains
    /// nothing from it returns a queue that any thread may use; [`IoQueue::is_local`] distinguishes
    /// them.
    ///
    /// # Errors
    /// As [`open_queue`](Self::open_queue).
    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.open_queue(depth)
    }

    /// Registers an arena, so that transfers from and to it skip the mapping of its pages.
    ///
    /// The backend keeps the arena alive until it is [unregistered](Self::unregister) or the
    /// backend is dropped. Purely an optimisation: transfers from unregistered memory work just as
    /// well.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the backend has no such thing;
    /// [`ErrorKind::OutOfResources`] when the kernel refuses to pin that much memory.
    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        let _ = arena;
        Err(Error::new(
            ErrorKind::Unsupported,
            "register memory",
            "this backend has no registered memory; transfers work without it",
        )
        .on(self.name()))
    }

    /// Takes back one registration of an arena. Transfers that begin later do not use it; those in
    /// flight still may. Nothing happens when there is none.
    ///
    /// Dropping the backend takes back all, also for queues that outlive it.
    fn unregister(&self, arena: &Arc<Arena>) {
        let _ = arena;
    }
}

/// A submission context with a single owner: a ring, a share of a thread pool, a simulation.
///
/// # Contract
/// The conformance suite tests these for every backend.
///
/// 1. A completion is all or nothing. Short transfers, `EINTR`, `EAGAIN` and the limits of the
///    device are dealt with below this trait; a transfer that makes no progress ends in an error.
/// 2. Every op that was accepted completes exactly once. An op fails in one way: with an error in
///    its completion. So neither method returns an error.
/// 3. Completions come in any order, and each op has its own result.
/// 4. The memory of an op is not touched after its completion was handed out.
/// 5. Dropping a queue waits for what is in flight. Where it cannot wait, it leaks the ops.
/// 6. An idle queue uses no CPU.
/// 7. The [class](Error::class) of an op's error says what is known of its effect.
///    [`NotStarted`](crate::ErrorClass::NotStarted): nothing has reached the device.
///    [`Failed`](crate::ErrorClass::Failed): the op has ended, and nothing of it takes effect
///    later. [`Unknown`](crate::ErrorClass::Unknown): the op was interrupted or lost, and may still
///    take effect. The dispatcher repeats transfers after errors of the first two classes. It never
///    repeats one of the third, and neither may a backend, unless the op changes nothing.
pub trait IoQueue: Send {
    /// The most ops that can be in flight; 0 once the queue is broken and should not be used again.
    fn depth(&self) -> usize;

    /// How many ops were accepted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// Whether only the thread that opened the queue may use it. Used by another thread it accepts
    /// nothing and gives no completions; another thread may drop it, where ops that are in flight
    /// are leaked.
    fn is_local(&self) -> bool {
        false
    }

    /// Accepts ops from the front of `ops` while the queue has capacity; the others stay in `ops`.
    ///
    /// Accepted ops start at the latest with the next [`start`](Self::start) or
    /// [`reap`](Self::reap): a ring hands them to the kernel in the same system call that waits for
    /// them.
    fn submit(&mut self, ops: &mut VecDeque<Op>);

    /// Starts what was accepted, without waiting and without giving completions.
    ///
    /// The dispatcher calls this before it returns to a caller that does not wait, or has other
    /// work to do first. What was started completes without the queue being used, and makes
    /// [`event_fd`](Self::event_fd) readable. Does nothing in a queue without such a descriptor
    /// whose ops are carried out by the calls that reap them.
    fn start(&mut self);

    /// Starts what was accepted, then appends completions to `done` until at least `min` were
    /// appended, nothing is in flight, or `deadline` has passed.
    ///
    /// `reap(0, ..)` starts what was accepted and takes what is there, without waiting.
    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>);

    /// A descriptor that is readable when reaping may make progress, if the backend has one.
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

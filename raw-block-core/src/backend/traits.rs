//! The two traits that a backend implements.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::flush_state::FlushState;
use super::op::{Completion, Op};
use crate::buffer::Arena;
use crate::stats::Stats;
use crate::{Error, ErrorKind, Geometry};

/// An open device: a backend of an engine.
///
/// A backend opens queues and reports what the device can do; all transfers go through the queues.
/// Dropping it closes the device once its last queue is dropped.
///
/// # Examples
/// ```
/// use raw_block_core::MemoryBackend;
/// use raw_block_core::backend::IoBackend;
///
/// let backend: &dyn IoBackend = &MemoryBackend::new(1 << 20)?;
/// assert_eq!((backend.engine(), backend.geometry().capacity), ("memory", 1 << 20));
/// # Ok::<(), raw_block_core::Error>(())
/// ```
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
    /// it, does not use it, and always returns the same one.
    fn flush_state(&self) -> &FlushState;

    /// Opens a queue that holds up to `depth` ops in flight; the backend may grant another depth.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] when the system has no more memory, threads or descriptors.
    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error>;

    /// As [`open_queue`](Self::open_queue), for the calling thread alone. A backend that gains
    /// nothing from it returns a queue that any thread may use; see [`IoQueue::is_local`].
    ///
    /// # Errors
    /// As [`open_queue`](Self::open_queue).
    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.open_queue(depth)
    }

    /// Registers an arena, so that transfers from and to it need not map its pages.
    ///
    /// The backend keeps the arena alive until it is [unregistered](Self::unregister) or the
    /// backend is dropped. Purely an optimisation: transfers from unregistered memory work just as
    /// well.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the backend has no registered memory;
    /// [`ErrorKind::OutOfResources`] when the kernel refuses to pin that much memory;
    /// [`ErrorKind::Forked`] in a child that was forked after the device was opened.
    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        let _ = arena;
        Err(Error::new(
            ErrorKind::Unsupported,
            "register memory",
            "this backend has no registered memory; transfers work without it",
        )
        .on(self.name()))
    }

    /// Ends one registration of an arena, if there is one. Transfers that begin later do not use
    /// it; those in flight still may.
    ///
    /// Dropping the backend ends all registrations, also for queues that outlive it.
    fn unregister(&self, arena: &Arc<Arena>) {
        let _ = arena;
    }
}

/// A submission context with a single owner: a ring, a part of a thread pool, a simulation.
///
/// # Examples
/// `examples/own_backend.rs` implements a queue in safe code. The dispatcher, the only user of
/// queues, calls one like this:
/// ```
/// # use std::collections::VecDeque;
/// use raw_block_core::backend::{IoQueue, Op};
///
/// fn run(queue: &mut dyn IoQueue, mut ops: VecDeque<Op>) -> usize {
///     let mut done = Vec::new();
///     queue.submit(&mut ops);
///     queue.reap(queue.in_flight(), None, &mut done);
///     done.len()
/// }
/// ```
///
/// # Contract
/// The conformance suite tests these for every backend.
///
/// 1. A completion is all or nothing. Short transfers, `EINTR`, `EAGAIN` and the limits of the
///    device are handled below this trait; a transfer that makes no progress fails.
/// 2. Every op that was accepted completes exactly once. There is one way to fail: an error in the
///    completion. So neither method returns a `Result`.
/// 3. Completions come in any order, and each op has its own result.
/// 4. The memory of an op is not accessed after its completion was returned.
/// 5. Dropping a queue waits for the ops in flight. Where it cannot wait, it leaks the ops.
/// 6. An idle queue uses no CPU.
/// 7. The [class](Error::class) of an op's error says what is known about its effect.
///    [`NotStarted`](crate::ErrorClass::NotStarted): nothing has reached the device.
///    [`Failed`](crate::ErrorClass::Failed): the op has ended, and nothing of it takes effect
///    later. [`Unknown`](crate::ErrorClass::Unknown): the op was interrupted or lost, and may still
///    take effect. The dispatcher repeats transfers after errors of the first two classes. It never
///    repeats one of the third, and neither may a backend, unless the op changes nothing.
pub trait IoQueue: Send {
    /// The most ops that can be in flight; 0 once the queue is broken and should not be used again.
    fn depth(&self) -> usize;

    /// The number of ops that were accepted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// Whether only the thread that opened the queue may use it. In another thread it accepts no
    /// ops and returns no completions. Another thread may drop it, which leaks the ops in flight.
    fn is_local(&self) -> bool {
        false
    }

    /// Accepts ops from the front of `ops` up to the depth; the others stay in `ops`.
    ///
    /// Accepted ops start at the latest with the next [`start`](Self::start) or
    /// [`reap`](Self::reap): a ring submits them in the same system call that waits for them.
    fn submit(&mut self, ops: &mut VecDeque<Op>);

    /// Starts what was accepted. Neither waits nor returns completions.
    ///
    /// The dispatcher calls this before it returns to a caller that does not wait, or has other
    /// work to do first. What was started completes without the queue being used, and makes
    /// [`event_fd`](Self::event_fd) readable. Does nothing in a queue without such a descriptor
    /// whose ops are executed by the calls that reap them.
    fn start(&mut self);

    /// Starts what was accepted, then appends completions to `done` until at least `min` were
    /// appended, nothing is in flight, `deadline` has passed, or a [waker](Self::waker) was used.
    ///
    /// `reap(0, ..)` starts what was accepted and reaps what has completed, without waiting.
    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>);

    /// Returns a handle with which any thread ends a wait in [`reap`](Self::reap).
    ///
    /// When it is used, the `reap` that waits returns what has completed, which may be fewer than
    /// `min`. If none waits, the next one that would wait returns instead. Until then, further
    /// wakes change nothing. A wake neither starts nor ends an op. After the queue was dropped, it
    /// does nothing. Dropping a queue waits for its ops, whether it was woken or not.
    ///
    /// A queue has no cost for this until its first waker is taken.
    ///
    /// The default wakes nothing. That is right for a queue whose `reap` waits for no other thread
    /// and no device, because it executes the ops itself. Any other queue must implement it.
    /// Otherwise new ops wait until one of those in flight has completed.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] when the process has no descriptor left.
    fn waker(&mut self) -> Result<Waker, Error> {
        Ok(Waker::noop().clone())
    }

    /// A descriptor that is readable when reaping may make progress, if the backend has one.
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

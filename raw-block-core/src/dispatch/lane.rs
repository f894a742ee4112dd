//! A lane: a queue with the batch that runs on it.

use std::os::fd::BorrowedFd;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::batch::Batch;
use crate::Geometry;
use crate::backend::{IoBackend, IoQueue};

/// How often memory that a backend has lost track of is looked at again.
const RELEASE_POLL: Duration = Duration::from_millis(1);

/// A queue with the batch that runs on it. The batch keeps its allocations from one use to the next.
pub(super) struct Lane {
    /// Gone once it turned out to be broken.
    queue: Option<Box<dyn IoQueue>>,
    /// The only thread that may use the queue, if it is one of a single thread.
    owner: Option<ThreadId>,
    pub(super) batch: Batch,
    /// The geometry as the dispatcher saw it first: a plan that was made with one cannot be carried out
    /// with another.
    geometry: Geometry,
    /// Whether the batch points into memory that is borrowed from the caller.
    borrowing: bool,
}

/// How long [`Lane::advance`] may take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Until the batch has completed.
    Unlimited,
    /// Until the batch has completed, or a part of it that had not before.
    Part,
    /// Until the batch has completed or this moment has passed.
    Until(Instant),
    /// Reap and submit once, without waiting.
    None,
}

impl Patience {
    fn is_exhausted(self, batch: &Batch) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Part => !batch.finished.is_empty(),
            Self::Until(deadline) => Instant::now() >= deadline,
            Self::None => true,
        }
    }
}

impl Lane {
    /// A lane of this thread, or where `queue` is not local, of all threads.
    pub(super) fn new(queue: Box<dyn IoQueue>, geometry: Geometry) -> Self {
        let owner = queue.is_local().then(|| thread::current().id());
        let queue = Some(queue);
        Self { queue, owner, batch: Batch::default(), geometry, borrowing: false }
    }

    /// The only thread that may use this lane, if it is one of a single thread.
    pub(super) fn owner(&self) -> Option<ThreadId> {
        self.owner
    }

    /// Runs a batch over borrowed memory. When this returns or unwinds, no op is left that could touch
    /// the memory.
    ///
    /// Whenever `patience` ends, and at the end, `each` is called with the number of every transfer that succeeded
    /// since: no op has its memory any more.
    pub(super) fn run_borrowed(
        &mut self,
        backend: &dyn IoBackend,
        patience: Patience,
        mut each: impl FnMut(usize),
    ) {
        self.borrowing = true;
        self.begin(backend);
        loop {
            let over = self.advance(backend, patience);
            self.batch.finished.drain(..).for_each(|index| each(index as usize));
            if over {
                break;
            }
        }
        self.borrowing = false;
    }

    /// Runs a batch over borrowed memory, and calls `work` while the device works on what the queue
    /// accepted. When this returns or unwinds, no op is left that could touch the memory.
    pub(super) fn run_borrowed_while<T>(
        &mut self,
        backend: &dyn IoBackend,
        work: impl FnOnce() -> T,
    ) -> T {
        self.borrowing = true;
        self.begin(backend);
        // If the queue broke, the first reap gives the ops that it failed.
        self.top_up();
        let worked = work();
        self.advance(backend, Patience::Unlimited);
        self.borrowing = false;
        worked
    }

    /// Makes the ops of the first wave.
    pub(super) fn begin(&mut self, backend: &dyn IoBackend) {
        self.batch.arrange();
        self.batch.next_wave(&self.geometry, backend.stats());
    }

    /// Lets the batch advance. Returns whether it has completed.
    ///
    /// When it has not, ops are in flight that were started, and the queue is full or no op waits for it. So the
    /// device has work, and the queue's event descriptor wakes the caller.
    pub(super) fn advance(&mut self, backend: &dyn IoBackend, patience: Patience) -> bool {
        loop {
            if !self.batch.is_settled() {
                self.pump(backend, patience);
            } else if !self.next_wave(backend) {
                return true;
            }
            let leaves = !self.batch.is_settled() && patience.is_exhausted(&self.batch);
            if leaves && self.top_up() {
                return false;
            }
        }
    }

    /// Makes the ops of the next wave. Returns `false` when the batch has completed.
    fn next_wave(&mut self, backend: &dyn IoBackend) -> bool {
        if !self.batch.waiting.is_empty() {
            tracing::error!("a queue left ops of another batch among those of this one");
            self.batch.waiting.clear();
            self.queue = None;
        }
        self.wait_until_released();
        self.batch.next_wave(&self.geometry, backend.stats())
    }

    /// Fills the queue and starts what it accepted. Returns `false` when nothing would wake the caller: the
    /// queue broke, and the next reap gives the ops that it failed.
    fn top_up(&mut self) -> bool {
        // Without a queue there is no event descriptor, and the next call gives up what is left.
        let Self { queue: Some(queue), batch, .. } = self else { return true };
        if !batch.waiting.is_empty() {
            let waiting = batch.waiting.len();
            queue.submit(&mut batch.waiting);
            batch.note_accepted();
            queue.start();
            if queue.depth() == 0 && batch.waiting.len() < waiting {
                return false;
            }
        }
        queue.in_flight() > 0
    }

    /// Hands ops to the queue and takes completions from it, once.
    fn pump(&mut self, backend: &dyn IoBackend, patience: Patience) {
        let Self { queue: Some(queue), batch, .. } = self else {
            return self.batch.give_up(backend.engine());
        };
        queue.submit(&mut batch.waiting);
        batch.note_accepted();
        let in_flight = queue.in_flight();
        let min = match patience {
            Patience::None => 0,
            // More ops wait: refill the queue well before it runs dry, but not one by one.
            _ if !batch.waiting.is_empty() => (queue.depth() / 4).max(1),
            Patience::Part => batch.ops_of_a_part().min(in_flight),
            _ => in_flight,
        };
        let deadline = match patience {
            Patience::Until(deadline) => Some(deadline),
            Patience::Unlimited | Patience::Part | Patience::None => None,
        };
        queue.reap(min, deadline, &mut batch.done);
        batch.settle(&self.geometry, backend.stats());
        // Nothing is under way, or what the queue says is under way is gone, and yet something is
        // missing: the queue does not keep its contract.
        let lost = in_flight == 0 || queue.in_flight() > 0 && batch.has_only_waiting_ops();
        if lost && !batch.is_settled() {
            tracing::error!(engine = backend.engine(), device = backend.name(), "a queue lost ops");
            self.queue = None;
        }
    }

    /// Returns once no op is left that could touch the memory of the batch.
    ///
    /// With a backend that keeps its contract, that is at once.
    fn wait_until_released(&mut self) {
        let mut told = false;
        while !self.batch.is_released() {
            if !std::mem::replace(&mut told, true) {
                tracing::error!(
                    "a backend keeps ops that it completed or dropped; waiting for them"
                );
            }
            thread::sleep(RELEASE_POLL);
        }
    }

    /// Whether the lane can be lent again.
    pub(super) fn is_sound(&mut self) -> bool {
        let working = self.queue.as_ref().is_some_and(|queue| queue.depth() > 0);
        working && self.batch.is_settled() && self.batch.is_released()
    }

    /// See [`IoQueue::event_fd`].
    pub(super) fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref()?.event_fd()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A queue drains when it is dropped.
        self.queue = None;
        self.batch.waiting.clear();
        self.batch.done.clear();
        if self.borrowing {
            self.wait_until_released();
        }
    }
}

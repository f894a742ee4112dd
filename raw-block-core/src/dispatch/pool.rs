//! The pool that lends lanes to threads.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, MutexGuard};
use std::thread;

use super::lane::Lane;
use super::lanes::{Lanes, State};
use crate::backend::IoBackend;
use crate::{Error, ErrorKind, Geometry};

/// Lends each lane to one caller at a time, and opens queues as callers need them.
///
/// A call runs on one thread from its beginning to its end, so its lane may have a queue of that
/// thread alone, which costs less where the backend has such queues. When there are more threads
/// than lanes can be open, lanes of one thread are replaced by lanes that any thread may use. A
/// thread that ends closes its own lanes.
pub(super) struct LanePool {
    pub(super) backend: Arc<dyn IoBackend>,
    /// As it was when the dispatcher was made.
    pub(super) geometry: Geometry,
    depth: usize,
    max_lanes: usize,
    pub(super) lanes: Arc<Lanes>,
}

thread_local! {
    /// How many lanes the calls of this thread have.
    static BORROWED: Cell<usize> = const { Cell::new(0) };
}

/// The kind of a queue that is opened.
#[derive(Clone, Copy)]
enum Kind {
    /// For the calling thread, if the backend has such queues.
    Local,
    /// For any thread.
    Shared,
}

/// A lane that returns to its pool when this is dropped.
pub(super) struct LaneGuard {
    /// `None` only before it was opened and while being dropped.
    lane: Option<Lane>,
    pub(super) pool: Arc<LanePool>,
}

impl LanePool {
    pub(super) fn new(
        backend: Arc<dyn IoBackend>,
        geometry: Geometry,
        depth: usize,
        max_lanes: usize,
    ) -> Self {
        Self { backend, geometry, depth, max_lanes, lanes: Arc::new(Lanes::new()) }
    }

    /// Lends a lane; waits while all are lent.
    ///
    /// A thread that has a lane already may be what the others wait for, so it does not wait: it
    /// opens one beyond the limit, which is closed when it is given back.
    pub(super) fn lend(self: &Arc<Self>) -> Result<LaneGuard, Error> {
        self.check_process()?;
        let this_thread = thread::current().id();
        let mut failed = None;
        let mut state = self.lanes.state();
        let nested = Self::lends_to_this_thread();
        loop {
            let own = state.take(|lane| lane.owner() == Some(this_thread));
            if let Some(lane) = own.or_else(|| state.take_shared()) {
                drop(state);
                return Ok(self.guard(lane));
            }
            let may_open = state.open < self.max_lanes || nested && state.idle.is_empty();
            let opened = if may_open && failed.is_none() {
                self.open(state, Kind::Local, None)
            } else if let Some(lane) = state.take_any() {
                self.open(state, Kind::Shared, Some(lane))
            } else if let Some(error) = failed.take_if(|_| nested) {
                return Err(error);
            } else {
                state = self.lanes.wait(state);
                failed = None;
                continue;
            };
            match opened {
                Ok(guard) => return Ok(guard),
                Err(error) => {
                    // No further queue can be opened: take an existing lane or wait for one.
                    state = self.lanes.state();
                    if state.open == 0 {
                        return Err(error);
                    }
                    failed = Some(error);
                }
            }
        }
    }

    /// Whether the calling thread has a lane, of this pool or another.
    pub(super) fn lends_to_this_thread() -> bool {
        BORROWED.get() > 0
    }

    /// Opens a queue, instead of an idle lane that was open, and lends it. Counts the lane first,
    /// so that no more than allowed are opened; if the backend fails or panics, dropping the guard
    /// corrects the count.
    fn open(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        kind: Kind,
        instead_of: Option<Lane>,
    ) -> Result<LaneGuard, Error> {
        state.open += usize::from(instead_of.is_none());
        drop(state);
        let mut guard = self.guard_without_lane();
        // First, so that what it holds can be had again.
        drop(instead_of);
        let queue = match kind {
            // A queue of a thread that could not close it at its end would stay open.
            Kind::Local if self.lanes.close_with_this_thread() => {
                self.backend.open_local_queue(self.depth)
            }
            _ => self.backend.open_queue(self.depth),
        };
        let queue = queue.map_err(|error| error.on(self.backend.name()))?;
        guard.lane = Some(Lane::new(queue, self.geometry));
        Ok(guard)
    }

    fn guard_without_lane(self: &Arc<Self>) -> LaneGuard {
        BORROWED.set(BORROWED.get() + 1);
        LaneGuard { lane: None, pool: Arc::clone(self) }
    }

    fn guard(self: &Arc<Self>, lane: Lane) -> LaneGuard {
        let mut guard = self.guard_without_lane();
        guard.lane = Some(lane);
        guard
    }

    /// Whether this is the process that opened the device.
    pub(super) fn check_process(&self) -> Result<(), Error> {
        if self.lanes.are_of_this_process() {
            return Ok(());
        }
        let rule =
            "this process is a forked child of the one that opened the device: open it here again";
        Err(Error::new(ErrorKind::Forked, "take a queue", rule).on(self.backend.name()))
    }
}

impl Drop for LanePool {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

impl Deref for LaneGuard {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        self.lane.as_ref().unwrap_or_else(|| unreachable!("a lane comes first and leaves last"))
    }
}

impl DerefMut for LaneGuard {
    fn deref_mut(&mut self) -> &mut Lane {
        self.lane.as_mut().unwrap_or_else(|| unreachable!("a lane comes first and leaves last"))
    }
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        BORROWED.set(BORROWED.get().saturating_sub(1));
        let opened = self.lane.is_some();
        let sound = self.lane.as_mut().is_some_and(Lane::is_sound);
        let kept = if sound { self.lane.take() } else { None };
        // First the count, which must be right even if the backend panics as its queue is dropped.
        let closed = self.pool.lanes.take_back(kept, opened, self.pool.max_lanes);
        drop(closed);
        self.lane = None;
    }
}

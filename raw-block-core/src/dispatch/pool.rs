//! The pool that lends lanes to threads.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::lane::Lane;
use crate::{Error, ErrorKind, Geometry, IoBackend};

/// Lends each lane to one caller at a time, and opens queues as callers need them.
///
/// A blocking call runs on one thread from its beginning to its end, so its lane may have a queue of that
/// thread alone, which costs less where the backend has such queues. Tickets move between threads, and take
/// lanes that any thread may use. When there are more threads than lanes can be open, lanes of one thread
/// give way to such lanes.
pub(super) struct LanePool {
    pub(super) backend: Arc<dyn IoBackend>,
    /// As it was when the dispatcher was made.
    pub(super) geometry: Geometry,
    depth: usize,
    max_lanes: usize,
    /// The process that opened the device: a forked child shares neither its rings nor its threads.
    process: u32,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Lane>,
    /// Lanes that exist, idle or lent.
    open: usize,
    /// Lanes lent to tickets.
    ticketed: usize,
}

impl State {
    /// An idle lane that any thread may use.
    fn take_shared(&mut self) -> Option<Lane> {
        self.take(|lane| lane.owner().is_none())
    }

    /// An idle lane, whoever may use it.
    fn take_any(&mut self) -> Option<Lane> {
        self.take(|_| true)
    }

    fn take(&mut self, wanted: impl Fn(&Lane) -> bool) -> Option<Lane> {
        let position = self.idle.iter().rposition(wanted)?;
        Some(self.idle.swap_remove(position))
    }
}

/// For whom a lane is opened.
#[derive(Clone, Copy)]
enum User {
    ThisThread,
    AnyThread,
    Ticket,
}

/// A lane that goes back to its pool when this is dropped.
pub(super) struct Lent {
    /// `None` only before it was opened and while being dropped.
    lane: Option<Lane>,
    pub(super) pool: Arc<LanePool>,
    ticketed: bool,
}

impl LanePool {
    pub(super) fn new(
        backend: Arc<dyn IoBackend>,
        geometry: Geometry,
        depth: usize,
        max_lanes: usize,
    ) -> Self {
        Self {
            backend,
            geometry,
            depth,
            max_lanes,
            process: std::process::id(),
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Lends a lane for a blocking call; waits while all are lent.
    pub(super) fn lend(self: &Arc<Self>) -> Result<Lent, Error> {
        self.check_process()?;
        let this_thread = Some(thread::current().id());
        let mut may_open = true;
        let mut state = self.state();
        loop {
            let own = state.take(|lane| lane.owner() == this_thread);
            if let Some(lane) = own.or_else(|| state.take_shared()) {
                drop(state);
                return Ok(self.lent(lane, false));
            }
            let opened = if may_open && state.open < self.max_lanes {
                self.open(state, User::ThisThread, None)
            } else if let Some(lane) = state.take_any() {
                self.open(state, User::AnyThread, Some(lane))
            } else {
                state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
                may_open = true;
                continue;
            };
            match opened {
                Ok(lent) => return Ok(lent),
                Err(error) => {
                    // No further queue can be had: take one of those that there are, or wait for it, but
                    // not for tickets, which may be this caller's own.
                    may_open = false;
                    state = self.state();
                    if state.open == state.ticketed {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Lends a lane to a ticket, which may keep it for long: never waits, and never takes the last one.
    pub(super) fn lend_to_ticket(self: &Arc<Self>) -> Result<Lent, Error> {
        self.check_process()?;
        let busy =
            |rule| Err(Error::new(ErrorKind::Busy, "take a queue", rule).on(self.backend.device()));
        let mut state = self.state();
        if state.ticketed + 1 >= self.max_lanes {
            return busy(format!(
                "{} tickets are out, and one queue is kept for blocking calls: wait for a ticket, or \
                 allow more queues",
                state.ticketed
            ));
        }
        if let Some(lane) = state.take_shared() {
            state.ticketed += 1;
            drop(state);
            return Ok(self.lent(lane, true));
        }
        if state.open < self.max_lanes {
            return self.open(state, User::Ticket, None);
        }
        if let Some(lane) = state.take_any() {
            return self.open(state, User::Ticket, Some(lane));
        }
        busy("every queue is in use: try again, or allow more queues".to_owned())
    }

    /// Opens a queue, instead of an idle lane that was open, and lends it. The lane is counted before, so that
    /// no more are opened than allowed; whatever happens to the backend meanwhile, dropping what is lent
    /// corrects the count.
    fn open(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        user: User,
        instead_of: Option<Lane>,
    ) -> Result<Lent, Error> {
        let ticketed = matches!(user, User::Ticket);
        state.open += usize::from(instead_of.is_none());
        state.ticketed += usize::from(ticketed);
        drop(state);
        let mut lent = Lent { lane: None, pool: Arc::clone(self), ticketed };
        lent.count_ticket(1);
        // First, so that what it holds can be had again.
        drop(instead_of);
        let queue = match user {
            User::ThisThread => self.backend.open_local_queue(self.depth),
            User::AnyThread | User::Ticket => self.backend.open_queue(self.depth),
        };
        let queue = queue.map_err(|error| error.on(self.backend.device()))?;
        lent.lane = Some(Lane::new(queue, self.geometry));
        Ok(lent)
    }

    fn lent(self: &Arc<Self>, lane: Lane, ticketed: bool) -> Lent {
        let lent = Lent { lane: Some(lane), pool: Arc::clone(self), ticketed };
        lent.count_ticket(1);
        lent
    }

    fn take_back(&self, lane: Option<Lane>, ticketed: bool) {
        let mut state = self.state();
        state.ticketed -= usize::from(ticketed);
        match lane {
            Some(lane) => state.idle.push(lane),
            None => state.open -= 1,
        }
        drop(state);
        self.returned.notify_one();
    }

    /// Corrects the count after a queue could not be opened. Those who wait cannot open one either, and
    /// need to know only when nothing is left to wait for.
    fn count_unopened(&self, ticketed: bool) {
        let mut state = self.state();
        state.ticketed -= usize::from(ticketed);
        state.open -= 1;
        if state.open == state.ticketed {
            self.returned.notify_all();
        }
    }

    /// Whether this is the process that opened the device.
    pub(super) fn check_process(&self) -> Result<(), Error> {
        if std::process::id() == self.process {
            return Ok(());
        }
        let rule =
            "this process is a forked child of the one that opened the device: open it here again";
        Err(Error::new(ErrorKind::Forked, "take a queue", rule).on(self.backend.device()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    fn count_ticket(&self, change: i64) {
        if self.ticketed {
            self.pool.backend.stats().update(|stats| {
                stats.tickets_out = stats.tickets_out.saturating_add_signed(change);
            });
        }
    }
}

impl Deref for Lent {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        self.lane.as_ref().unwrap_or_else(|| unreachable!("a lane comes first and leaves last"))
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Lane {
        self.lane.as_mut().unwrap_or_else(|| unreachable!("a lane comes first and leaves last"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.count_ticket(-1);
        let Some(mut lane) = self.lane.take() else {
            return self.pool.count_unopened(self.ticketed);
        };
        let sound = lane.is_sound();
        let (kept, broken) = if sound { (Some(lane), None) } else { (None, Some(lane)) };
        // First the count, which must be right even if the backend panics as its queue is dropped.
        self.pool.take_back(kept, self.ticketed);
        drop(broken);
    }
}

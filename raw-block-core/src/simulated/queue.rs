//! A queue of a simulated device.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::fault::{self, Hit};
use super::scheduler;
use super::shared::Device;
use super::state::State;
use crate::Error;
use crate::backend::{Completion, IoQueue, Op, OpKind};

pub(super) struct Queue {
    device: Arc<Device>,
    depth: usize,
    /// In the order in which they were accepted.
    in_flight: Vec<InFlight>,
    wake: Arc<WakeRequest>,
}

/// A request to end a wait of a queue.
struct WakeRequest {
    device: Arc<Device>,
    /// Changes under the lock of the device, so that a queue cannot miss it between its check and
    /// its wait.
    requested: AtomicBool,
}

impl Wake for WakeRequest {
    fn wake(self: Arc<Self>) {
        scheduler::yield_now();
        let state = self.device.state();
        self.requested.store(true, Ordering::Relaxed);
        drop(state);
        self.device.released.notify_all();
    }
}

struct InFlight {
    op: Op,
    /// Its number on the device.
    number: u64,
    hits: Vec<Hit>,
    /// How many more reaps pass it over.
    delay: u32,
}

impl Queue {
    pub(super) fn new(device: Arc<Device>, depth: usize) -> Self {
        let requested = AtomicBool::new(false);
        let wake = Arc::new(WakeRequest { device: Arc::clone(&device), requested });
        Self { device, depth, in_flight: Vec::new(), wake }
    }

    /// Returns at least `least` completions if that many ops are not held, and by chance more.
    fn hand_out(&mut self, state: &mut State, least: usize, done: &mut Vec<Completion>) -> usize {
        let (mut ready, mut on_time) = (0, 0);
        for entry in self.in_flight.iter().filter(|entry| !state.held.contains(&entry.number)) {
            ready += 1;
            on_time += usize::from(entry.delay == 0);
        }
        let least = least.min(ready);
        let most = on_time.max(least);
        let count = if state.over.is_some() {
            // What is left fails, all of it.
            self.in_flight.len()
        } else if state.shuffle {
            state.rng.usize(least..=most)
        } else {
            most
        };
        for _ in 0..count {
            let chosen = self.choose(state);
            let entry = self.in_flight.remove(chosen);
            done.push(finish(state, entry));
        }
        count
    }

    /// The op that completes next: one of those with the least delay that is not held, if there is
    /// one.
    fn choose(&self, state: &mut State) -> usize {
        if state.over.is_some() {
            return 0;
        }
        let rank = |entry: &InFlight| (state.held.contains(&entry.number), entry.delay);
        let Some(best) = self.in_flight.iter().map(rank).min() else { return 0 };
        let best = self.in_flight.iter().enumerate().filter(|(_, entry)| rank(entry) == best);
        let best: Vec<_> = best.map(|(position, _)| position).collect();
        best[if state.shuffle { state.rng.usize(..best.len()) } else { 0 }]
    }
}

/// Completes an op, with its effect if that is still to come.
fn finish(state: &mut State, entry: InFlight) -> Completion {
    let InFlight { mut op, number, hits, .. } = entry;
    let prevented = state.over.is_some() || fault::prevented(&hits, op.kind());
    if op.kind() == OpKind::Read && !prevented {
        let bytes = state.read(op.offset(), op.len(), &hits);
        let mut left = &bytes[..];
        for segment in op.destination() {
            let (part, rest) = left.split_at(segment.len());
            segment.copy_from_slice(part);
            left = rest;
        }
    }
    if !state.complete(number) {
        return op.fail(io::Error::from_raw_os_error(libc::EIO));
    }
    match fault::error(&hits, &op) {
        Some(error) => op.fail_with(error),
        None => op.complete(),
    }
}

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let accepted = ops.len().min(self.depth - self.in_flight.len());
        if accepted == 0 {
            return;
        }
        let mut state = self.device.state();
        for op in ops.drain(..accepted) {
            let (number, hits) = state.accept(&op);
            let delay = fault::delay(&hits);
            self.in_flight.push(InFlight { op, number, hits, delay });
        }
        state.stir();
        drop(state);
        self.device.stats.update(|stats| stats.submissions += 1);
    }

    /// Accepted ops take effect at any time: other threads may run, and some ops take effect now.
    fn start(&mut self) {
        scheduler::yield_now();
        let mut state = self.device.state();
        state.stir();
        let over = state.over.is_some();
        drop(state);
        if over {
            // Queues that wait for what is held have to know.
            self.device.released.notify_all();
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        scheduler::yield_now();
        let device = Arc::clone(&self.device);
        let mut state = device.state();
        let mut missing = min.min(self.in_flight.len());
        loop {
            state.stir();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let overdue = left == Some(Duration::ZERO);
            let given = self.hand_out(&mut state, if overdue { 0 } else { missing }, done);
            missing = missing.saturating_sub(given);
            let enough = missing == 0 || overdue;
            if enough || self.wake.requested.swap(false, Ordering::Relaxed) {
                break;
            }
            // What is left is held. If this very loop ended the device, it is not any more.
            if state.over.is_none() && scheduler::is_running() {
                drop(state);
                scheduler::wait();
                state = device.state();
            } else if state.over.is_none() {
                state = match left {
                    None => device.released.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => {
                        let waited = device.released.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        }
        let over = state.over.is_some();
        drop(state);
        for entry in &mut self.in_flight {
            entry.delay = entry.delay.saturating_sub(1);
        }
        if over {
            // Queues that wait for what is held have to know.
            device.released.notify_all();
        }
    }

    fn waker(&mut self) -> Result<Waker, Error> {
        Ok(Waker::from(Arc::clone(&self.wake)))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.device.state();
        for entry in self.in_flight.drain(..) {
            state.complete(entry.number);
        }
        drop(state);
        self.device.released.notify_all();
    }
}

//! The threads of a backend, and how they are woken.
//!
//! # Wake-up protocol
//! The pool has a list of the queues that have ops to start (`ready`).
//!
//! **Invariant:** while `ready` is not empty, at least one thread that will look at it is awake,
//! starting or notified. So no op waits while all threads sleep.
//!
//! - [`offer`](ThreadPool::offer) adds a queue to `ready` and wakes one thread: a sleeping one if
//!   there is one, else a new one while the limit allows. If all threads are awake, it wakes none:
//!   each of them looks at `ready` again after its current op.
//! - A thread that was woken or started takes an op, and if `ready` is still not empty, it wakes
//!   one more thread before it executes the op. So the threads wake each other in a chain, and the
//!   caller pays for one wake-up only. A thread that returns from an op wakes no other: if ops
//!   complete faster than threads wake up, the awake threads do the work.
//! - A thread sleeps only after it found `ready` empty, under the same lock.
//! - Wake-ups are counted, not addressed. The waker moves one thread from `idle` to `notified`, and
//!   whichever thread leaves its sleep first takes one from `notified`. So a spurious wake-up
//!   changes nothing, and no wake-up is lost.
//! - If the system refuses to start a thread, the limit drops to the number of existing threads. At
//!   0 the pool clears `ready`, and the owners of the queues execute all ops themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use raw_block_core::backend::{DeviceFile, Op};
use raw_block_core::process;

use crate::shared_queue::SharedQueue;
use crate::transfer::execute;

/// The name of the threads, at the longest length that the kernel stores.
const THREAD_NAME: &str = "raw-block-posix";

/// The threads of a backend, and the device that they work on. Dropping it ends the threads.
#[derive(Debug)]
pub(crate) struct ThreadPool {
    shared: Arc<PoolShared>,
    /// The process that has the threads: a forked child does not.
    process: u32,
}

/// The part of the pool that the threads share.
#[derive(Debug)]
struct PoolShared {
    device: DeviceFile,
    state: Mutex<PoolState>,
    /// Notified once for each thread that is woken.
    woken: Condvar,
}

#[derive(Debug)]
struct PoolState {
    /// The queues that may have ops to start, each once. Threads take turns from the front.
    ready: VecDeque<Arc<SharedQueue>>,
    /// The number of threads that sleep and are not notified.
    idle: usize,
    /// The number of threads that are notified and not yet awake.
    notified: usize,
    /// The number of threads that were started.
    spawned: usize,
    /// The most threads that may be started.
    limit: usize,
    threads: Vec<JoinHandle<()>>,
    closing: bool,
}

/// How to get one more thread to work.
#[derive(Clone, Copy, Debug)]
enum WakeAction {
    None,
    Notify,
    Spawn,
}

impl PoolState {
    /// Takes an op from the first queue in `ready`, and moves the queue to the end.
    fn next_op(&mut self) -> Option<(Arc<SharedQueue>, Op)> {
        while let Some(queue) = self.ready.pop_front() {
            let (op, more) = queue.take_for_worker();
            if more {
                self.ready.push_back(Arc::clone(&queue));
            }
            // Without an op, the owner of the queue took it first.
            if let Some(op) = op {
                return Some((queue, op));
            }
        }
        None
    }

    /// Decides how to get one more thread, if there is work for it.
    fn wake_one(&mut self) -> WakeAction {
        if self.ready.is_empty() {
            WakeAction::None
        } else if self.idle > 0 {
            self.idle -= 1;
            self.notified += 1;
            WakeAction::Notify
        } else if self.spawned < self.limit {
            self.spawned += 1;
            WakeAction::Spawn
        } else {
            WakeAction::None
        }
    }
}

impl ThreadPool {
    /// A pool of at most `limit` threads. Starts none.
    pub(crate) fn new(device: DeviceFile, limit: usize) -> Self {
        let state = PoolState {
            ready: VecDeque::new(),
            idle: 0,
            notified: 0,
            spawned: 0,
            limit,
            threads: Vec::new(),
            closing: false,
        };
        let shared = PoolShared { device, state: Mutex::new(state), woken: Condvar::new() };
        Self { shared: Arc::new(shared), process: process::id() }
    }

    pub(crate) fn device(&self) -> &DeviceFile {
        &self.shared.device
    }

    /// Offers the ops of a queue beyond the next `own` ones to the threads. Returns whether there
    /// are threads.
    pub(crate) fn offer(&self, queue: &Arc<SharedQueue>, own: usize) -> bool {
        let mut state = self.shared.state();
        if state.limit == 0 {
            return false;
        }
        if queue.mark_listed(own) {
            state.ready.push_back(Arc::clone(queue));
        }
        let action = state.wake_one();
        drop(state);
        self.shared.perform(action) || self.shared.state().limit > 0
    }

    /// Whether this is a forked child of the process that has the threads.
    pub(crate) fn is_forked_child(&self) -> bool {
        process::id() != self.process
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if self.is_forked_child() {
            return;
        }
        let mut state = self.shared.state();
        state.closing = true;
        // No thread is started from now on: only queues start threads, and they have been dropped,
        // and threads that have an op to execute.
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.shared.woken.notify_all();
        for thread in threads {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl PoolShared {
    /// The main function of a thread.
    fn run(self: &Arc<Self>) {
        let mut state = self.state();
        while !state.closing {
            let mut just_woken = true;
            while let Some((queue, op)) = state.next_op() {
                let action = if just_woken { state.wake_one() } else { WakeAction::None };
                just_woken = false;
                drop(state);
                self.perform(action);
                let (completion, counts) = execute(&self.device, op);
                queue.complete(completion, counts);
                drop(queue);
                state = self.state();
            }
            if !state.closing {
                state = self.sleep(state);
            }
        }
    }

    /// Sleeps until a thread is woken, or the backend is closed.
    fn sleep<'a>(&self, mut state: MutexGuard<'a, PoolState>) -> MutexGuard<'a, PoolState> {
        state.idle += 1;
        let mut state = self
            .woken
            .wait_while(state, |state| state.notified == 0 && !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
        state.notified = state.notified.saturating_sub(1);
        state
    }

    /// Performs a wake-up. Returns `false` if a thread could not be started.
    fn perform(self: &Arc<Self>, action: WakeAction) -> bool {
        match action {
            WakeAction::None => true,
            WakeAction::Notify => {
                self.woken.notify_one();
                true
            }
            WakeAction::Spawn => self.spawn(),
        }
    }

    /// Starts a thread, which `spawned` already counts.
    fn spawn(self: &Arc<Self>) -> bool {
        let shared = Arc::clone(self);
        match thread::Builder::new().name(THREAD_NAME.into()).spawn(move || shared.run()) {
            Ok(handle) => {
                self.state().threads.push(handle);
                true
            }
            Err(error) => {
                let mut state = self.state();
                state.spawned -= 1;
                state.limit = state.spawned;
                let threads = state.spawned + 1;
                if state.spawned == 0 {
                    // The owners of the queues execute all ops.
                    state.ready.clear();
                }
                drop(state);
                tracing::warn!(
                    %error,
                    device = self.device.path(),
                    threads,
                    "cannot start a thread: fewer transfers run in parallel until the device is reopened"
                );
                false
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

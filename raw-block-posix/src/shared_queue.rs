//! The ops of one queue, shared by its owner and the threads of the pool.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Instant;

use raw_block_core::backend::{Completion, Op};

use crate::transfer::CallCounts;

/// The ops of one queue. The owner of the queue and the threads of the pool take ops from it.
#[derive(Debug)]
pub(crate) struct SharedQueue {
    state: Mutex<QueueState>,
    /// Notified when as many ops have completed as the owner waits for, and when it is woken.
    enough: Condvar,
}

#[derive(Debug)]
struct QueueState {
    /// Ops that no thread has started.
    pending: VecDeque<Op>,
    /// Completed ops that the owner has not taken.
    done: Vec<Completion>,
    /// The system calls of ops since the owner last took them.
    counts: CallCounts,
    /// The number of completed ops at which the owner is woken.
    wanted: usize,
    /// Whether the next wait of the owner returns at once.
    woken: bool,
    /// Whether the queue is in the list of the pool.
    is_listed: bool,
}

/// The value of `wanted` while the owner does not wait.
const NEVER: usize = usize::MAX;

impl SharedQueue {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(QueueState {
                pending: VecDeque::new(),
                done: Vec::new(),
                counts: CallCounts::default(),
                wanted: NEVER,
                woken: false,
                is_listed: false,
            }),
            enough: Condvar::new(),
        }
    }

    pub(crate) fn accept(&self, ops: Drain<'_, Op>) {
        self.state().pending.extend(ops);
    }

    /// Marks the queue as listed if it has ops beyond the next `own` ones. Returns whether the
    /// caller has to add it to the list.
    pub(crate) fn mark_listed(&self, own: usize) -> bool {
        let mut state = self.state();
        state.pending.len() > own && !std::mem::replace(&mut state.is_listed, true)
    }

    /// Takes an op for a thread of the pool, and returns whether there are more. Without more, the
    /// queue counts as not listed.
    pub(crate) fn take_for_worker(&self) -> (Option<Op>, bool) {
        let mut state = self.state();
        let op = state.pending.pop_front();
        state.is_listed = !state.pending.is_empty();
        (op, state.is_listed)
    }

    /// Stores the completion of an op that a thread of the pool executed.
    pub(crate) fn complete(&self, completion: Completion, counts: CallCounts) {
        let mut state = self.state();
        state.done.push(completion);
        state.counts.add(counts);
        if state.done.len() >= state.wanted {
            state.wanted = NEVER;
            drop(state);
            self.enough.notify_one();
        }
    }

    /// Moves completed ops to `done`. Then takes an op for the owner, unless `done` has reached
    /// `goal`.
    pub(crate) fn take_for_owner(&self, done: &mut Vec<Completion>, goal: usize) -> Option<Op> {
        let mut state = self.state();
        done.append(&mut state.done);
        if done.len() >= goal { None } else { state.pending.pop_front() }
    }

    /// Takes a wake, if there is one.
    pub(crate) fn take_wake(&self) -> bool {
        std::mem::take(&mut self.state().woken)
    }

    /// Moves completed ops to `done` until `done` has reached `goal`, `deadline` has passed, or the
    /// owner is woken. Returns the system calls that the pool has made for this queue since the
    /// last call.
    pub(crate) fn wait(
        &self,
        done: &mut Vec<Completion>,
        goal: usize,
        deadline: Option<Instant>,
    ) -> CallCounts {
        let mut state = self.state();
        loop {
            done.append(&mut state.done);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let late = left.is_some_and(|left| left.is_zero());
            if done.len() >= goal || late || std::mem::take(&mut state.woken) {
                state.wanted = NEVER;
                return std::mem::take(&mut state.counts);
            }
            state.wanted = goal - done.len();
            state = match left {
                None => self.enough.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.enough.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for SharedQueue {
    fn wake(self: Arc<Self>) {
        self.state().woken = true;
        self.enough.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::thread;

    use super::*;

    #[test]
    fn a_wake_ends_one_wait_of_the_owner() {
        let queue = Arc::new(SharedQueue::new());
        let waker = Waker::from(Arc::clone(&queue));
        let past = Some(Instant::now());
        let mut done = Vec::new();
        // Before the wait, twice; then during it.
        waker.wake_by_ref();
        waker.wake_by_ref();
        queue.wait(&mut done, 1, None);
        assert!(!queue.take_wake(), "two wakes before a wait count as one");
        thread::scope(|scope| {
            scope.spawn(|| queue.wait(&mut Vec::new(), 1, None));
            while queue.state().wanted == NEVER {
                thread::yield_now();
            }
            waker.wake_by_ref();
        });
        queue.wait(&mut done, 1, past);
        queue.wait(&mut done, 0, None);
        assert!(!queue.take_wake(), "the wait took the wake");
        waker.wake();
        queue.wait(&mut done, 0, None);
        assert!(queue.take_wake(), "a call that does not wait takes no wake");
    }
}

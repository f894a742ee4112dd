//! The ops of one queue, shared by its owner and the threads of the pool.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use raw_block_core::backend::{Completion, Op};

use crate::transfer::CallCounts;

/// The ops of one queue. The owner of the queue and the threads of the pool take ops from it.
#[derive(Debug)]
pub(crate) struct SharedQueue {
    state: Mutex<QueueState>,
    /// Notified when as many ops have completed as the owner waits for.
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

    /// Moves completed ops to `done` until `done` has reached `goal` or `deadline` has passed.
    /// Returns the system calls that the pool has made for this queue since the last call.
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
            if done.len() >= goal || left.is_some_and(|left| left.is_zero()) {
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

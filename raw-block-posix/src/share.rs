//! What a queue and the workers have in common.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use raw_block_core::backend::{Completion, Op};

use crate::transfer::Effort;

/// The ops of one queue, where its owner and the workers get at them.
#[derive(Debug)]
pub(crate) struct Share {
    state: Mutex<State>,
    /// Notified when as many ops are over as the queue's owner waits for.
    enough: Condvar,
}

#[derive(Debug)]
struct State {
    /// Accepted, but not begun.
    pending: VecDeque<Op>,
    /// Over, but not yet with the queue's owner.
    done: Vec<Completion>,
    /// What the ops took since the owner asked last.
    effort: Effort,
    /// How many ops have to be over until the owner is woken.
    wanted: usize,
    /// Whether the workers have this on their list.
    listed: bool,
}

/// The owner of the queue is not waiting.
const NEVER: usize = usize::MAX;

impl Share {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                pending: VecDeque::new(),
                done: Vec::new(),
                effort: Effort::default(),
                wanted: NEVER,
                listed: false,
            }),
            enough: Condvar::new(),
        }
    }

    pub(crate) fn accept(&self, ops: Drain<'_, Op>) {
        self.state().pending.extend(ops);
    }

    /// Whether there is work for others beyond the next `own` ops, and the workers do not know yet.
    pub(crate) fn list(&self, own: usize) -> bool {
        let mut state = self.state();
        state.pending.len() > own && !std::mem::replace(&mut state.listed, true)
    }

    /// An op for a worker, and whether there are more. Without more, the share is off the list.
    pub(crate) fn take_for_worker(&self) -> (Option<Op>, bool) {
        let mut state = self.state();
        let op = state.pending.pop_front();
        state.listed = !state.pending.is_empty();
        (op, state.listed)
    }

    /// Takes in an op that a worker carried out.
    pub(crate) fn finish(&self, completion: Completion, effort: Effort) {
        let mut state = self.state();
        state.done.push(completion);
        state.effort.add(effort);
        if state.done.len() >= state.wanted {
            state.wanted = NEVER;
            drop(state);
            self.enough.notify_one();
        }
    }

    /// Moves what is over to `done`; then an op for the queue's owner, unless `done` has reached `goal`.
    pub(crate) fn take_for_owner(&self, done: &mut Vec<Completion>, goal: usize) -> Option<Op> {
        let mut state = self.state();
        done.append(&mut state.done);
        if done.len() >= goal { None } else { state.pending.pop_front() }
    }

    /// Moves what is over to `done`, until `done` has reached `goal` or `deadline` has passed. Returns
    /// what the workers' ops took since it was asked last.
    pub(crate) fn wait(
        &self,
        done: &mut Vec<Completion>,
        goal: usize,
        deadline: Option<Instant>,
    ) -> Effort {
        let mut state = self.state();
        loop {
            done.append(&mut state.done);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if done.len() >= goal || left.is_some_and(|left| left.is_zero()) {
                state.wanted = NEVER;
                return std::mem::take(&mut state.effort);
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

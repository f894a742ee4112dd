//! A queue over the workers of a backend.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use raw_block_core::backend::{Completion, IoQueue, Op, Stats};

use crate::share::Share;
use crate::transfer::{Effort, carry_out};
use crate::workers::Workers;

/// A queue whose ops are carried out by the workers of the backend, and by its owner while it waits.
#[derive(Debug)]
pub(crate) struct PosixQueue {
    workers: Arc<Workers>,
    stats: Arc<Stats>,
    share: Arc<Share>,
    depth: usize,
    in_flight: usize,
}

impl PosixQueue {
    pub(crate) fn new(workers: Arc<Workers>, stats: Arc<Stats>, depth: usize) -> Self {
        Self { workers, stats, share: Arc::new(Share::new()), depth, in_flight: 0 }
    }
}

impl IoQueue for PosixQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let accepted = (self.depth - self.in_flight).min(ops.len());
        if accepted > 0 {
            self.share.accept(ops.drain(..accepted));
            self.in_flight += accepted;
        }
    }

    /// Calls the workers. Without any, ops are carried out by the calls that reap them.
    fn start(&mut self) {
        if self.in_flight > 0 {
            self.workers.invite(&self.share, 0);
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        if self.in_flight == 0 {
            return;
        }
        // Who has a deadline may not begin a transfer: it could take until long after.
        let works = min > 0 && deadline.is_none();
        let own = usize::from(works);
        let helped = self.in_flight <= own || self.workers.invite(&self.share, own);
        // Without workers, each call has to make progress itself.
        let min = if helped { min } else { min.max(1) };
        let before = done.len();
        let goal = before + min.min(self.in_flight);

        let mut effort = Effort::default();
        if works || !helped {
            while let Some(op) = self.share.take_for_owner(done, goal) {
                let (completion, took) = carry_out(self.workers.device(), op);
                done.push(completion);
                effort.add(took);
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break;
                }
            }
        }
        effort.add(self.share.wait(done, goal, deadline));
        self.in_flight -= done.len() - before;
        if effort != Effort::default() {
            self.stats.update(|stats| {
                stats.submissions += effort.calls;
                stats.retries += effort.repeats;
            });
        }
    }
}

impl Drop for PosixQueue {
    /// Carries out what was accepted, begun or not, and throws the results away.
    fn drop(&mut self) {
        // In a forked child nobody would ever end what was begun.
        if !self.workers.are_elsewhere() {
            self.reap(self.in_flight, None, &mut Vec::new());
        }
    }
}

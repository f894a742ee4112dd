//! A queue whose ops the threads of the pool execute.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use raw_block_core::Error;
use raw_block_core::backend::{Completion, IoQueue, Op, Stats};

use crate::shared_queue::SharedQueue;
use crate::thread_pool::ThreadPool;
use crate::transfer::{CallCounts, execute};

/// A queue. The threads of the pool execute its ops, and so does its owner while it waits.
#[derive(Debug)]
pub(crate) struct PosixQueue {
    pool: Arc<ThreadPool>,
    stats: Arc<Stats>,
    queue: Arc<SharedQueue>,
    depth: usize,
    in_flight: usize,
    /// Whether a waker was taken, so that other threads may end a wait.
    is_wakeable: bool,
}

impl PosixQueue {
    pub(crate) fn new(pool: Arc<ThreadPool>, stats: Arc<Stats>, depth: usize) -> Self {
        let queue = Arc::new(SharedQueue::new());
        Self { pool, stats, queue, depth, in_flight: 0, is_wakeable: false }
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
            self.queue.accept(ops.drain(..accepted));
            self.in_flight += accepted;
        }
    }

    /// Offers the ops to the threads of the pool. Without any, the calls that reap ops execute
    /// them.
    fn start(&mut self) {
        if self.in_flight > 0 {
            self.pool.offer(&self.queue, 0);
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        if self.in_flight == 0 {
            return;
        }
        // A caller with a deadline executes no op, because it could take far longer. Neither does
        // one that may be woken, because nothing ends a system call of an op.
        let works = min > 0 && deadline.is_none() && !self.is_wakeable;
        let own = usize::from(works);
        let has_threads = self.in_flight <= own || self.pool.offer(&self.queue, own);
        // Without threads, each call has to make progress itself.
        let min = if has_threads { min } else { min.max(1) };
        let before = done.len();
        let mut goal = before + min.min(self.in_flight);

        let mut counts = CallCounts::default();
        if works || !has_threads {
            while let Some(op) = self.queue.take_for_owner(done, goal) {
                let (completion, of_op) = execute(self.pool.device(), op);
                done.push(completion);
                counts.add(of_op);
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break;
                }
                if self.is_wakeable && done.len() < goal && self.queue.take_wake() {
                    goal = done.len();
                }
            }
        }
        counts.add(self.queue.wait(done, goal, deadline));
        self.in_flight -= done.len() - before;
        if counts != CallCounts::default() {
            self.stats.update(|stats| {
                stats.submissions += counts.calls;
                stats.retries += counts.retries;
            });
        }
    }

    fn waker(&mut self) -> Result<Waker, Error> {
        self.is_wakeable = true;
        Ok(Waker::from(Arc::clone(&self.queue)))
    }
}

impl Drop for PosixQueue {
    /// Executes all accepted ops, and discards the results.
    fn drop(&mut self) {
        // A forked child has no threads that would complete the ops that were started. A wake ends
        // a reap early.
        while self.in_flight > 0 && !self.pool.is_forked_child() {
            self.reap(self.in_flight, None, &mut Vec::new());
        }
    }
}

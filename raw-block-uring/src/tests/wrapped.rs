//! Backends that use the queues of another one in their own way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::{Dispatcher, Error, Geometry};

/// How the queues are used.
#[derive(Clone, Copy)]
pub(super) enum Usage {
    /// Ops are submitted by threads that end at once.
    SubmittedElsewhere,
    /// Completions are reaped without waiting, again and again.
    ReapedWithoutWaiting,
}

struct Wrapped(Arc<dyn IoBackend>, Usage);

/// A dispatcher over a backend that uses the queues of another one.
pub(super) fn dispatcher(backend: &Arc<dyn IoBackend>, usage: Usage) -> Dispatcher {
    Dispatcher::new(Arc::new(Wrapped(Arc::clone(backend), usage))).unwrap()
}

impl IoBackend for Wrapped {
    fn engine(&self) -> &str {
        self.0.engine()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn geometry(&self) -> &Geometry {
        self.0.geometry()
    }

    fn stats(&self) -> &Stats {
        self.0.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.0.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(Queue(self.0.open_queue(depth)?, self.1)))
    }
}

struct Queue(Box<dyn IoQueue>, Usage);

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        match self.1 {
            Usage::SubmittedElsewhere => {
                let submit = || {
                    self.0.submit(ops);
                    self.0.start();
                };
                thread::scope(|scope| scope.spawn(submit).join().unwrap());
            }
            Usage::ReapedWithoutWaiting => self.0.submit(ops),
        }
    }

    fn start(&mut self) {
        self.0.start();
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        match self.1 {
            Usage::SubmittedElsewhere => self.0.reap(min, deadline, done),
            Usage::ReapedWithoutWaiting => {
                let end = done.len() + min.min(self.0.in_flight());
                while done.len() < end {
                    self.0.reap(0, None, done);
                    thread::yield_now();
                }
            }
        }
    }
}

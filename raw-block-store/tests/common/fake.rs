//! A backend for devices that tests define.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::{Error, Geometry};

/// A device that executes each op when it is submitted.
pub(crate) trait Device: Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;

    fn geometry(&self) -> &Geometry;

    fn execute(&self, op: Op) -> Completion;
}

/// A backend for such a device.
pub(crate) fn backend<D: Device>(device: Arc<D>) -> Arc<dyn IoBackend> {
    Arc::new(Backend { device, stats: Stats::new(), flush_state: FlushState::new() })
}

struct Backend<D> {
    device: Arc<D>,
    stats: Stats,
    flush_state: FlushState,
}

impl<D: Device> IoBackend for Backend<D> {
    fn engine(&self) -> &'static str {
        "fake"
    }

    fn name(&self) -> &'static str {
        D::NAME
    }

    fn geometry(&self) -> &Geometry {
        self.device.geometry()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    fn open_queue(&self, _: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(Queue { device: Arc::clone(&self.device), done: Vec::new() }))
    }
}

struct Queue<D> {
    device: Arc<D>,
    done: Vec<Completion>,
}

impl<D: Device> IoQueue for Queue<D> {
    fn depth(&self) -> usize {
        128
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let free = self.depth() - self.done.len();
        let executed = ops.drain(..free.min(ops.len())).map(|op| self.device.execute(op));
        self.done.extend(executed);
    }

    fn start(&mut self) {}

    fn reap(&mut self, _: usize, _: Option<Instant>, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }
}

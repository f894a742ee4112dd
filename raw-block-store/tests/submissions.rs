//! When a put starts its transfers: in the call that waits for them, or before it computes
//! checksums.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::{Error, Geometry, MemoryBackend};
use raw_block_store::{FormatOptions, Put, Store};

/// A device that counts the calls of [`IoQueue::start`], each of which is a separate system call on
/// a ring.
struct StartCounter {
    inner: MemoryBackend,
    starts: Arc<AtomicU64>,
}

struct Queue {
    inner: Box<dyn IoQueue>,
    starts: Arc<AtomicU64>,
}

impl IoBackend for StartCounter {
    fn engine(&self) -> &str {
        self.inner.engine()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn geometry(&self) -> &Geometry {
        self.inner.geometry()
    }

    fn stats(&self) -> &Stats {
        self.inner.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.inner.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (inner, starts) = (self.inner.open_queue(depth)?, Arc::clone(&self.starts));
        Ok(Box::new(Queue { inner, starts }))
    }
}

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        self.inner.submit(ops);
    }

    fn start(&mut self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.inner.start();
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        self.inner.reap(min, deadline, done);
    }
}

#[test]
fn only_a_long_put_starts_its_transfers_before_it_waits() {
    let starts = Arc::new(AtomicU64::new(0));
    let inner = MemoryBackend::new(256 << 20).unwrap();
    let backend = Arc::new(StartCounter { inner, starts: Arc::clone(&starts) });
    Store::format(backend.clone(), &FormatOptions::default()).unwrap();
    let store = Store::open(backend).unwrap();
    for (len, early_starts) in [(1, 0), (4096, 0), (1 << 20, 0), ((1 << 20) + 1, 1), (4 << 20, 1)] {
        let payload = vec![7; len];
        let before = starts.load(Ordering::Relaxed);
        store.put_many(&[Put::new(b"key", &payload)]).into_iter().for_each(|put| put.unwrap());
        let started = starts.load(Ordering::Relaxed) - before;
        assert_eq!(started, early_starts, "a put of {len} bytes");
    }
}

//! Wakers: the wait for an op that does not complete ends, and nothing else changes.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::Instant;

use fakes::within_seconds;
use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, OpKind, Stats};
use raw_block_core::simulated::{DeviceFault, SimulatedDevice, run_interleaved};
use raw_block_core::{Dispatcher, Error, Geometry, ReadAt, sync};

/// What the tests see of the queues of a backend.
#[derive(Default)]
struct Seen {
    wakers: Mutex<Vec<Waker>>,
    /// The number of reaps that returned no completion.
    empty_reaps: AtomicUsize,
    reaped: AtomicUsize,
}

/// A backend whose queues can be woken by the tests.
struct Watched {
    simulated: SimulatedDevice,
    seen: Arc<Seen>,
}

struct Queue {
    inner: Box<dyn IoQueue>,
    seen: Arc<Seen>,
}

impl IoBackend for Watched {
    fn engine(&self) -> &str {
        self.simulated.engine()
    }

    fn name(&self) -> &str {
        self.simulated.name()
    }

    fn geometry(&self) -> &Geometry {
        self.simulated.geometry()
    }

    fn stats(&self) -> &Stats {
        self.simulated.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.simulated.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (mut inner, seen) = (self.simulated.open_queue(depth)?, Arc::clone(&self.seen));
        seen.wakers.lock().unwrap().push(inner.waker()?);
        Ok(Box::new(Queue { inner, seen }))
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
        self.inner.start();
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        let before = done.len();
        self.inner.reap(min, deadline, done);
        let reaped = done.len() - before;
        self.seen.reaped.fetch_add(reaped, Ordering::SeqCst);
        self.seen.empty_reaps.fetch_add(usize::from(reaped == 0), Ordering::SeqCst);
    }
}

/// A device that holds a read, what the tests see of its queues, and a dispatcher.
fn holding_a_read(seed: u64) -> (SimulatedDevice, Arc<Seen>, Dispatcher) {
    let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512).unwrap(), seed).unwrap();
    simulated.inject(DeviceFault::hold(OpKind::Read));
    let seen = Arc::<Seen>::default();
    let watched = Watched { simulated: simulated.clone(), seen: Arc::clone(&seen) };
    (simulated, seen, Dispatcher::new(Arc::new(watched)).unwrap())
}

fn read(device: &Dispatcher) {
    device.read_buffers(&mut [ReadAt::new(0, &mut [0; 512])]).all().unwrap();
}

/// Wakes the queue until its wait has ended `times` times, and then lets the read proceed. Calls
/// `pause` between two looks.
fn wake_and_release(simulated: &SimulatedDevice, seen: &Seen, times: usize, pause: impl Fn()) {
    let waker = loop {
        if let Some(waker) = sync::lock(&seen.wakers).last().cloned() {
            break waker;
        }
        pause();
    };
    for woken in 1..=times {
        waker.wake_by_ref();
        while seen.empty_reaps.load(Ordering::SeqCst) < woken {
            pause();
        }
    }
    assert_eq!(seen.empty_reaps.load(Ordering::SeqCst), times, "one reap returns for each wake");
    assert_eq!(seen.reaped.load(Ordering::SeqCst), 0, "the read is held");
    simulated.clear_faults();
}

#[test]
fn a_wake_ends_a_wait_for_a_held_op() {
    within_seconds(|| {
        let (simulated, seen, device) = holding_a_read(1);
        thread::scope(|scope| {
            scope.spawn(|| read(&device));
            wake_and_release(&simulated, &seen, 3, thread::yield_now);
        });
        assert_eq!(seen.reaped.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn no_order_of_steps_loses_a_wake() {
    for seed in 0..200 {
        let (simulated, seen, device) = holding_a_read(seed);
        let never = Mutex::new(());
        // To look at a lock is a scheduling point.
        let wake = || {
            wake_and_release(&simulated, &seen, 2, || drop(sync::lock(&never)));
        };
        run_interleaved(seed, vec![Box::new(|| read(&device)), Box::new(wake)]);
        assert_eq!(seen.reaped.load(Ordering::SeqCst), 1, "seed {seed}");
    }
}

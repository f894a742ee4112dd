//! A device in memory whose queues work: each has a thread that executes ops one by one, in its own
//! order. `MemoryBackend` completes ops at once; here they stay in flight.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, OpKind, Stats};
use raw_block_core::{Error, Geometry};

pub(crate) struct ThreadedBackend(Arc<Device>);

struct Device {
    geometry: Geometry,
    stats: Stats,
    flush_state: FlushState,
    bytes: Mutex<Vec<u8>>,
}

impl ThreadedBackend {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let bytes = Mutex::new(vec![0; usize::try_from(geometry.capacity).unwrap()]);
        Self(Arc::new(Device {
            geometry,
            stats: Stats::new(),
            flush_state: FlushState::new(),
            bytes,
        }))
    }
}

impl IoBackend for ThreadedBackend {
    fn engine(&self) -> &'static str {
        "threaded"
    }

    fn name(&self) -> &'static str {
        "threaded memory"
    }

    fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    fn stats(&self) -> &Stats {
        &self.0.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.0.flush_state
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let failed = |error| Error::os("open a queue", error);
        let (signal, worker_end) = UnixStream::pair().map_err(failed)?;
        signal.set_nonblocking(true).map_err(failed)?;
        let shared = Arc::new(Shared {
            device: Arc::clone(&self.0),
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let worker = thread::spawn(move || worker.work(worker_end));
        let accepted = Vec::new();
        Ok(Box::new(Queue { depth, in_flight: 0, accepted, shared, signal, worker: Some(worker) }))
    }
}

#[derive(Default)]
struct State {
    todo: Vec<Op>,
    done: Vec<Completion>,
    closing: bool,
    woken: bool,
}

struct Shared {
    device: Arc<Device>,
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn work(&self, mut signal: UnixStream) {
        let mut dice = 1_usize;
        let mut state = self.state();
        loop {
            if state.todo.is_empty() {
                if state.closing {
                    return;
                }
                state = self.work.wait(state).unwrap();
                continue;
            }
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let chosen = (dice >> 33) % state.todo.len();
            let mut op = state.todo.swap_remove(chosen);
            drop(state);
            self.carry_out(&mut op);
            state = self.state();
            // The signal is given and taken under the lock, so that it is never late.
            if state.done.is_empty() && !state.closing {
                signal.write_all(&[1]).unwrap();
            }
            state.done.push(op.complete());
            self.done.notify_one();
        }
    }

    fn carry_out(&self, op: &mut Op) {
        let mut bytes = self.device.bytes.lock().unwrap();
        let mut at = usize::try_from(op.offset()).unwrap();
        match op.kind() {
            OpKind::Read => {
                for segment in op.destination() {
                    let end = at + segment.len();
                    segment.copy_from_slice(&bytes[at..end]);
                    at = end;
                }
            }
            OpKind::Write => {
                for segment in op.source() {
                    bytes[at..at + segment.len()].copy_from_slice(segment);
                    at += segment.len();
                }
            }
            OpKind::Discard | OpKind::WriteZeroes => {
                let len = usize::try_from(op.len()).unwrap();
                bytes[at..at + len].fill(0);
            }
            _ => {}
        }
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.state().woken = true;
        self.done.notify_one();
    }
}

struct Queue {
    depth: usize,
    in_flight: usize,
    /// Not started yet.
    accepted: Vec<Op>,
    shared: Arc<Shared>,
    signal: UnixStream,
    worker: Option<JoinHandle<()>>,
}

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let room = self.depth - self.in_flight;
        let accepted = room.min(ops.len());
        self.accepted.extend(ops.drain(..accepted));
        self.in_flight += accepted;
    }

    fn start(&mut self) {
        if !self.accepted.is_empty() {
            self.shared.state().todo.append(&mut self.accepted);
            self.shared.work.notify_one();
            self.shared.device.stats.update(|stats| stats.submissions += 1);
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        self.start();
        let min = min.min(self.in_flight);
        let mut state = self.shared.state();
        while state.done.len() < min && !mem::take(&mut state.woken) {
            state = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                None => self.shared.done.wait(state).unwrap(),
                Some(Some(left)) => self.shared.done.wait_timeout(state, left).unwrap().0,
                Some(None) => break,
            };
        }
        let _ = self.signal.read(&mut [0; 64]);
        self.in_flight -= state.done.len();
        done.append(&mut state.done);
    }

    fn waker(&mut self) -> Result<Waker, Error> {
        Ok(Waker::from(Arc::clone(&self.shared)))
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signal.as_fd())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.todo.append(&mut self.accepted);
        state.closing = true;
        drop(state);
        self.shared.work.notify_one();
        let worker = self.worker.take().unwrap();
        worker.join().unwrap();
        let left = mem::take(&mut self.shared.state().done);
        drop(left);
    }
}

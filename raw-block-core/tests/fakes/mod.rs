//! A device in memory whose queues can be made to misbehave.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::{
    AlignedBuf, Dispatcher, DispatcherOptions, Error, ErrorKind, Geometry, MemoryBackend,
    OwnedTransfer, WriteAt,
};

/// What a queue does otherwise than the honest one inside it.
pub(crate) trait Behaviour: Send {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        honest.submit(ops);
    }

    fn start(&mut self, honest: &mut dyn IoQueue) {
        honest.start();
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        honest.reap(min, deadline, done);
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight()
    }

    fn depth(&self, honest: &dyn IoQueue) -> usize {
        honest.depth()
    }

    /// Whether it is a queue of the thread that opened it.
    fn is_local(&self) -> bool {
        false
    }

    fn waker(&mut self, honest: &mut dyn IoQueue) -> Result<Waker, Error> {
        honest.waker()
    }
}

pub(crate) struct Honest;
impl Behaviour for Honest {}

/// Fails the ops for which `error` returns an error, and hands the others on.
pub(crate) struct Failing<F> {
    error: F,
    failed: Vec<Completion>,
}

impl<F: FnMut(&Op) -> Option<Error> + Send> Failing<F> {
    pub(crate) fn new(error: F) -> Self {
        Self { error, failed: Vec::new() }
    }
}

impl<F: FnMut(&Op) -> Option<Error> + Send> Behaviour for Failing<F> {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let mut good = VecDeque::new();
        for op in ops.drain(..) {
            match (self.error)(&op) {
                Some(error) => self.failed.push(op.fail_with(error)),
                None => good.push_back(op),
            }
        }
        honest.submit(&mut good);
        assert!(good.is_empty(), "these tests submit less than a queue holds");
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        done.append(&mut self.failed);
        honest.reap(min, deadline, done);
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight() + self.failed.len()
    }
}

/// The error that this number of the operating system makes of an op.
pub(crate) fn os_error(op: &Op, errno: i32) -> Error {
    op.error(std::io::Error::from_raw_os_error(errno))
}

/// Closed, nothing is carried out.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    open: bool,
    waiting: usize,
    /// Whether a wait is to end although it is closed.
    woken: bool,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.state.lock().unwrap().woken = true;
        self.changed.notify_all();
    }
}

impl Gate {
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().unwrap().open
    }

    /// Waits until it is open or woken, at the longest until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        while !state.open && !std::mem::take(&mut state.woken) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => self.changed.wait_timeout(state, left).unwrap().0,
                None => self.changed.wait(state).unwrap(),
            };
        }
        state.waiting -= 1;
    }

    /// Returns when a thread waits at it.
    pub(crate) fn until_someone_waits(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.waiting == 0).unwrap());
    }
}

/// Holds its ops back until the gate opens.
pub(crate) struct Gated {
    gate: Arc<Gate>,
    held: VecDeque<Op>,
}

impl Gated {
    pub(crate) fn new(gate: &Arc<Gate>) -> Self {
        Self { gate: Arc::clone(gate), held: VecDeque::new() }
    }
}

impl Behaviour for Gated {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        let room = honest.depth() - self.held.len() - honest.in_flight();
        self.held.extend(ops.drain(..room.min(ops.len())));
    }

    fn start(&mut self, honest: &mut dyn IoQueue) {
        if self.gate.is_open() {
            honest.submit(&mut self.held);
            honest.start();
        }
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        if min > 0 {
            self.gate.wait(deadline);
        }
        if self.gate.is_open() {
            honest.submit(&mut self.held);
            honest.reap(min, deadline, done);
        }
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight() + self.held.len()
    }

    fn waker(&mut self, _: &mut dyn IoQueue) -> Result<Waker, Error> {
        Ok(Waker::from(Arc::clone(&self.gate)))
    }
}

struct Queue {
    honest: Box<dyn IoQueue>,
    behaviour: Box<dyn Behaviour>,
}

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.behaviour.depth(&*self.honest)
    }

    fn in_flight(&self) -> usize {
        self.behaviour.in_flight(&*self.honest)
    }

    fn is_local(&self) -> bool {
        self.behaviour.is_local()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        self.behaviour.submit(&mut *self.honest, ops);
    }

    fn start(&mut self) {
        self.behaviour.start(&mut *self.honest);
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        self.behaviour.reap(&mut *self.honest, min, deadline, done);
    }

    fn waker(&mut self) -> Result<Waker, Error> {
        self.behaviour.waker(&mut *self.honest)
    }
}

/// A queue that is requested.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// How many were wanted before it.
    pub(crate) number: usize,
    /// Whether one of the calling thread alone would do.
    pub(crate) local: bool,
}

struct Backend<F> {
    memory: MemoryBackend,
    wanted: AtomicUsize,
    behaviour: F,
}

impl<F> Backend<F>
where
    F: Fn(Wanted) -> Result<Box<dyn Behaviour>, Error>,
{
    fn open(&self, depth: usize, local: bool) -> Result<Box<dyn IoQueue>, Error> {
        let number = self.wanted.fetch_add(1, Ordering::SeqCst);
        let behaviour = (self.behaviour)(Wanted { number, local })?;
        Ok(Box::new(Queue { honest: self.memory.open_queue(depth)?, behaviour }))
    }
}

impl<F> IoBackend for Backend<F>
where
    F: Fn(Wanted) -> Result<Box<dyn Behaviour>, Error> + Send + Sync,
{
    fn engine(&self) -> &'static str {
        "fake"
    }

    fn name(&self) -> &'static str {
        "fake device"
    }

    fn geometry(&self) -> &Geometry {
        self.memory.geometry()
    }

    fn stats(&self) -> &Stats {
        self.memory.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.memory.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.open(depth, false)
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.open(depth, true)
    }
}

/// A dispatcher over a device of 1 MiB in blocks of 512 bytes. `behaviour` is asked for each queue
/// that is opened, with its number from 0 on.
pub(crate) fn device<F>(behaviour: F) -> Dispatcher
where
    F: Fn(usize) -> Result<Box<dyn Behaviour>, Error> + Send + Sync + 'static,
{
    device_with_queues(4, move |wanted| behaviour(wanted.number))
}

/// The same with at most this number of queues; `behaviour` gets the user of each.
pub(crate) fn device_with_queues<F>(max_queues: usize, behaviour: F) -> Dispatcher
where
    F: Fn(Wanted) -> Result<Box<dyn Behaviour>, Error> + Send + Sync + 'static,
{
    dispatcher(&backend(behaviour), max_queues)
}

/// A backend of 1 MiB in blocks of 512 bytes.
pub(crate) fn backend<F>(behaviour: F) -> Arc<dyn IoBackend>
where
    F: Fn(Wanted) -> Result<Box<dyn Behaviour>, Error> + Send + Sync + 'static,
{
    let memory = MemoryBackend::new(1 << 20).unwrap();
    Arc::new(Backend { memory, wanted: AtomicUsize::new(0), behaviour })
}

/// A dispatcher with up to this many queues.
pub(crate) fn dispatcher(backend: &Arc<dyn IoBackend>, max_queues: usize) -> Dispatcher {
    let options = DispatcherOptions::new().queue_depth(16).max_queues(max_queues);
    Dispatcher::with_options(Arc::clone(backend), options).unwrap()
}

/// A dispatcher whose first queue misbehaves; all later ones are honest.
pub(crate) fn first_queue<B: Behaviour + 'static>(
    make: impl Fn() -> B + Send + Sync + 'static,
) -> Dispatcher {
    device(move |number| Ok(if number == 0 { Box::new(make()) } else { Box::new(Honest) }))
}

/// Whether this is the thread that runs the batches of tickets.
pub(crate) fn is_driver() -> bool {
    thread::current().name() == Some("raw-block-drive")
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::yield_now();
    }
}

/// Waits until the batches of all tickets have completed, also of those that were dropped.
#[track_caller]
pub(crate) fn until_no_ticket_is_in_flight(device: &Dispatcher) {
    until("a batch does not complete", || device.stats().tickets_in_flight == 0);
}

/// Runs `test`, which must not hang.
pub(crate) fn within_seconds<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || send.send(test()));
    match receive.recv_timeout(Duration::from_secs(120)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().unwrap_err())
        }
    }
}

/// `count` writes of one block each, far enough apart not to be merged, of a byte that is its
/// number.
pub(crate) fn writes(blocks: &[[u8; 512]]) -> Vec<WriteAt<'_>> {
    (0..).zip(blocks).map(|(number, block)| WriteAt::new(place(number), block)).collect()
}

/// Blocks to write, each with different bytes.
pub(crate) fn blocks(count: u8) -> Vec<[u8; 512]> {
    (0..count).map(|number| [number + 1; 512]).collect()
}

/// Where write `number` goes.
pub(crate) fn place(number: u64) -> u64 {
    4096 * number
}

/// The same writes with owned buffers.
pub(crate) fn owned(blocks: &[[u8; 512]]) -> Vec<OwnedTransfer> {
    (0..)
        .zip(blocks)
        .map(|(number, block)| {
            let mut buffer = AlignedBuf::zeroed(block.len()).unwrap();
            buffer.copy_from_slice(block);
            OwnedTransfer::new(place(number), buffer)
        })
        .collect()
}

/// What went wrong with each transfer: `None` for nothing.
pub(crate) fn kinds<'a>(
    results: impl IntoIterator<Item = &'a Result<(), Error>>,
) -> Vec<Option<ErrorKind>> {
    results.into_iter().map(|result| result.as_ref().err().map(Error::kind)).collect()
}

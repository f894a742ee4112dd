//! A device kept busy with reads.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::{
    AlignedBuf, Buffer, Dispatcher, DispatcherOptions, Error, Geometry, OwnedTransfer, Ticket,
};
use raw_block_fixtures::{TempFile, temp_file};
use raw_block_uring::{UringBackend, UringOptions};

use crate::quarantine;

/// The bytes of one read, and the number of reads that are started at once: 128 MiB, which no
/// device reads while they are started.
pub(crate) const READ: usize = 1 << 20;
pub(crate) const READS: usize = 128;
/// All of them are in flight at once.
pub(crate) const OPTIONS: DispatcherOptions =
    DispatcherOptions::new().queue_depth(READS).max_queues(8);

/// The length of the file that is read repeatedly, in bytes.
const FILE: u64 = 16 << 20;
/// How long reads are started again until most of them are in flight. On a busy machine this thread
/// may run again only after they have completed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Lets one test run at a time, so that the test that damages memory fails. When it is dropped, it
/// checks that nothing wrote to freed memory.
pub(crate) struct Alone(#[expect(dead_code, reason = "held for its drop")] MutexGuard<'static, ()>);

impl Alone {
    pub(crate) fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        quarantine::empty();
        Self(turn)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if thread::panicking() {
            return quarantine::leak();
        }
        if let Some(damage) = quarantine::empty() {
            panic!("{damage}");
        }
    }
}

/// A file, opened for slow reads.
pub(crate) struct Busy {
    dispatcher: Option<Dispatcher>,
    backend: Option<Arc<UringBackend>>,
    // Dropped last, in this order.
    _file: TempFile,
    _alone: Alone,
}

impl Busy {
    /// `None`, with a message, if there is no disk for a file.
    pub(crate) fn new() -> Option<Self> {
        let alone = Alone::new();
        let file = temp_file(FILE).map_err(|skipped| skipped.report()).ok()?;
        let backend = UringBackend::open(file.path(), &UringOptions::new()).unwrap();
        let backend = Arc::new(backend);
        let dispatcher = Dispatcher::with_options(backend.clone(), OPTIONS).unwrap();
        Some(Self {
            dispatcher: Some(dispatcher),
            backend: Some(backend),
            _file: file,
            _alone: alone,
        })
    }

    pub(crate) fn backend(&self) -> Arc<UringBackend> {
        self.backend.clone().expect("it is open")
    }

    /// Closes the device, unless a ticket holds it.
    pub(crate) fn close(&mut self) {
        self.dispatcher = None;
        self.backend = None;
    }

    /// Returns when the batches of dropped tickets have completed.
    pub(crate) fn wait_for_tickets(&self) {
        let dispatcher = self.dispatcher.as_ref().expect("it is open");
        let end = Instant::now() + PATIENCE;
        while dispatcher.stats().tickets_in_flight > 0 {
            assert!(Instant::now() < end, "a dropped ticket does not complete");
            thread::yield_now();
        }
    }

    /// Starts reads into new memory from the heap. Also returns the addresses of their buffers.
    pub(crate) fn reads_in_flight(&self) -> (Ticket, Vec<usize>) {
        self.reads_in_flight_into(heap)
    }

    /// Starts reads into the buffers from `make`. More than half of the bytes are unread when it
    /// returns.
    pub(crate) fn reads_in_flight_into<B: Into<Buffer>>(
        &self,
        make: impl Fn() -> Vec<B>,
    ) -> (Ticket, Vec<usize>) {
        let dispatcher = self.dispatcher.as_ref().expect("it is open");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let buffers: Vec<Buffer> = make().into_iter().map(Into::into).collect();
            let addresses = buffers.iter().map(|one| one.as_ptr().expose_provenance()).collect();
            let before = dispatcher.stats();
            let mut ticket = dispatcher.batched_read(batch(buffers)).unwrap();
            while dispatcher.stats().submissions == before.submissions {
                thread::yield_now();
            }
            let over = ticket.try_wait().is_some();
            let read = dispatcher.stats().read_bytes - before.read_bytes;
            if !over && read < (READ * READS / 2) as u64 {
                return (ticket, addresses);
            }
        }
        panic!("{READS} reads had completed each time before they could be seen in flight");
    }
}

/// Buffers from the heap for all reads.
pub(crate) fn heap() -> Vec<AlignedBuf> {
    touched((0..READS).map(|_| AlignedBuf::zeroed(READ).unwrap()).collect())
}

/// Makes the pages of buffers exist. Otherwise the kernel makes them while it starts the reads,
/// which takes longer than the reads.
pub(crate) fn touched(mut buffers: Vec<AlignedBuf>) -> Vec<AlignedBuf> {
    buffers.iter_mut().for_each(|buffer| buffer.fill(0));
    buffers
}

/// The offset of each read.
pub(crate) fn offsets() -> impl Iterator<Item = u64> {
    (0..FILE).step_by(READ).cycle()
}

pub(crate) fn batch(buffers: Vec<impl Into<Buffer>>) -> Vec<OwnedTransfer> {
    offsets().zip(buffers).map(|(offset, buffer)| OwnedTransfer::new(offset, buffer)).collect()
}

/// A backend that panics once it has started the ops that its queue accepted.
pub(crate) struct PanicsWhenReaped(pub(crate) Arc<UringBackend>);

struct Queue(Box<dyn IoQueue>);

/// The payload of the panic: the number of ops in flight.
struct InFlight(usize);

impl IoBackend for PanicsWhenReaped {
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
        Ok(Box::new(Queue(self.0.open_queue(depth)?)))
    }
}

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.0.depth()
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        self.0.submit(ops);
    }

    fn start(&mut self) {
        self.0.start();
    }

    fn reap(&mut self, _: usize, _: Option<Instant>, done: &mut Vec<Completion>) {
        self.0.reap(0, None, done);
        // A panic without a message.
        resume_unwind(Box::new(InFlight(self.0.in_flight())));
    }

    fn waker(&mut self) -> Result<Waker, Error> {
        self.0.waker()
    }
}

/// Runs a call that [`PanicsWhenReaped`] ends, until reads were in flight when it panicked.
pub(crate) fn panic_with_reads_in_flight(run: impl Fn()) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let reason: Box<dyn Any + Send> =
            catch_unwind(AssertUnwindSafe(&run)).expect_err("the backend panics");
        match reason.downcast::<InFlight>() {
            Ok(in_flight) if in_flight.0 > READS / 2 => return,
            Ok(_) => {}
            Err(reason) => resume_unwind(reason),
        }
    }
    panic!("most of {READS} reads had completed each time before the backend panicked");
}

/// Whether this process has a page mapped at `address`, which is page-aligned.
pub(crate) fn is_mapped(address: usize) -> bool {
    let mut resident = 0_u8;
    let page = std::ptr::without_provenance_mut(address);
    // SAFETY: the call only reads the page tables, and writes one byte to `resident`, for one page.
    unsafe { libc::mincore(page, 1, &raw mut resident) == 0 }
}

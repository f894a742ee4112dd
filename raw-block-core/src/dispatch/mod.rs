//! The one dispatcher that all I/O passes.

mod batch;
mod lane;
mod lanes;
mod layout;
mod plan;
mod pool;
mod request;
mod result;
mod ticket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{IoBackend, OpKind, Transfer};
use crate::{
    AlignedBuf, Error, ErrorKind, Geometry, OwnedTransfer, ReadAt, StatsSnapshot, WriteAt,
};
use lane::Patience;
use pool::{LanePool, Lent};
pub use result::BatchResult;
pub use ticket::{Finished, Refused, Ticket};

/// How a [`Dispatcher`] uses the queues of its backend.
///
/// # Examples
/// ```
/// use raw_block_core::DispatcherOptions;
///
/// let options = DispatcherOptions::new().queue_depth(32).max_queues(8);
/// assert_eq!((options.queue_depth, options.max_queues), (32, 8));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DispatcherOptions {
    /// The depth asked for each queue, in ops.
    pub queue_depth: usize,
    /// The most queues that are open at once: the most batches in flight. At least 2 for tickets. A thread that
    /// calls the dispatcher from within [`Dispatcher::read_buffers_with`] or
    /// [`Dispatcher::write_buffers_while`] may open one beyond.
    pub max_queues: usize,
}

impl DispatcherOptions {
    /// Queues of depth 128, at most 64 of them.
    #[must_use]
    pub const fn new() -> Self {
        Self { queue_depth: 128, max_queues: 64 }
    }

    /// The same options with this [queue depth](Self#structfield.queue_depth).
    #[must_use]
    pub const fn queue_depth(mut self, ops: usize) -> Self {
        self.queue_depth = ops;
        self
    }

    /// The same options with [at most](Self#structfield.max_queues) this many queues.
    #[must_use]
    pub const fn max_queues(mut self, queues: usize) -> Self {
        self.max_queues = queues;
        self
    }
}

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Moves batches between memory and one device.
///
/// Each call takes a batch of transfers, checks them against the [`Geometry`], copies what the device
/// cannot take as it is through aligned memory, merges neighbours, and hands everything to one queue of
/// the backend in one submission. Every transfer has a result of its own.
///
/// A dispatcher is shared between threads by reference; each call uses a queue alone, so threads do not
/// wait for each other's transfers.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::{Dispatcher, MemoryBackend, ReadAt, WriteAt};
///
/// let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
/// let writes = [
///     WriteAt::new(0, b"first").padded_to(512),
///     WriteAt::new(512, b"second").padded_to(512),
/// ];
/// device.write_buffers(&writes).all()?;
/// device.flush()?;
///
/// let mut found = [0; 6];
/// device.read_buffers(&mut [ReadAt::new(512, &mut found).padded_to(512)]).all()?;
/// assert_eq!(&found, b"second");
/// # Ok::<(), raw_block_core::Error>(())
/// ```
pub struct Dispatcher {
    pool: Arc<LanePool>,
    /// Whether nothing but reads is accepted.
    read_only: bool,
    last_ticket: AtomicU64,
}

impl Dispatcher {
    /// The most transfers that one batch may have.
    pub const MAX_BATCH: usize = 1 << 24;

    /// A dispatcher over `backend`, with default options. Opens no queue yet.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the device wants memory aligned beyond [`AlignedBuf::ALIGNMENT`], one of its alignments is
    /// no power of two, or it is larger than [`Geometry::MAX_CAPACITY`].
    pub fn new(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        Self::with_options(backend, DispatcherOptions::new())
    }

    /// A dispatcher over `backend` that accepts nothing but reads, also where the device would take
    /// writes. Opens no queue yet.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn read_only(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        Ok(Self { read_only: true, ..Self::new(backend)? })
    }

    /// A dispatcher over `backend`. Opens no queue yet.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`ErrorKind::InvalidInput`] when an option is 0.
    pub fn with_options(
        backend: Arc<dyn IoBackend>,
        options: DispatcherOptions,
    ) -> Result<Self, Error> {
        let DispatcherOptions { queue_depth, max_queues } = options;
        let refuse = |kind, rule: String| {
            Err(Error::new(kind, "create a dispatcher", rule).on(backend.name()))
        };
        if queue_depth == 0 || max_queues == 0 {
            return refuse(
                ErrorKind::InvalidInput,
                "queue depth and queues must be at least 1".into(),
            );
        }
        let geometry = *backend.geometry();
        let alignment = geometry.memory_alignment;
        if alignment as usize > AlignedBuf::ALIGNMENT || !alignment.is_power_of_two() {
            return refuse(
                ErrorKind::Unsupported,
                format!(
                    "the device requires memory aligned to {alignment} bytes, which is not a power of \
                     two up to {}",
                    AlignedBuf::ALIGNMENT
                ),
            );
        }
        if geometry.capacity > Geometry::MAX_CAPACITY
            || !geometry.transfer_alignment.is_power_of_two()
        {
            return refuse(
                ErrorKind::Unsupported,
                format!("the device says that it is impossible: {geometry:?}"),
            );
        }
        Ok(Self {
            pool: Arc::new(LanePool::new(backend, geometry, queue_depth, max_queues)),
            read_only: geometry.read_only,
            last_ticket: AtomicU64::new(0),
        })
    }

    /// The backend below.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn IoBackend> {
        &self.pool.backend
    }

    /// What the device can do.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.pool.geometry
    }

    /// The counters as they are now.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        self.pool.backend.stats().snapshot()
    }

    /// Writes a batch and returns when all of it is over. Writes are not durable until a
    /// [`flush`](Self::flush) that follows them.
    ///
    /// A batch has no order: transfers that overlap are refused, all but one.
    pub fn write_buffers<const N: usize>(&self, batch: &[WriteAt<'_, N>]) -> BatchResult {
        self.run_borrowed(batch)
    }

    /// Starts a batch of writes, calls `work` while the device writes, and returns when the batch has completed.
    ///
    /// `work` is called once, also if the batch is empty or refused. It gets no results: it is for work that does
    /// not depend on them. The memory of the batch may be read in the meantime. A batch longer than
    /// [`queue_depth`](DispatcherOptions::queue_depth), or one that needs more aligned memory than a part of a batch
    /// may have, is started in part; the rest follows after `work`. A backend without asynchronous I/O, such as
    /// [`MemoryBackend`](crate::MemoryBackend), writes before or after `work`. Starting costs a ring one system call
    /// more than [`write_buffers`](Self::write_buffers), and the latencies in the [statistics](Self::stats) include the
    /// time of `work`.
    ///
    /// `work` may call this dispatcher, as in [`read_buffers_with`](Self::read_buffers_with). A flush in it does not
    /// cover this batch.
    ///
    /// # Panics
    /// When `work` does, after every write that was started has completed.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use raw_block_core::{Dispatcher, MemoryBackend, WriteAt};
    ///
    /// let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
    /// let bytes = [7; 4096];
    /// let (written, sum) = device.write_buffers_while(&[WriteAt::new(0, &bytes)], || {
    ///     bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()
    /// });
    /// written.all()?;
    /// assert_eq!(sum, 7 * 4096);
    /// # Ok::<(), raw_block_core::Error>(())
    /// ```
    pub fn write_buffers_while<T, const N: usize>(
        &self,
        batch: &[WriteAt<'_, N>],
        work: impl FnOnce() -> T,
    ) -> (BatchResult, T) {
        if batch.is_empty() {
            return (BatchResult::default(), work());
        }
        let mut lane = match self.try_lend(OpKind::Write, batch.len()) {
            Ok(lane) => lane,
            Err(error) => return (BatchResult::refused(&error, batch.len()), work()),
        };
        // SAFETY: the transfers borrow their memory until after the lane has run them, which ends, also by a
        // panic of `work`, only when the batch is released.
        unsafe { lane.batch.add_borrowed(batch, self.geometry()) };
        let backend = &*self.pool.backend;
        let worked = lane.run_borrowed_while(backend, work);
        (BatchResult(lane.batch.take_results(backend)), worked)
    }

    /// Reads a batch and returns when all of it is over.
    ///
    /// After a failed read the contents of its memory are unspecified.
    pub fn read_buffers<const N: usize>(&self, batch: &mut [ReadAt<'_, N>]) -> BatchResult {
        self.run_borrowed(batch)
    }

    /// Reads a batch, calls `each` for every transfer, and returns when all of it is over.
    ///
    /// `each` gets the transfer's place in the batch, and the segments that were read or the error. It is
    /// called once for every transfer, in any order; while a part of a long batch is still under way it is
    /// called for the part that is over, so that the caller's work on the bytes and the device's go on side by
    /// side. It is one submission like [`read_buffers`](Self::read_buffers), with more waiting.
    ///
    /// `each` may call this dispatcher. Where as many queues are in use as are allowed, such a call opens one
    /// more and closes it at its end, because waiting for another could be waiting for itself.
    ///
    /// # Panics
    /// When `each` does, after everything that was under way is over.
    pub fn read_buffers_with<const N: usize>(
        &self,
        batch: &mut [ReadAt<'_, N>],
        mut each: impl FnMut(usize, Result<[&mut [u8]; N], Error>),
    ) {
        if batch.is_empty() {
            return;
        }
        let read = self.try_lend(OpKind::Read, batch.len()).map(|mut lane| {
            // SAFETY: `batch` is borrowed mutably, and with it the memory that it names. Until the lane
            // has run it, which also a panic in `each` does not cut short, nothing uses that memory but
            // `each`, which gets what is over: no op is left that has it.
            unsafe { lane.batch.add_borrowed(batch, self.geometry()) };
            let each = |index: usize| each(index, Ok(batch[index].segments_mut()));
            lane.run_borrowed(&*self.pool.backend, Patience::Part, each);
            lane.batch.take_results(&*self.pool.backend)
        });
        match read {
            Ok(results) => {
                for (index, result) in results.into_iter().enumerate() {
                    if let Err(error) = result {
                        each(index, Err(error));
                    }
                }
            }
            Err(error) => (0..batch.len()).for_each(|index| each(index, Err(error.clone()))),
        }
    }

    fn run_borrowed<T: Transfer>(&self, batch: &[T]) -> BatchResult {
        self.run_blocking(T::KIND, batch.len(), |batch_in_lane, geometry| {
            // SAFETY: the transfers borrow their memory (reads exclusively: only `read_buffers` gets here
            // with reads, and it borrows them mutably) until after `run_blocking`, which ends, also by a
            // panic, only when the batch is released.
            unsafe { batch_in_lane.add_borrowed(batch, geometry) };
        })
    }

    /// Makes every write durable that had completed before this call.
    ///
    /// One flush is in flight at a time on each backend. Callers that arrive in the meantime, on any
    /// dispatcher on the backend, share the next one.
    ///
    /// # Errors
    /// Those of the device. After a failed flush it is unknown what is durable, so every later write
    /// through any dispatcher on the backend is refused with [`ErrorKind::WritesStopped`] until the device
    /// is opened again. A flush that was not started stops no writes: its error is of class
    /// [`ErrorClass::NotStarted`](crate::ErrorClass::NotStarted).
    pub fn flush(&self) -> Result<(), Error> {
        // The lock of the flushes may have no owner in a forked child.
        self.pool.check_process()?;
        self.check_accepted(OpKind::Flush)?;
        let backend = &*self.pool.backend;
        let prepare = || self.try_lend(OpKind::Flush, 1);
        let flush = |mut lane: Lent| {
            lane.batch.add_bare(0, 0, Ok(()));
            lane.run_borrowed(backend, Patience::Unlimited, |_| {});
            BatchResult(lane.batch.take_results(backend)).all()
        };
        let holds_lane = LanePool::lends_to_this_thread();
        let result = backend.flush_state().flush(backend.stats(), holds_lane, prepare, flush);
        result.map_err(|mut error| {
            error.name_backend(backend.name());
            error
        })
    }

    /// Tells the device that `len` bytes from byte `offset` on hold nothing of value. They read as anything until they are
    /// written again.
    ///
    /// Like a write, a discard is not durable until a [`flush`](Self::flush) that follows it, and a device may ignore it.
    /// The range may be of any length: the kernel, or the backend of NVMe passthrough, splits it into what the device takes
    /// as one command. The call returns when the device has carried out all of them, which may take seconds.
    ///
    /// In a [regular file](Geometry::regular_file) the range becomes a hole: the file system gets its space back, so a later
    /// write there may fail with [`ErrorKind::NoSpace`]. A caller whose file must keep its space does not discard.
    /// [`write_zeroes`](Self::write_zeroes) keeps it on file systems that can zero a range of a file, such as ext4 and XFS,
    /// and makes a hole on others.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the device has no such operation, those of
    /// [`Geometry::check_range`], and those of the device.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        let check = self.check_supported(self.geometry().discard, OpKind::Discard, offset, len);
        self.run_bare(OpKind::Discard, offset, len, check)
    }

    /// Makes `len` bytes from byte `offset` on read as zeroes, without transferring them.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        let supported = self.geometry().write_zeroes;
        let check = self.check_supported(supported, OpKind::WriteZeroes, offset, len);
        self.run_bare(OpKind::WriteZeroes, offset, len, check)
    }

    fn check_supported(
        &self,
        supported: bool,
        kind: OpKind,
        offset: u64,
        len: u64,
    ) -> Result<(), Error> {
        if !supported {
            let rule = "the device has no such operation";
            return Err(Error::new(ErrorKind::Unsupported, kind.name(), rule).at(offset, len));
        }
        self.geometry().check_range(kind, offset, len)
    }

    fn run_bare(
        &self,
        kind: OpKind,
        offset: u64,
        len: u64,
        check: Result<(), Error>,
    ) -> Result<(), Error> {
        self.run_blocking(kind, 1, |batch, _| batch.add_bare(offset, len, check)).all()
    }

    fn run_blocking(
        &self,
        kind: OpKind,
        transfers: usize,
        fill: impl FnOnce(&mut batch::Batch, &Geometry),
    ) -> BatchResult {
        if transfers == 0 {
            return BatchResult::default();
        }
        let refused = |error| BatchResult::refused(&error, transfers);
        self.try_run(kind, transfers, fill).unwrap_or_else(refused)
    }

    /// Borrows a lane, lets `fill` put the batch into it, and runs it to its end.
    ///
    /// # Errors
    /// When nothing was started.
    fn try_run(
        &self,
        kind: OpKind,
        transfers: usize,
        fill: impl FnOnce(&mut batch::Batch, &Geometry),
    ) -> Result<BatchResult, Error> {
        let mut lane = self.try_lend(kind, transfers)?;
        fill(&mut lane.batch, self.geometry());
        lane.run_borrowed(&*self.pool.backend, Patience::Unlimited, |_| {});
        Ok(BatchResult(lane.batch.take_results(&*self.pool.backend)))
    }

    /// Borrows a lane with an empty batch.
    ///
    /// # Errors
    /// When no batch may be started.
    fn try_lend(&self, kind: OpKind, transfers: usize) -> Result<Lent, Error> {
        self.check_batch(kind, transfers)?;
        let mut lane = self.pool.lend()?;
        lane.batch.start(kind, transfers);
        Ok(lane)
    }

    /// Starts a batch of writes and returns at once.
    ///
    /// # Errors
    /// The batch comes back when it cannot be started: [`ErrorKind::Busy`] when too many tickets are
    /// out, [`ErrorKind::WritesStopped`] after a failed flush. A single transfer that breaks a rule is
    /// no reason: it has its own result.
    pub fn batched_write(&self, batch: Vec<OwnedTransfer>) -> Result<Ticket, Refused> {
        self.start_owned(OpKind::Write, batch)
    }

    /// Starts a batch of reads and returns at once.
    ///
    /// # Errors
    /// As [`batched_write`](Self::batched_write).
    pub fn batched_read(&self, batch: Vec<OwnedTransfer>) -> Result<Ticket, Refused> {
        self.start_owned(OpKind::Read, batch)
    }

    fn start_owned(&self, kind: OpKind, batch: Vec<OwnedTransfer>) -> Result<Ticket, Refused> {
        let lent = self.check_batch(kind, batch.len()).and_then(|()| self.pool.lend_to_ticket());
        let mut lane = match lent {
            Ok(lane) => lane,
            Err(error) => return Err(Refused { error, batch }),
        };
        lane.batch.start(kind, batch.len());
        lane.batch.add_owned(batch, self.geometry());
        lane.begin(&*self.pool.backend);
        let id = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        lane.advance(&*self.pool.backend, Patience::None);
        Ok(Ticket::new(id, lane))
    }

    /// Whether ops of this kind are accepted at all.
    ///
    /// # Errors
    /// For everything but reads, [`ErrorKind::PermissionDenied`] when the device was opened for reading
    /// alone, [`ErrorKind::WritesStopped`] when an earlier flush failed, by any dispatcher on the backend, or
    /// [writes were stopped](crate::backend::FlushState::stop_writes).
    pub fn check_accepted(&self, kind: OpKind) -> Result<(), Error> {
        let accepted = if kind == OpKind::Read {
            Ok(())
        } else if self.read_only {
            let rule = "it was opened read-only";
            Err(Error::new(ErrorKind::PermissionDenied, kind.name(), rule))
        } else {
            self.pool.backend.flush_state().check(kind)
        };
        accepted.map_err(|error| error.on(self.pool.backend.name()))
    }

    /// Whether a batch may be started at all.
    fn check_batch(&self, kind: OpKind, transfers: usize) -> Result<(), Error> {
        if transfers > Self::MAX_BATCH {
            let rule = format!(
                "a batch of {transfers} transfers exceeds the maximum of {}: split it",
                Self::MAX_BATCH
            );
            let refused = Error::new(ErrorKind::InvalidInput, kind.name(), rule);
            return Err(refused.on(self.pool.backend.name()));
        }
        self.check_accepted(kind)
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("engine", &self.pool.backend.engine())
            .field("device", &self.pool.backend.name())
            .field("geometry", self.geometry())
            .finish_non_exhaustive()
    }
}

//! Batches over borrowed memory: the call returns when the batch has completed.

use super::dispatcher::Dispatcher;
use super::lane::WaitMode;
use super::result::BatchResult;
use crate::backend::{OpKind, Transfer};
use crate::{Error, ReadAt, WriteAt};

impl Dispatcher {
    /// Writes a batch, and returns when it has completed.
    ///
    /// The writes are not durable until a later [`flush`](Self::flush). A batch has no order: of
    /// writes that overlap, all but one are refused.
    pub fn write_buffers<const N: usize>(&self, batch: &[WriteAt<'_, N>]) -> BatchResult {
        self.run(batch)
    }

    /// Reads a batch, and returns when it has completed.
    ///
    /// After a failed read the contents of its memory are unspecified.
    pub fn read_buffers<const N: usize>(&self, batch: &mut [ReadAt<'_, N>]) -> BatchResult {
        self.run(batch)
    }

    /// Runs a batch from its first op to its last completion.
    fn run<T: Transfer>(&self, batch: &[T]) -> BatchResult {
        if batch.is_empty() {
            return BatchResult::default();
        }
        let mut lane = match self.lane(T::KIND, batch.len()) {
            Ok(lane) => lane,
            Err(error) => return BatchResult::refused(&error, batch.len()),
        };
        let backend = &*self.pool.backend;
        // SAFETY: the transfers borrow their memory, reads exclusively (only `read_buffers` calls
        // this with reads, and it borrows them mutably), until this returns or unwinds. Either
        // happens only when the batch is released: `drive` waits for that, and so does the drop of
        // an unfinished lane.
        unsafe { lane.batch.requests.add_borrowed(batch, self.geometry()) };
        lane.begin(backend);
        lane.drive(backend, WaitMode::All);
        BatchResult(lane.batch.take_results(backend))
    }

    /// Starts a batch of writes, calls `work` while the device writes, and returns when the batch
    /// has completed.
    ///
    /// `work` is called once, also if the batch is empty or refused. It may read the memory of the
    /// batch, and may call this dispatcher as in [`read_buffers_with`](Self::read_buffers_with). A
    /// flush in it does not cover this batch.
    ///
    /// A batch that exceeds [`queue_depth`](crate::DispatcherOptions::queue_depth), or the staging
    /// memory of one wave, is started in part; the rest follows after `work`. A backend without
    /// asynchronous I/O, such as [`MemoryBackend`](crate::MemoryBackend), writes before or after
    /// `work`. Starting costs a ring one system call more than
    /// [`write_buffers`](Self::write_buffers). The latencies in the [statistics](Self::stats)
    /// include the time of `work`.
    ///
    /// # Panics
    /// When `work` does, after every write that was started has completed.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use raw_block_core::{Dispatcher, MemoryBackend, WriteAt};
    ///
    /// let dispatcher = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
    /// let bytes = [7; 4096];
    /// let (written, sum) = dispatcher.write_buffers_while(&[WriteAt::new(0, &bytes)], || {
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
        let mut lane = match self.lane(OpKind::Write, batch.len()) {
            Ok(lane) => lane,
            Err(error) => return (BatchResult::refused(&error, batch.len()), work()),
        };
        let backend = &*self.pool.backend;
        // SAFETY: the transfers borrow their memory until this returns or unwinds, also by a panic
        // of `work`: as in `run`, only when the batch is released.
        unsafe { lane.batch.requests.add_borrowed(batch, self.geometry()) };
        lane.begin_and_start(backend);
        let worked = work();
        lane.drive(backend, WaitMode::All);
        (BatchResult(lane.batch.take_results(backend)), worked)
    }

    /// Reads a batch, calls `each` once for every transfer, and returns when all of it has
    /// completed.
    ///
    /// `each` gets the index of the transfer in the batch, and its segments or the error. The order
    /// is unspecified. In a long batch, `each` is called for the transfers that have completed
    /// while the others are in flight, so the caller's work on the bytes overlaps with I/O. It is
    /// one submission like [`read_buffers`](Self::read_buffers), and more waits.
    ///
    /// `each` may call this dispatcher. If all queues are in use, such a call opens another one and
    /// closes it at its end, because to wait for one could be a deadlock.
    ///
    /// # Panics
    /// When `each` does, after everything in flight has completed.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use raw_block_core::{Dispatcher, MemoryBackend, ReadAt};
    ///
    /// let dispatcher = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
    /// let (mut first, mut second) = ([1; 512], [1; 512]);
    /// let mut batch = [ReadAt::new(0, &mut first), ReadAt::new(512, &mut second)];
    /// let mut zeroes = 0;
    /// dispatcher.read_buffers_with(&mut batch, |_, read| {
    ///     zeroes += read.unwrap()[0].iter().filter(|&&byte| byte == 0).count();
    /// });
    /// assert_eq!(zeroes, 1024);
    /// # Ok::<(), raw_block_core::Error>(())
    /// ```
    pub fn read_buffers_with<const N: usize>(
        &self,
        batch: &mut [ReadAt<'_, N>],
        mut each: impl FnMut(usize, Result<[&mut [u8]; N], Error>),
    ) {
        if batch.is_empty() {
            return;
        }
        let mut lane = match self.lane(OpKind::Read, batch.len()) {
            Ok(lane) => lane,
            Err(error) => return (0..batch.len()).for_each(|at| each(at, Err(error.clone()))),
        };
        let backend = &*self.pool.backend;
        // SAFETY: `batch` and the memory that it names are borrowed mutably until this returns or
        // unwinds, also by a panic of `each`: as in `run`, only when the batch is released. Until
        // then only `each` accesses the memory, and only that of finished requests, of which no op
        // is left.
        unsafe { lane.batch.requests.add_borrowed(batch, self.geometry()) };
        lane.begin(backend);
        loop {
            let completed = lane.drive(backend, WaitMode::Part);
            for index in lane.batch.finished.drain(..) {
                let index = index as usize;
                each(index, Ok(batch[index].segments_mut()));
            }
            if completed {
                break;
            }
        }
        let results = lane.batch.take_results(backend);
        drop(lane);
        for (index, result) in results.into_iter().enumerate() {
            if let Err(error) = result {
                each(index, Err(error));
            }
        }
    }
}

//! Ops without memory: flush, discard, write-zeroes.

use super::dispatcher::Dispatcher;
use super::lane::WaitMode;
use super::pool::{LaneGuard, LanePool};
use super::result::BatchResult;
use crate::backend::OpKind;
use crate::{Error, ErrorKind};

impl Dispatcher {
    /// Makes durable every write that completed before this call.
    ///
    /// One flush is in flight at a time on each backend. Callers that arrive in the meantime, on
    /// any dispatcher on the backend, share the next one (group commit).
    ///
    /// # Errors
    /// Those of the device. After a failed flush it is unknown what is durable, so every dispatcher
    /// on the backend refuses writes with [`ErrorKind::WritesStopped`] until the device is opened
    /// again. A flush that was not started stops no writes: its error is of class
    /// [`ErrorClass::NotStarted`](crate::ErrorClass::NotStarted).
    pub fn flush(&self) -> Result<(), Error> {
        // In a forked child the lock of the flush state may have no owner.
        self.pool.check_process()?;
        self.check_accepted(OpKind::Flush)?;
        let backend = &*self.pool.backend;
        let prepare = || self.lane(OpKind::Flush, 1);
        let flush = |lane| self.run_bare(lane, 0, 0, Ok(()));
        let holds_lane = LanePool::lends_to_this_thread();
        let result = backend.flush_state().flush(backend.stats(), holds_lane, prepare, flush);
        result.map_err(|mut error| {
            error.name_backend(backend.name());
            error
        })
    }

    /// Discards `len` bytes from byte `offset` on: the device may forget them. Until they are
    /// written again, a read of them returns arbitrary bytes.
    ///
    /// Like a write, a discard is not durable until a later [`flush`](Self::flush). The device may
    /// ignore it. The range may be of any length: the kernel, or the backend of NVMe passthrough,
    /// splits it into commands. Returns when the device has executed all of them, which may take
    /// seconds.
    ///
    /// In a [regular file](crate::Geometry::regular_file) the range becomes a hole: its space
    /// returns to the file system, so a later write may fail with [`ErrorKind::NoSpace`]. To keep
    /// the space, use [`write_zeroes`](Self::write_zeroes), which keeps it on file systems that can
    /// zero a range of a file, such as ext4 and XFS, and makes a hole on others.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the device has no such operation, those of
    /// [`Geometry::check_range`](crate::Geometry::check_range), and those of the device.
    pub fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.change_range(OpKind::Discard, self.geometry().discard, offset, len)
    }

    /// Makes `len` bytes from byte `offset` on read as zeroes, without transferring them.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.change_range(OpKind::WriteZeroes, self.geometry().write_zeroes, offset, len)
    }

    fn change_range(
        &self,
        kind: OpKind,
        supported: bool,
        offset: u64,
        len: u64,
    ) -> Result<(), Error> {
        let lane = self.lane(kind, 1)?;
        let check = if supported {
            self.geometry().check_range(kind, offset, len)
        } else {
            let rule = "the device has no such operation";
            Err(Error::new(ErrorKind::Unsupported, kind.name(), rule).at(offset, len))
        };
        self.run_bare(lane, offset, len, check)
    }

    fn run_bare(
        &self,
        mut lane: LaneGuard,
        offset: u64,
        len: u64,
        check: Result<(), Error>,
    ) -> Result<(), Error> {
        let backend = &*self.pool.backend;
        lane.batch.requests.add_bare(offset, len, check);
        lane.begin(backend);
        lane.drive(backend, WaitMode::All);
        BatchResult(lane.batch.take_results(backend)).all()
    }
}

//! The dispatcher: its backend, its lanes, and what it accepts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::driver::Driver;
use super::options::DispatcherOptions;
use super::pool::{LaneGuard, LanePool};
use crate::backend::{IoBackend, OpKind};
use crate::{AlignedBuf, Error, ErrorKind, Geometry, StatsSnapshot};

/// Moves batches between memory and one device.
///
/// Each call takes a batch of transfers, checks them against the [`Geometry`], stages unaligned
/// memory, merges neighbours, and submits everything to one queue of the backend at once. Each
/// transfer has its own result.
///
/// Threads share a dispatcher by reference. Each call has a queue to itself, so threads do not wait
/// for each other's transfers.
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
    pub(super) pool: Arc<LanePool>,
    pub(super) driver: Driver,
    /// Whether only reads are accepted.
    read_only: bool,
    pub(super) last_ticket: AtomicU64,
}

impl Dispatcher {
    /// The most transfers that one batch may have.
    pub const MAX_BATCH: usize = 1 << 24;

    /// A dispatcher over `backend`, with default options. Opens no queue yet.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the device requires a larger alignment of memory than
    /// [`AlignedBuf::ALIGNMENT`], one of its alignments is not a power of two, or it is larger than
    /// [`Geometry::MAX_CAPACITY`].
    pub fn new(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        Self::with_options(backend, DispatcherOptions::new())
    }

    /// A dispatcher over `backend` that accepts only reads, also if the device accepts writes.
    /// Opens no queue yet.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn read_only(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        let mut dispatcher = Self::new(backend)?;
        dispatcher.read_only = true;
        Ok(dispatcher)
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
                format!("the backend reports an invalid geometry: {geometry:?}"),
            );
        }
        let pool = Arc::new(LanePool::new(backend, geometry, queue_depth, max_queues));
        Ok(Self {
            driver: Driver::new(&pool, queue_depth),
            pool,
            read_only: geometry.read_only,
            last_ticket: AtomicU64::new(0),
        })
    }

    /// The backend.
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

    /// Checks that ops of this kind are accepted.
    ///
    /// # Errors
    /// For everything but reads, [`ErrorKind::PermissionDenied`] when the device was opened
    /// read-only, [`ErrorKind::WritesStopped`] when an earlier flush failed, by any dispatcher on
    /// the backend, or [writes were stopped](crate::backend::FlushState::stop_writes).
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

    /// Checks that a batch may be started.
    pub(super) fn check_batch(&self, kind: OpKind, transfers: usize) -> Result<(), Error> {
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

    /// Takes a lane for a batch of `transfers`, and empties it.
    ///
    /// # Errors
    /// When no batch may be started.
    pub(super) fn lane(&self, kind: OpKind, transfers: usize) -> Result<LaneGuard, Error> {
        self.check_batch(kind, transfers)?;
        let mut lane = self.pool.lend()?;
        lane.batch.start(kind, transfers);
        Ok(lane)
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

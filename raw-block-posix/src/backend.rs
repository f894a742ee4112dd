//! The backend.

use std::path::Path;
use std::sync::Arc;

use raw_block_core::backend::{DeviceFile, FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::{Direct, Error, ErrorKind, Geometry};

use crate::options::PosixOptions;
use crate::queue::PosixQueue;
use crate::thread_pool::ThreadPool;

/// The most threads of a backend.
const MAX_THREADS: usize = 1024;

/// A file or block device, read and written by blocking system calls.
///
/// # Examples
/// ```
/// use raw_block_posix::{ErrorKind, PosixBackend, PosixOptions};
///
/// let error = PosixBackend::open("/no/such/device", &PosixOptions::new()).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
///
/// let file = tempfile::NamedTempFile::new()?;
/// file.as_file().set_len(1 << 20)?;
/// let serial = PosixBackend::open(file.path(), &PosixOptions::new().threads(1))?;
/// assert_eq!(serial.threads(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PosixBackend {
    pool: Arc<ThreadPool>,
    stats: Arc<Stats>,
    flush_state: FlushState,
    threads: usize,
}

impl PosixBackend {
    /// Opens the regular file or block device at `path`, and holds it exclusively. Writes nothing,
    /// and starts no thread.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`]: the options ask for 0 threads or for more than 1024, or the
    ///   device is smaller than one block.
    /// - [`ErrorKind::NotFound`]: nothing is at `path`.
    /// - [`ErrorKind::PermissionDenied`]: the device is not readable and writable for this user.
    /// - [`ErrorKind::Busy`]: the device is mounted or open elsewhere, longer than
    ///   [`DeviceFile::open`] waits.
    /// - [`ErrorKind::Unsupported`]: `path` is neither a regular file nor a block device, or the
    ///   options have [`Direct::Required`] and the file system has no `O_DIRECT`.
    pub fn open(path: impl AsRef<Path>, options: &PosixOptions) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), options, |path, direct| DeviceFile::open(path, direct))
    }

    /// Opens the regular file or block device at `path` read-only, which needs no write permission.
    /// See [`DeviceFile::open_read_only`].
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_read_only(path: impl AsRef<Path>, options: &PosixOptions) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), options, |path, direct| {
            DeviceFile::open_read_only(path, direct)
        })
    }

    fn open_with(
        path: &Path,
        options: &PosixOptions,
        open: impl FnOnce(&Path, Direct) -> Result<DeviceFile, Error>,
    ) -> Result<Self, Error> {
        let PosixOptions { direct, threads } = *options;
        if threads == 0 || threads > MAX_THREADS {
            let rule = format!("{threads} threads are out of range: choose 1 to {MAX_THREADS}");
            let device = path.display().to_string();
            return Err(Error::new(ErrorKind::InvalidInput, "open", rule).on(device));
        }
        let device = open(path, direct)?;
        let pool = Arc::new(ThreadPool::new(device, threads - 1));
        Ok(Self { pool, stats: Arc::default(), flush_state: FlushState::new(), threads })
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.pool.device().is_direct()
    }

    /// The number of transfers that run in parallel, as set in the options.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl IoBackend for PosixBackend {
    fn engine(&self) -> &'static str {
        "posix"
    }

    fn name(&self) -> &str {
        self.pool.device().path()
    }

    fn geometry(&self) -> &Geometry {
        self.pool.device().geometry()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    /// Never fails, and starts no thread.
    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let queue = PosixQueue::new(Arc::clone(&self.pool), Arc::clone(&self.stats), depth);
        Ok(Box::new(queue))
    }
}

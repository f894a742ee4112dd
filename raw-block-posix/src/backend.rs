//! The backend.

use std::path::Path;
use std::sync::Arc;

use raw_block_core::backend::{DeviceFile, FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::{Direct, Error, ErrorKind, Geometry};

use crate::options::PosixOptions;
use crate::queue::PosixQueue;
use crate::workers::Workers;

/// The most threads that a backend takes.
const MAX_THREADS: usize = 1024;

/// A file or block device whose transfers are blocking system calls.
///
/// # Examples
/// ```
/// use raw_block_core::ErrorKind;
/// use raw_block_core::backend::IoBackend;
/// use raw_block_posix::{PosixBackend, PosixOptions};
///
/// let error = PosixBackend::open("/no/such/device", &PosixOptions::new()).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// ```
#[derive(Debug)]
pub struct PosixBackend {
    workers: Arc<Workers>,
    stats: Arc<Stats>,
    flush_state: FlushState,
    threads: usize,
}

impl PosixBackend {
    /// Opens the regular file or block device at `path`, and holds it exclusively.
    ///
    /// Nothing is written, and no thread is started.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`]: the options ask for no thread or for more than 1024, or the
    ///   device is smaller than one block.
    /// - [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`]: as the system says. It has to be
    ///   readable and writable.
    /// - [`ErrorKind::Busy`]: it is mounted, or open elsewhere, for as long as [`DeviceFile::open`] waits.
    /// - [`ErrorKind::Unsupported`]: it is neither a regular file nor a block device, or the file
    ///   system has no `O_DIRECT` and [`Direct::Required`] asks for it.
    pub fn open(path: impl AsRef<Path>, options: &PosixOptions) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), options, |path, direct| DeviceFile::open(path, direct))
    }

    /// Opens the regular file or block device at `path` read-only, which takes no permission to
    /// write. See [`DeviceFile::open_read_only`].
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
            let rule = format!("{threads} threads were asked for; it can be 1 to {MAX_THREADS}");
            let device = path.display().to_string();
            return Err(Error::new(ErrorKind::InvalidInput, "open", rule).on(device));
        }
        let device = open(path, direct)?;
        let workers = Arc::new(Workers::new(device, threads - 1));
        Ok(Self { workers, stats: Arc::default(), flush_state: FlushState::new(), threads })
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.workers.device().is_direct()
    }

    /// How many transfers run at once, as the options asked for.
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
        self.workers.device().path()
    }

    fn geometry(&self) -> &Geometry {
        self.workers.device().geometry()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    /// Never fails: a queue is a list. It takes no thread before it has ops.
    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let queue = PosixQueue::new(Arc::clone(&self.workers), Arc::clone(&self.stats), depth);
        Ok(Box::new(queue))
    }
}

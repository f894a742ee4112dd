//! The backend.

use std::path::Path;
use std::sync::Arc;

use raw_block_core::{
    DeviceFile, Direct, Error, ErrorKind, Geometry, IoBackend, IoQueue, Stats,
};

use crate::queue::PosixQueue;
use crate::workers::Workers;

/// The most threads that a backend takes.
const MAX_THREADS: usize = 1024;

/// How a [`PosixBackend`] opens and uses its device.
#[derive(Clone, Copy, Debug)]
pub struct PosixOptions {
    /// Whether transfers bypass the page cache.
    pub direct: Direct,
    /// How many transfers run at once, over all queues of the backend.
    pub threads: usize,
}

impl Default for PosixOptions {
    fn default() -> Self {
        Self { direct: Direct::default(), threads: 32 }
    }
}

/// An open file.
#[derive(Debug)]
pub struct PosixBackend {
    workers: Arc<Workers>,
    threads: usize,
}

impl PosixBackend {
    /// Opens
    /// # Errors
    /// todo
    pub fn open(path: impl AsRef<Path>, options: &PosixOptions) -> Result<Self, Error> {
        let PosixOptions { direct, threads } = *options;
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "open",
                format!("{threads} threads: it takes 1 to {MAX_THREADS}"),
            )
            .on(path.as_ref().display().to_string()));
        }
        let device = DeviceFile::open(path, direct)?;
        Ok(Self { workers: Arc::new(Workers::new(device, threads - 1)), threads })
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.workers.device().is_direct()
    }

    /// threads
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl IoBackend for PosixBackend {
    fn engine(&self) -> &'static str {
        "posix"
    }

    fn device(&self) -> &str {
        self.workers.device().path()
    }

    fn geometry(&self) -> &Geometry {
        self.workers.device().geometry()
    }

    fn stats(&self) -> &Stats {
        &self.workers.stats
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(PosixQueue::new(Arc::clone(&self.workers), depth)))
    }
}

//! The backend and its options.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use raw_block_core::{Arena, DeviceFile, Direct, Error, Geometry, IoBackend, IoQueue, Stats};

use crate::device::Device;
use crate::queue::UringQueue;
use crate::setup::GrantedFlags;

/// How a [`UringBackend`] opens its device.
#[derive(Clone, Copy, Debug, Default)]
pub struct UringOptions {
    /// Whether transfers bypass the page cache.
    pub direct: Direct,
}

/// A file or block device, read and written through io_uring.
///
/// Needs Linux 5.13; newer kernels make it faster. See the [crate](crate) for an example.
pub struct UringBackend(Arc<Device>);

impl UringBackend {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// Those of [`DeviceFile::open`], and those of [`probe`](crate::probe) where io_uring itself is
    /// refused.
    pub fn open(path: impl AsRef<Path>, options: &UringOptions) -> Result<Self, Error> {
        let file = DeviceFile::open(path, options.direct)?;
        Ok(Self(Arc::new(Device::new(file)?)))
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.0.file().is_direct()
    }

    /// The setup flags that the kernel granted the rings.
    #[must_use]
    pub fn granted_flags(&self) -> GrantedFlags {
        self.0.granted_flags()
    }
}

impl IoBackend for UringBackend {
    fn engine(&self) -> &'static str {
        "uring"
    }

    fn device(&self) -> &str {
        self.0.path()
    }

    fn geometry(&self) -> &Geometry {
        self.0.file().geometry()
    }

    fn stats(&self) -> &Stats {
        self.0.stats()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(UringQueue::open(Arc::clone(&self.0), depth)?))
    }

    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        self.0.register(arena)
    }
}

impl fmt::Debug for UringBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringBackend")
            .field("file", self.0.file())
            .field("granted_flags", &self.0.granted_flags())
            .finish_non_exhaustive()
    }
}

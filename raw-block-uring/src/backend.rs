//! The backend and its options.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use raw_block_core::{Arena, DeviceFile, Direct, Error, Geometry, IoBackend, IoQueue, Stats};

use crate::device::RingDevice;
use crate::kernel::Linux;
use crate::queue::UringQueue;
use crate::setup::GrantedFlags;
use crate::width::Standard;

/// How a [`UringBackend`] opens its device.
#[derive(Clone, Copy, Debug, Default)]
pub struct UringOptions {
    /// Whether transfers bypass the page cache.
    pub direct: Direct,
    /// Lets a thread of the kernel, one for the device, look for submissions (`SQPOLL`), so that starting
    /// a batch takes no system call while the thread is awake. It keeps a processor busy, and falls
    /// asleep when there was nothing to do for this long, in whole milliseconds. Before Linux 5.11 that
    /// takes privileges.
    pub kernel_polling: Option<Duration>,
}

/// A file or block device, read and written through io_uring.
///
/// Needs Linux 5.13; newer kernels make it faster. See the [crate](crate) for an example.
pub struct UringBackend {
    file: Arc<DeviceFile>,
    rings: Arc<RingDevice>,
}

/// The open file, kept by the rings as well.
struct Shared(Arc<DeviceFile>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl UringBackend {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// Those of [`DeviceFile::open`], and those of [`probe`](crate::probe) where io_uring itself is
    /// refused; [`ErrorKind::InvalidInput`](raw_block_core::ErrorKind::InvalidInput) or
    /// [`ErrorKind::PermissionDenied`](raw_block_core::ErrorKind::PermissionDenied) where it cannot poll
    /// as the options ask.
    pub fn open(path: impl AsRef<Path>, options: &UringOptions) -> Result<Self, Error> {
        Self::on(DeviceFile::open(path, options.direct)?, options)
    }

    /// Opens the device at `path` for reading alone, which takes no permission to write. See
    /// [`DeviceFile::open_read_only`].
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_read_only(path: impl AsRef<Path>, options: &UringOptions) -> Result<Self, Error> {
        Self::on(DeviceFile::open_read_only(path, options.direct)?, options)
    }

    fn on(file: DeviceFile, options: &UringOptions) -> Result<Self, Error> {
        let file = Arc::new(file);
        let shared = Shared(Arc::clone(&file));
        let rings = Arc::new(RingDevice::new(shared, file.path(), options.kernel_polling)?);
        Ok(Self { file, rings })
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    /// The setup flags that the kernel granted the rings.
    #[must_use]
    pub fn granted_flags(&self) -> GrantedFlags {
        self.rings.granted_flags()
    }

    /// Whether transfers of several segments can use registered memory (Linux 6.15).
    #[must_use]
    pub fn serves_vectored_fixed(&self) -> bool {
        self.rings.serves_vectored_fixed()
    }
}

impl IoBackend for UringBackend {
    fn engine(&self) -> &'static str {
        "uring"
    }

    fn device(&self) -> &str {
        self.file.path()
    }

    fn geometry(&self) -> &Geometry {
        self.file.geometry()
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, rings) = (Arc::clone(&self.file), Arc::clone(&self.rings));
        Ok(Box::new(UringQueue::<Standard>::open(file, rings, depth, Linux)?))
    }

    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        self.rings.register(arena)
    }

    fn unregister(&self, arena: &Arc<Arena>) {
        self.rings.unregister(arena);
    }
}

impl fmt::Debug for UringBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringBackend")
            .field("file", &self.file)
            .field("granted_flags", &self.granted_flags())
            .finish_non_exhaustive()
    }
}

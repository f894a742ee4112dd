//! The backend.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use raw_block_core::backend::{Arena, FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::{Error, Geometry};
use raw_block_uring::ring::{Linux, RingDevice};

use crate::device::NvmeDevice;
use crate::identify::{Controller, Namespace};
use crate::options::NvmeOptions;
use crate::placement::{self, ReclaimUnitHandle};
use crate::polling;
use crate::queue::NvmeQueue;

/// An NVMe namespace, read and written by NVMe commands that bypass the kernel's block layer.
///
/// Needs Linux 5.19, and before 6.2 the capability `CAP_SYS_ADMIN`.
///
/// # Examples
/// ```no_run
/// use std::sync::Arc;
/// use raw_block_nvme::{Dispatcher, NvmeBackend, NvmeOptions};
///
/// let backend = NvmeBackend::open("/dev/ng0n1", &NvmeOptions::new())?;
/// println!("{} {}", backend.controller().model, backend.controller().firmware);
/// let dispatcher = Dispatcher::new(Arc::new(backend))?;
/// # Ok::<(), raw_block_nvme::Error>(())
/// ```
pub struct NvmeBackend {
    device: Arc<NvmeDevice>,
    rings: Arc<RingDevice>,
    name: Arc<str>,
}

impl NvmeBackend {
    /// Opens the namespace whose character device (`/dev/ngXnY`) is at `path`. Opening writes
    /// nothing.
    ///
    /// The block device of the same namespace is held exclusively while there are queues, so
    /// neither it nor its partitions can be mounted. After `SIGKILL` it is held until the last
    /// command of the process has completed; opening waits for that as [`DeviceFile::open`] does.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: nothing is at `path`.
    /// - [`ErrorKind::PermissionDenied`]: the system refuses access, the namespace is
    ///   write-protected, or its block device is read-only.
    /// - [`ErrorKind::Busy`]: the block device is mounted, or another process holds it.
    /// - [`ErrorKind::Unsupported`]: `path` is no NVMe namespace; or its format has metadata, or
    ///   its command set is not the NVM command set; or its block device cannot be held; or the
    ///   kernel is older than 5.19; or the options ask for completion polling, and the driver or
    ///   the kernel cannot poll.
    /// - [`ErrorKind::Misaligned`], [`ErrorKind::OutOfRange`], [`ErrorKind::InvalidInput`]: the
    ///   options do not fit the namespace.
    ///
    /// [`DeviceFile::open`]: raw_block_core::backend::DeviceFile::open
    /// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
    /// [`ErrorKind::PermissionDenied`]: crate::ErrorKind::PermissionDenied
    /// [`ErrorKind::Busy`]: crate::ErrorKind::Busy
    /// [`ErrorKind::Unsupported`]: crate::ErrorKind::Unsupported
    /// [`ErrorKind::Misaligned`]: crate::ErrorKind::Misaligned
    /// [`ErrorKind::OutOfRange`]: crate::ErrorKind::OutOfRange
    /// [`ErrorKind::InvalidInput`]: crate::ErrorKind::InvalidInput
    pub fn open(path: impl AsRef<Path>, options: &NvmeOptions) -> Result<Self, Error> {
        Self::open_for(path.as_ref(), options, false)
    }

    /// Opens the namespace read-only, which needs no write permission, and keeps writers out while
    /// it is open. The namespace may be write-protected.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), except those for write protection.
    pub fn open_read_only(path: impl AsRef<Path>, options: &NvmeOptions) -> Result<Self, Error> {
        Self::open_for(path.as_ref(), options, true)
    }

    fn open_for(path: &Path, options: &NvmeOptions, read_only: bool) -> Result<Self, Error> {
        let name: Arc<str> = path.display().to_string().into();
        let device = NvmeDevice::open(path, options, read_only);
        let device = Arc::new(device.map_err(|error| error.on(Arc::clone(&name)))?);
        let mut rings = RingDevice::new(Arc::clone(&device), &name, None)?;
        if options.completion_polling {
            rings = rings.polling_completions()?;
        }
        let rings = Arc::new(rings.holding(Arc::clone(&device.claim)));
        if options.completion_polling {
            let polled = polling::check_kernel(&rings, &device.translator);
            polled.map_err(|error| error.on(Arc::clone(&name)))?;
        }
        Ok(Self { device, rings, name })
    }

    /// What the controller reports about itself.
    #[must_use]
    pub fn controller(&self) -> &Controller {
        &self.device.controller
    }

    /// What the namespace reports about itself.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.device.namespace
    }

    /// The block device of the same namespace (`/dev/nvmeXnY`), which is held while there are
    /// queues. `None` if it has no node.
    #[must_use]
    pub fn block_device(&self) -> Option<&Path> {
        self.device.block_device.as_deref()
    }

    /// The reclaim unit handles of the namespace when it was opened; none without flexible data
    /// placement.
    #[must_use]
    pub fn reclaim_unit_handles(&self) -> &[ReclaimUnitHandle] {
        &self.device.handles
    }

    /// Converts a placement identifier, as `nvme fdp status` prints it, to a placement handle for
    /// [`WriteOptions::placement`](raw_block_core::WriteOptions::placement). `None` if the
    /// namespace may not use it.
    ///
    /// # Examples
    /// ```no_run
    /// use raw_block_nvme::{NvmeBackend, NvmeOptions, WriteOptions};
    ///
    /// let backend = NvmeBackend::open("/dev/ng0n1", &NvmeOptions::new())?;
    /// let placement = backend.placement_of(3);
    /// assert!(placement.is_some(), "the namespace has no placement identifier 3");
    /// let options = WriteOptions::new().placement(placement);
    /// # Ok::<(), raw_block_nvme::Error>(())
    /// ```
    #[must_use]
    pub fn placement_of(&self, placement_id: u16) -> Option<u16> {
        placement::index_of(&self.device.handles, placement_id)
    }
}

impl IoBackend for NvmeBackend {
    fn engine(&self) -> &'static str {
        "nvme"
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn geometry(&self) -> &Geometry {
        &self.device.geometry
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.rings.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (device, rings) = (Arc::clone(&self.device), Arc::clone(&self.rings));
        Ok(Box::new(NvmeQueue::open(device, rings, depth, Linux)?))
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (device, rings) = (Arc::clone(&self.device), Arc::clone(&self.rings));
        Ok(Box::new(NvmeQueue::open_local(device, rings, depth, Linux)?))
    }

    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        self.rings.register(arena)
    }

    fn unregister(&self, arena: &Arc<Arena>) {
        self.rings.unregister(arena);
    }
}

impl Drop for NvmeBackend {
    /// Unregisters all memory, because queues may outlive the backend.
    fn drop(&mut self) {
        self.rings.unregister_all();
    }
}

impl fmt::Debug for NvmeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvmeBackend")
            .field("name", &self.name)
            .field("namespace", &self.device.namespace)
            .field("geometry", &self.device.geometry)
            .finish_non_exhaustive()
    }
}

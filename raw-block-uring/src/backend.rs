//! The device behind the rings.

use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_uring::IoUring;
use raw_block_core::{
    Arena, DeviceFile, Direct, Error, ErrorKind, Geometry, IoBackend, IoQueue, Stats,
};

use crate::queue::UringQueue;
use crate::regions::Regions;
use crate::setup::{self, GrantedFlags};

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
        let (template, granted) = setup::ring(1).map_err(|error| error.on(file.path()))?;
        Ok(Self(Arc::new(Device {
            template: Mutex::new(Template {
                ring: ManuallyDrop::new(template),
                process: std::process::id(),
                arenas: Vec::new(),
            }),
            generation: AtomicU64::new(0),
            granted,
            stats: Stats::new(),
            file,
        })))
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.0.file.is_direct()
    }

    /// The setup flags that the kernel granted the rings.
    #[must_use]
    pub fn granted_flags(&self) -> GrantedFlags {
        self.0.granted
    }
}

impl IoBackend for UringBackend {
    fn engine(&self) -> &'static str {
        "uring"
    }

    fn device(&self) -> &str {
        self.0.file.path()
    }

    fn geometry(&self) -> &Geometry {
        self.0.file.geometry()
    }

    fn stats(&self) -> &Stats {
        &self.0.stats
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
            .field("file", &self.0.file)
            .field("granted_flags", &self.0.granted)
            .finish_non_exhaustive()
    }
}

/// What the queues of one backend share.
pub(crate) struct Device {
    template: Mutex<Template>,
    /// Grows with every change of the registered memory.
    generation: AtomicU64,
    granted: GrantedFlags,
    stats: Stats,
    file: DeviceFile,
}

/// The registered memory, and a ring that does no I/O but holds the kernel's record of it, for other
/// rings to take over.
struct Template {
    /// Not dropped in a forked child, where something else may have its addresses.
    ring: ManuallyDrop<IoUring>,
    process: u32,
    /// Kept alive because the kernel writes to these pages, whatever their addresses mean by then.
    arenas: Vec<Arc<Arena>>,
}

impl Drop for Template {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            // SAFETY: the ring is not used any more: this is the drop of its only owner.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

impl Device {
    pub(crate) fn path(&self) -> &str {
        self.file.path()
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes the device the first registered file of a ring.
    pub(crate) fn register_file(&self, ring: &IoUring) -> Result<(), Error> {
        ring.submitter()
            .register_files(&[self.file.as_fd().as_raw_fd()])
            .map_err(|error| Error::os("register the device with a ring", error))
    }

    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        let mut template = self.template();
        template.arenas.push(arena);
        let result = register_buffers(&template.ring, &Regions::table(&template.arenas));
        if result.is_err() {
            template.arenas.pop();
            // What was granted before is granted again, or the queues do without.
            let _ = register_buffers(&template.ring, &Regions::table(&template.arenas));
        }
        self.generation.fetch_add(1, Ordering::Release);
        result.map_err(|error| {
            let described = Error::os("register memory", error).on(self.path());
            match described.kind() {
                ErrorKind::OutOfResources => described.because(
                    "the kernel pins no more pages for this user: raise RLIMIT_MEMLOCK; transfers work \
                     without registration",
                ),
                _ => described,
            }
        })
    }

    /// Gives a ring the registered memory as it is now, and returns what it got.
    pub(crate) fn regions_for(&self, ring: &IoUring) -> Regions {
        let template = self.template();
        let table = Regions::table(&template.arenas);
        let _ = ring.submitter().unregister_buffers();
        if table.is_empty() {
            return Regions::default();
        }
        // Linux 6.12 shares the record of the template; before, the ring makes one of its own.
        let registered = ring
            .submitter()
            .register_buffers_clone(template.ring.as_raw_fd())
            .or_else(|_| register_buffers(ring, &table));
        match registered {
            Ok(()) => Regions::of(&table),
            Err(error) => {
                tracing::warn!(device = self.path(), %error, "a queue works without registered memory");
                Regions::default()
            }
        }
    }

    fn template(&self) -> MutexGuard<'_, Template> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces a ring's table of registered buffers.
fn register_buffers(ring: &IoUring, table: &[libc::iovec]) -> std::io::Result<()> {
    let _ = ring.submitter().unregister_buffers();
    if table.is_empty() {
        return Ok(());
    }
    // SAFETY: the table names memory of arenas that the device keeps alive; the queues keep the device
    // alive, and it drops the template ring before the arenas.
    unsafe { ring.submitter().register_buffers(table) }
}

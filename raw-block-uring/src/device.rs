//! What the queues of one backend share: the open device and its registered memory.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_uring::IoUring;
use raw_block_core::{Arena, DeviceFile, Error, ErrorKind, Stats};

use crate::regions::Regions;
use crate::setup::{self, GrantedFlags};

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
    pub(crate) fn new(file: DeviceFile) -> Result<Self, Error> {
        let (ring, granted) = setup::ring(1).map_err(|error| error.on(file.path()))?;
        let template = Template {
            ring: ManuallyDrop::new(ring),
            process: std::process::id(),
            arenas: Vec::new(),
        };
        Ok(Self {
            template: Mutex::new(template),
            generation: AtomicU64::new(0),
            granted,
            stats: Stats::new(),
            file,
        })
    }

    pub(crate) fn file(&self) -> &DeviceFile {
        &self.file
    }

    pub(crate) fn path(&self) -> &str {
        self.file.path()
    }

    pub(crate) fn granted_flags(&self) -> GrantedFlags {
        self.granted
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

    /// See [`IoBackend::register`](raw_block_core::IoBackend::register).
    pub(crate) fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
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

//! The state that the rings of one backend share: the open device and its registered memory.

use std::fmt;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};
use raw_block_core::backend::{Arena, FlushState, Stats};
use raw_block_core::{Error, ErrorKind};

use crate::ring::buffer_table::{self, BufferTable};
use crate::ring::flags::{GrantedFlags, SubmissionPolling, Usage};
use crate::ring::regions::RegisteredRegions;
use crate::ring::setup;
use crate::ring::width::{RawRing, Standard, Width};

/// The state that the rings of one backend share.
///
/// It has its own ring, the template, which does no I/O. The template holds the kernel's record of
/// the registered memory, which the other rings clone, and the kernel's polling thread, if there is
/// one.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use raw_block_uring::ring::RingDevice;
///
/// let device = RingDevice::new(tempfile::tempfile()?, "example", None)?;
/// assert!(device.granted_flags().names().all(|name| name != "SQPOLL"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RingDevice {
    template: Mutex<Template>,
    /// The process that made the rings.
    process: u32,
    /// Incremented by each change of the registered memory.
    generation: AtomicU64,
    usage: Usage,
    granted: GrantedFlags,
    granted_locally: GrantedFlags,
    serves_vectored_fixed: bool,
    stats: Stats,
    flush_state: FlushState,
    name: String,
    /// The device, and other files that the rings keep open.
    files: Vec<Box<dyn AsFd + Send + Sync>>,
    /// Whether a ring was dropped while it had ops in flight.
    leaked: AtomicBool,
}

struct Template {
    /// Not dropped in a forked child, where something else may be mapped at its addresses.
    ring: ManuallyDrop<IoUring>,
    process: u32,
    table: BufferTable,
}

impl Drop for Template {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            // SAFETY: this is the drop of the only owner of the ring, so it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

impl RingDevice {
    /// Makes the template for rings on an open device. Errors and log messages contain `name`. With
    /// `idle`, a kernel thread polls for submissions, and sleeps after this idle time.
    ///
    /// The rings do their I/O through `file`. The kernel keeps it open until the last entry of
    /// every ring has completed, however the process ends. The lock that keeps other processes out
    /// must belong to this open file description, or to one that is [held](Self::holding).
    /// Otherwise another process may open the device while writes of a killed process are in
    /// flight.
    ///
    /// After an orderly end the kernel takes rings down in the background. Dropping the device
    /// releases the `flock(2)` locks of its open file descriptions, so that the files are free at
    /// once.
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe); [`ErrorKind::InvalidInput`] or
    /// [`ErrorKind::PermissionDenied`] where the kernel does not poll for submissions of this
    /// process.
    pub fn new(
        file: impl AsFd + Send + Sync + 'static,
        name: &str,
        idle: Option<Duration>,
    ) -> Result<Self, Error> {
        let polling = idle.map(SubmissionPolling::new_thread).transpose()?;
        let usage = Usage { submission_polling: polling, ..Usage::default() };
        let (mut ring, granted) =
            setup::ring::<Standard>(1, usage).map_err(|error| error.on(name))?;
        setup::try_out(&mut ring).map_err(|error| error.on(name))?;
        let mut probe = Probe::new();
        // A kernel that cannot answer has no opcode that is asked for here.
        let _ = ring.submitter().register_probe(&mut probe);
        let template = Template {
            ring: ManuallyDrop::new(ring),
            process: std::process::id(),
            table: BufferTable::default(),
        };
        let submission_polling =
            polling.map(|polling| polling.thread_of(template.ring.as_raw_fd()));
        let mut device = Self {
            usage: Usage { submission_polling, ..usage },
            template: Mutex::new(template),
            process: std::process::id(),
            generation: AtomicU64::new(0),
            granted,
            granted_locally: granted,
            serves_vectored_fixed: probe.is_supported(opcode::ReadvFixed::CODE)
                && probe.is_supported(opcode::WritevFixed::CODE),
            stats: Stats::new(),
            flush_state: FlushState::new(),
            name: name.to_owned(),
            files: vec![Box::new(file)],
            leaked: AtomicBool::new(false),
        };
        device.note_granted()?;
        Ok(device)
    }

    /// The same device, with completion polling (`IOPOLL`): the thread that waits for completions
    /// polls the device for them and keeps a processor busy. Rings made from now on only transfer.
    ///
    /// A device that cannot be polled shows it only at the first transfer, which fails with
    /// `EOPNOTSUPP`.
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe).
    pub fn polling_completions(mut self) -> Result<Self, Error> {
        self.usage.completion_polling = true;
        self.note_granted()?;
        Ok(self)
    }

    /// The same device; rings made from now on also keep `file` open, until their last entry has
    /// completed. It is meant for an open file description that locks the device, but does no I/O.
    #[must_use]
    pub fn holding(mut self, file: impl AsFd + Send + Sync + 'static) -> Self {
        self.files.push(Box::new(file));
        self
    }

    /// Makes rings to find out which flags the kernel grants.
    fn note_granted(&mut self) -> Result<(), Error> {
        let flags = |local| {
            let ring = setup::ring::<Standard>(1, self.usage(local));
            ring.map(|(_, flags)| flags).map_err(|error| error.on(self.name()))
        };
        (self.granted, self.granted_locally) = (flags(false)?, flags(true)?);
        Ok(())
    }

    /// The device's path or name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The setup flags that the kernel grants rings that any thread may use.
    #[must_use]
    pub fn granted_flags(&self) -> GrantedFlags {
        self.granted
    }

    /// The setup flags that the kernel grants local rings.
    #[must_use]
    pub fn granted_local_flags(&self) -> GrantedFlags {
        self.granted_locally
    }

    /// Whether vectored transfers can use registered memory (Linux 6.15).
    #[must_use]
    pub fn serves_vectored_fixed(&self) -> bool {
        self.serves_vectored_fixed
    }

    /// The statistics of the device.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The flush state of the device.
    #[must_use]
    pub fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    /// How a ring is used: by the thread that makes it only, or by any thread.
    pub(crate) fn usage(&self, local: bool) -> Usage {
        Usage { local, ..self.usage }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Registers the files with a ring; the device is file 0.
    pub(crate) fn register_files<W: Width>(&self, ring: &RawRing<W>) -> Result<(), Error> {
        let files: Vec<_> = self.files.iter().map(|file| file.as_fd().as_raw_fd()).collect();
        ring.submitter()
            .register_files(&files)
            .map_err(|error| Error::os("register the device with a ring", error).on(self.name()))
    }

    /// Records that a ring was dropped with ops in flight. The device stays locked until they have
    /// completed.
    pub(crate) fn note_leaked(&self) {
        self.leaked.store(true, Ordering::Release);
    }

    /// Registers the memory of an arena, as
    /// [`IoBackend::register`](raw_block_core::backend::IoBackend::register).
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] when the kernel refuses to pin that much memory;
    /// [`ErrorKind::Forked`] in a forked child.
    pub fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        if !self.is_of_this_process() {
            let rule = "this process is a forked child of the one that opened the device: open it \
                        here again";
            return Err(Error::new(ErrorKind::Forked, "register memory", rule).on(self.name()));
        }
        let mut template = self.template();
        let Template { ring, table, .. } = &mut *template;
        let result = table.register(ring, arena);
        self.generation.fetch_add(1, Ordering::Release);
        result.map_err(|error| {
            let mut described = Error::os("register memory", error).on(self.name());
            if described.kind() == ErrorKind::OutOfResources {
                described = described.with_rule(
                    "the kernel pins no more pages for this user: raise RLIMIT_MEMLOCK; transfers also work \
                     without registration",
                );
            }
            self.stats.update(|stats| stats.refused_registrations += 1);
            tracing::warn!(error = %described, "transfers continue without registered memory");
            described
        })
    }

    /// Unregisters an arena, as
    /// [`IoBackend::unregister`](raw_block_core::backend::IoBackend::unregister).
    pub fn unregister(&self, arena: &Arc<Arena>) {
        self.change_table(|table, ring| table.unregister(ring, arena));
    }

    /// Unregisters all arenas. A backend calls it when it is dropped, because its queues may live
    /// on.
    pub fn unregister_all(&self) {
        self.change_table(BufferTable::unregister_all);
    }

    /// A forked child shares the rings with its parent.
    fn is_of_this_process(&self) -> bool {
        std::process::id() == self.process
    }

    fn change_table(&self, change: impl FnOnce(&mut BufferTable, &IoUring)) {
        if !self.is_of_this_process() {
            return;
        }
        let mut template = self.template();
        let Template { ring, table, .. } = &mut *template;
        change(table, ring);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Registers the current memory with a ring, and returns the regions that it has now.
    pub(crate) fn regions_for<W: Width>(&self, ring: &RawRing<W>) -> RegisteredRegions {
        let template = self.template();
        let table = template.table.entries();
        let _ = ring.submitter().unregister_buffers();
        if table.is_empty() {
            return RegisteredRegions::default();
        }
        // From Linux 6.12 on the ring shares the record of the template; before, it makes its own.
        let registered = ring
            .submitter()
            .register_buffers_clone(template.ring.as_raw_fd())
            .or_else(|_| buffer_table::replace::<W>(ring, &table));
        match registered {
            Ok(()) => RegisteredRegions::of(&table),
            Err(error) => {
                self.stats.update(|stats| stats.refused_registrations += 1);
                tracing::warn!(device = self.name, %error, "a queue works without registered memory");
                RegisteredRegions::default()
            }
        }
    }

    fn template(&self) -> MutexGuard<'_, Template> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RingDevice {
    /// Unlocks the files. A local ring that was dropped by another thread than its owner keeps them
    /// open for some 40 ms (Linux 6.18).
    fn drop(&mut self) {
        let process = self.template.get_mut().unwrap_or_else(PoisonError::into_inner).process;
        // A forked child shares the open file descriptions with its parent.
        if process != std::process::id() || *self.leaked.get_mut() {
            return;
        }
        for file in &self.files {
            // A lock belongs to the open file description, so any descriptor of it can unlock it.
            let unlocked = file.as_fd().try_clone_to_owned().and_then(|it| File::from(it).unlock());
            if let Err(error) = unlocked {
                let device = &self.name;
                tracing::debug!(device, %error, "the kernel unlocks the device in the background");
            }
        }
    }
}

impl fmt::Debug for RingDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingDevice")
            .field("name", &self.name)
            .field("granted_flags", &self.granted)
            .field("granted_local_flags", &self.granted_locally)
            .field("serves_vectored_fixed", &self.serves_vectored_fixed)
            .finish_non_exhaustive()
    }
}

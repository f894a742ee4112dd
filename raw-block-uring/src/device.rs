//! What the rings of one backend share: the open device and its registered memory.

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

use crate::regions::Regions;
use crate::setup::{self, GrantedFlags, Polling, Usage};
use crate::width::{RawRing, Standard, Width};

/// What the rings of one backend share.
///
/// It has a ring of its own, the template, which does no I/O but holds the kernel's record of the
/// registered memory for the others to take over, and the kernel's polling thread, if there is one.
pub struct RingDevice {
    template: Mutex<Template>,
    /// The process that has the rings.
    process: u32,
    /// Grows with every change of the registered memory.
    generation: AtomicU64,
    usage: Usage,
    granted: GrantedFlags,
    granted_locally: GrantedFlags,
    serves_vectored_fixed: bool,
    stats: Stats,
    flush_state: FlushState,
    name: String,
    /// The device, and what else the rings keep open.
    files: Vec<Box<dyn AsFd + Send + Sync>>,
    /// Whether a ring was dropped while the kernel owned ops of it.
    leaked: AtomicBool,
}

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

impl RingDevice {
    /// Makes the template for rings on an open device, whose `name` errors and log messages give.
    ///
    /// With `idle`, a thread of the kernel looks for submissions, and sleeps when there was none for so
    /// long.
    ///
    /// The rings do their I/O through `file`, and the kernel keeps it open until the last entry of every ring has
    /// completed, however the process ends. What holds the device against other processes is to be this open file
    /// description, or one that is [held](Self::holding): otherwise another process may open the device while
    /// writes of a killed process are in flight.
    ///
    /// After an orderly end the kernel takes rings down in the background. So that files are free at once, dropping
    /// the device releases the `flock(2)` locks of their open file descriptions.
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe); [`ErrorKind::InvalidInput`] or
    /// [`ErrorKind::PermissionDenied`] where the kernel does not poll for this process.
    pub fn new(
        file: impl AsFd + Send + Sync + 'static,
        name: &str,
        idle: Option<Duration>,
    ) -> Result<Self, Error> {
        let submissions = idle.map(Polling::start).transpose()?;
        let usage = Usage { submissions, ..Usage::default() };
        let (mut ring, granted) =
            setup::ring::<Standard>(1, usage).map_err(|error| error.on(name))?;
        setup::try_out(&mut ring).map_err(|error| error.on(name))?;
        let mut probe = Probe::new();
        // A kernel that does not even answer has nothing that is asked for here.
        let _ = ring.submitter().register_probe(&mut probe);
        let template = Template {
            ring: ManuallyDrop::new(ring),
            process: std::process::id(),
            arenas: Vec::new(),
        };
        let submissions = submissions.map(|polling| polling.joined(template.ring.as_raw_fd()));
        let mut device = Self {
            usage: Usage { submissions, ..usage },
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

    /// The same device; whoever waits for completions asks the device for them, and keeps a processor busy
    /// meanwhile (`IOPOLL`). The rings that are made from now on do nothing but transfer.
    ///
    /// Whether the device can be asked, only a transfer tells: it fails with `EOPNOTSUPP` where not.
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe).
    pub fn polling_completions(mut self) -> Result<Self, Error> {
        self.usage.completions = true;
        self.note_granted()?;
        Ok(self)
    }

    /// The same device; the rings that are made from now on keep `file` open too, until their last entry has completed:
    /// for an open file description that holds the device and is not the one that does its I/O.
    #[must_use]
    pub fn holding(mut self, file: impl AsFd + Send + Sync + 'static) -> Self {
        self.files.push(Box::new(file));
        self
    }

    /// Makes rings only to see what the kernel grants them.
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

    /// The setup flags that the kernel granted rings which any thread may use.
    #[must_use]
    pub fn granted_flags(&self) -> GrantedFlags {
        self.granted
    }

    /// The setup flags that the kernel granted rings of one thread.
    #[must_use]
    pub fn granted_local_flags(&self) -> GrantedFlags {
        self.granted_locally
    }

    /// Whether the kernel takes registered memory in vectored transfers (Linux 6.15).
    #[must_use]
    pub fn serves_vectored_fixed(&self) -> bool {
        self.serves_vectored_fixed
    }

    /// The counters of the device.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The flushes of the device.
    #[must_use]
    pub fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    /// How a ring is to be set up, for the thread that makes it or for all.
    pub(crate) fn usage(&self, local: bool) -> Usage {
        Usage { local, ..self.usage }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Registers the files with a ring; the device is the first.
    pub(crate) fn register_files<W: Width>(&self, ring: &RawRing<W>) -> Result<(), Error> {
        let files: Vec<_> = self.files.iter().map(|file| file.as_fd().as_raw_fd()).collect();
        ring.submitter()
            .register_files(&files)
            .map_err(|error| Error::os("register the device with a ring", error).on(self.name()))
    }

    /// Notes that the kernel may own ops of a ring that was dropped: the device stays locked until it has
    /// completed them.
    pub(crate) fn note_leaked(&self) {
        self.leaked.store(true, Ordering::Release);
    }

    /// See [`IoBackend::register`](raw_block_core::backend::IoBackend::register).
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] when the kernel refuses to pin that much memory.
    pub fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        let mut template = self.template();
        template.arenas.push(arena);
        let result =
            register_buffers::<Standard>(&template.ring, &Regions::table(&template.arenas));
        if result.is_err() {
            template.arenas.pop();
            // What was granted before is granted again, or the queues do without.
            let _ = register_buffers::<Standard>(&template.ring, &Regions::table(&template.arenas));
        }
        self.generation.fetch_add(1, Ordering::Release);
        result.map_err(|error| {
            let mut described = Error::os("register memory", error).on(self.name());
            if described.kind() == ErrorKind::OutOfResources {
                described = described.with_rule(
                    "the kernel pins no more pages for this user: raise RLIMIT_MEMLOCK; transfers work \
                     without registration",
                );
            }
            self.stats.update(|stats| stats.refused_registrations += 1);
            tracing::warn!(error = %described, "transfers go on without registered memory");
            described
        })
    }

    /// See [`IoBackend::unregister`](raw_block_core::backend::IoBackend::unregister).
    pub fn unregister(&self, arena: &Arc<Arena>) {
        self.change_arenas(|arenas| {
            let position = arenas.iter().position(|registered| Arc::ptr_eq(registered, arena));
            position.map(|position| arenas.remove(position));
        });
    }

    /// Takes back all registrations: for a backend that is dropped while it has queues.
    pub fn unregister_all(&self) {
        self.change_arenas(Vec::clear);
    }

    fn change_arenas(&self, change: impl FnOnce(&mut Vec<Arc<Arena>>)) {
        // The ring of a forked child is the one of its parent.
        if std::process::id() != self.process {
            return;
        }
        let mut template = self.template();
        change(&mut template.arenas);
        let _ = register_buffers::<Standard>(&template.ring, &Regions::table(&template.arenas));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Gives a ring the registered memory as it is now, and returns what it got.
    pub(crate) fn regions_for<W: Width>(&self, ring: &RawRing<W>) -> Regions {
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
            .or_else(|_| register_buffers::<W>(ring, &table));
        match registered {
            Ok(()) => Regions::of(&table),
            Err(error) => {
                self.stats.update(|stats| stats.refused_registrations += 1);
                tracing::warn!(device = self.name, %error, "a queue works without registered memory");
                Regions::default()
            }
        }
    }

    fn template(&self) -> MutexGuard<'_, Template> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces a ring's table of registered buffers.
fn register_buffers<W: Width>(ring: &RawRing<W>, table: &[libc::iovec]) -> std::io::Result<()> {
    let _ = ring.submitter().unregister_buffers();
    if table.is_empty() {
        return Ok(());
    }
    // SAFETY: the table names memory of arenas that the device keeps alive; the rings keep the device
    // alive, and it drops the template ring before the arenas.
    unsafe { ring.submitter().register_buffers(table) }
}

impl Drop for RingDevice {
    /// Unlocks the files. A ring that another thread dropped than the one that made it keeps them open for
    /// some 40 ms (Linux 6.18).
    fn drop(&mut self) {
        let process = self.template.get_mut().unwrap_or_else(PoisonError::into_inner).process;
        // A forked child shares the open file descriptions with its parent.
        if process != std::process::id() || *self.leaked.get_mut() {
            return;
        }
        for file in &self.files {
            // Unlocking is for the open file description, so any descriptor of it will do.
            let unlocked = file.as_fd().try_clone_to_owned().and_then(|it| File::from(it).unlock());
            if let Err(error) = unlocked {
                tracing::debug!(device = self.name, %error, "the device is locked a while longer");
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

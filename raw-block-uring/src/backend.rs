//! The backend.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use io_uring::{opcode, types};
use raw_block_core::backend::{Arena, DeviceFile, FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::{AlignedBuf, Error, Geometry};

use crate::GrantedFlags;
use crate::entry::MAX_STREAMS;
use crate::options::UringOptions;
use crate::queue::UringQueue;
use crate::ring::{Linux, Lookup, Ring, RingDevice, Standard};

/// A file or block device, read and written through io_uring.
///
/// Needs Linux 5.13; newer kernels make it faster.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_uring::{Direct, Dispatcher, UringBackend, UringOptions};
///
/// # let file = tempfile::NamedTempFile::new()?;
/// # file.as_file().set_len(1 << 20)?;
/// # let path = file.path();
/// let backend = UringBackend::open(path, &UringOptions::new().direct(Direct::Off))?;
/// println!("queues of blocking calls have the flags {:?}", backend.granted_local_flags());
/// let dispatcher = Dispatcher::new(Arc::new(backend))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UringBackend {
    file: Arc<DeviceFile>,
    geometry: Geometry,
    rings: Arc<RingDevice>,
}

impl UringBackend {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// - Those of [`DeviceFile::open`], and those of [`probe`](crate::probe) if io_uring is
    ///   refused.
    /// - [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) or
    ///   [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied): the kernel cannot
    ///   poll for submissions as the options ask.
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the device cannot be polled for
    ///   completions.
    pub fn open(path: impl AsRef<Path>, options: &UringOptions) -> Result<Self, Error> {
        Self::on(DeviceFile::open(path, options.direct)?, options)
    }

    /// Opens the device at `path` read-only, which needs no write permission. See
    /// [`DeviceFile::open_read_only`].
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_read_only(path: impl AsRef<Path>, options: &UringOptions) -> Result<Self, Error> {
        Self::on(DeviceFile::open_read_only(path, options.direct)?, options)
    }

    fn on(file: DeviceFile, options: &UringOptions) -> Result<Self, Error> {
        let file = Arc::new(file);
        let mut rings = RingDevice::new(Arc::clone(&file), file.path(), options.kernel_polling)?;
        if options.completion_polling {
            rings = rings.polling_completions()?;
        }
        let mut geometry = *file.geometry();
        geometry.placement_handles = file.write_streams().min(MAX_STREAMS);
        let backend = Self { file, geometry, rings: Arc::new(rings) };
        if options.completion_polling {
            backend.check_polling().map_err(|error| error.on(backend.name()))?;
        }
        Ok(backend)
    }

    /// Reads the first block to find out whether the device can be polled for completions.
    fn check_polling(&self) -> Result<(), Error> {
        let geometry = self.geometry();
        let len = geometry.transfer_alignment;
        let mut buffer = AlignedBuf::zeroed(len as usize)?;
        let mut ring = Ring::<Standard, ()>::open(Arc::clone(&self.rings), 1, Linux)?;
        let Ok(slot) = ring.insert(()) else { unreachable!("a new ring has a free slot") };
        let read = opcode::Read::new(types::Fixed(0), buffer.as_mut_ptr(), len).build();
        // SAFETY: the buffer has `len` bytes, and lives until the completion was taken below, or is
        // leaked.
        unsafe { ring.push(slot, read, Lookup::Plain) };
        let result = loop {
            if let Some((_, outcome)) = ring.take_completion() {
                break outcome.result;
            }
            if let Some((_, error)) = ring.take_lost() {
                std::mem::forget(buffer);
                return Err(Error::os(POLL, error));
            }
            ring.enter(1, None);
        };
        ring.remove(slot);
        match result {
            0.. => Ok(()),
            error => {
                Err(explain_polled_read(io::Error::from_raw_os_error(-error)).at(0, len.into()))
            }
        }
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    /// The setup flags that the kernel granted queues that any thread may use.
    #[must_use]
    pub fn granted_flags(&self) -> GrantedFlags {
        self.rings.granted_flags()
    }

    /// The setup flags that the kernel granted queues of one thread: those of blocking calls.
    #[must_use]
    pub fn granted_local_flags(&self) -> GrantedFlags {
        self.rings.granted_local_flags()
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

    fn name(&self) -> &str {
        self.file.path()
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.rings.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, rings) = (Arc::clone(&self.file), Arc::clone(&self.rings));
        Ok(Box::new(UringQueue::<Standard>::open(file, rings, depth, Linux)?))
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, rings) = (Arc::clone(&self.file), Arc::clone(&self.rings));
        Ok(Box::new(UringQueue::<Standard>::open_local(file, rings, depth, Linux)?))
    }

    fn register(&self, arena: Arc<Arena>) -> Result<(), Error> {
        self.rings.register(arena)
    }

    fn unregister(&self, arena: &Arc<Arena>) {
        self.rings.unregister(arena);
    }
}

impl Drop for UringBackend {
    /// Unregisters all memory, because queues may outlive the backend.
    fn drop(&mut self) {
        self.rings.unregister_all();
    }
}

const POLL: &str = "poll for completions";

/// Explains why the first read of a ring that polls for completions failed: the device cannot be
/// polled, which the kernel reports before the read starts, or the read itself failed.
fn explain_polled_read(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL) => Error::os(POLL, error).with_rule(
            "the device cannot be polled for completions: its driver needs queues for polling (for NVMe the \
             module parameter `poll_queues`) and transfers need O_DIRECT; open it without completion polling",
        ),
        _ => Error::os("read", error),
    }
}

impl fmt::Debug for UringBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringBackend")
            .field("file", &self.file)
            .field("granted_flags", &self.granted_flags())
            .field("granted_local_flags", &self.granted_local_flags())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_of_the_kernel_are_explained_by_polling() {
        let explain = |errno| explain_polled_read(io::Error::from_raw_os_error(errno)).to_string();
        for errno in [libc::EOPNOTSUPP, libc::EINVAL] {
            assert!(explain(errno).contains("poll_queues"), "{}", explain(errno));
        }
        for errno in [libc::EIO, libc::ENODATA, libc::ENODEV, libc::EAGAIN] {
            let text = explain(errno);
            assert!(text.starts_with("read: ") && !text.contains("poll"), "{text}");
        }
    }
}

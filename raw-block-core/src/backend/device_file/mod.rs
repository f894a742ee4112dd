//! A file or block device, opened exclusively, for backends whose transfers use a file descriptor.

mod alignment;
mod cache;
mod geometry;
mod hold;
mod ranges;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use self::hold::{Holder, Refusal, while_held};
use crate::{Direct, Error, ErrorKind, Geometry};

pub use hold::lock_device;

/// An open regular file or block device that no other process can open for writing.
///
/// A block device is opened with `O_EXCL`, so a mounted one is refused; a file is locked with
/// `flock(2)`, exclusively to write, and shared to read only. Opening writes nothing, and follows
/// symbolic links.
///
/// # Examples
/// ```
/// use raw_block_core::Direct;
/// use raw_block_core::backend::DeviceFile;
///
/// let error = DeviceFile::open("/no/such/device", Direct::Preferred).unwrap_err();
/// assert_eq!(error.backend(), Some("/no/such/device"));
/// ```
///
/// The open file description that holds the device is the one that does its I/O. The kernel closes
/// it when the process has ended, however it ended, and its last request has completed: after
/// `SIGKILL` no write of the process takes effect once another one has opened the device.
///
/// Where transfers go through the page cache, opening writes back what the cache holds of the
/// device and drops it: reads return what the medium holds, also after the kernel failed to write
/// an earlier process's pages back.
///
/// Its size is read once. If another process shortens a file later, reads past its end fail, and
/// writes there extend it again.
#[derive(Debug)]
pub struct DeviceFile {
    file: File,
    path: Arc<str>,
    direct: bool,
    is_block_device: bool,
    geometry: Geometry,
}

impl DeviceFile {
    /// Opens the device at `path` for reading and writing, and asks it for its geometry.
    ///
    /// A device that a running process holds is tried again for 2 seconds, because the process may
    /// be about to close it. A device that an ended process holds is tried again for 60 seconds,
    /// with a warning after 2: the I/O of that process is in flight. For that, a block device gets
    /// a shared `flock(2)` as well, which names its holder. Where `/proc` is missing, every holder
    /// counts as running; in a PID namespace, a holder outside of it counts as ended.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`]: as the system says; the latter
    ///   also for a write-protected block device.
    /// - [`ErrorKind::Busy`]: another process, a mount or another store in this process holds it,
    ///   or I/O of an ended process is still in flight.
    /// - [`ErrorKind::Unsupported`]: it is neither a regular file nor a block device, it is a
    ///   host-managed zoned device or a file of hugetlbfs, or the file system has no `O_DIRECT` and
    ///   that was required.
    /// - [`ErrorKind::InvalidInput`]: it is smaller than one logical block.
    pub fn open(path: impl AsRef<Path>, direct: Direct) -> Result<Self, Error> {
        Self::open_for(path.as_ref(), direct, false)
    }

    /// Opens the device at `path` read-only, which needs no permission to write, and excludes
    /// writers while it is open. Several processes can read a file. A write-protected device can be
    /// opened this way.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_read_only(path: impl AsRef<Path>, direct: Direct) -> Result<Self, Error> {
        Self::open_for(path.as_ref(), direct, true)
    }

    fn open_for(path: &Path, direct: Direct, read_only: bool) -> Result<Self, Error> {
        let name: Arc<str> = path.display().to_string().into();
        Self::open_named(path, &name, direct, read_only).map_err(|error| error.on(name))
    }

    fn open_named(
        path: &Path,
        name: &Arc<str>,
        direct: Direct,
        read_only: bool,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::os("open", error);
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        let is_block_device = kind.is_block_device();
        if !kind.is_file() && !is_block_device {
            let what = if kind.is_dir() {
                "it is a directory"
            } else if kind.is_char_device() {
                "it is a character device (the NVMe backend opens those of NVMe namespaces)"
            } else {
                "it is neither a regular file nor a block device"
            };
            return Err(Error::new(ErrorKind::Unsupported, "open", what));
        }
        let exclusive = if is_block_device { libc::O_EXCL } else { 0 };
        let open = |flags| {
            let flags = exclusive | flags;
            let attempt =
                || OpenOptions::new().read(true).write(!read_only).custom_flags(flags).open(path);
            while_held(name, attempt, || Holder::of_block_device(path))
        };
        let explain = |refusal| explain(refusal, read_only);
        let (file, direct) = match direct {
            Direct::Off => (open(0).map_err(explain)?, false),
            Direct::Required | Direct::Preferred => match open(libc::O_DIRECT) {
                Ok(file) => (file, true),
                Err(refusal) if refusal.error.raw_os_error() != Some(libc::EINVAL) => {
                    return Err(explain(refusal));
                }
                Err(_) if direct == Direct::Preferred => (open(0).map_err(explain)?, false),
                Err(Refusal { error, .. }) => {
                    let advice =
                        "the file system has no O_DIRECT: use another one, or allow the page cache";
                    return Err(
                        Error::new(ErrorKind::Unsupported, "open", advice).with_source(error)
                    );
                }
            },
        };
        // The path may have been replaced since it was looked at; what counts is what was opened.
        if file.metadata().map_err(failed)?.file_type() != kind {
            return Err(Error::new(
                ErrorKind::Busy,
                "open",
                "the path was replaced while it was opened",
            ));
        }
        if is_block_device {
            hold::name_holder(&file);
        } else {
            lock_device(&file, read_only, name)?;
        }
        if !read_only {
            geometry::check_takes_writes(&file, is_block_device)?;
        }
        if !direct {
            cache::drop_cached(&file, name)?;
        }
        let mut geometry = geometry::of(&file, is_block_device, direct)?;
        geometry.read_only = read_only;
        Ok(Self { file, path: Arc::clone(name), direct, is_block_device, geometry })
    }

    /// What the device can do.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether transfers bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether it is a block device, and not a regular file.
    #[must_use]
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// Returns how many write streams the device has, as sysfs says now (`queue/max_write_streams`,
    /// Linux 6.16): of those, 1 to this number can be named in a write through io_uring. For
    /// backends that set [`Geometry::placement_handles`].
    ///
    /// 0 for regular files and partitions, and where transfers go through the page cache, because
    /// the kernel then ignores the stream or refuses it.
    #[must_use]
    pub fn write_streams(&self) -> u16 {
        if self.is_block_device && self.direct { geometry::write_streams(&self.file) } else { 0 }
    }

    /// Discards `len` bytes from byte `offset` on, and waits until the device has done so: for
    /// backends, to execute an [`OpKind::Discard`](crate::backend::OpKind::Discard).
    ///
    /// On a block device this is the ioctl `BLKDISCARD`, and not a hole punched by `fallocate(2)`:
    /// the kernel makes such a hole by writing zeroes, and refuses it where the device has no
    /// command for that. Of a range that begins or ends inside a logical block, the blocks in
    /// between are discarded. The kernel splits it into requests of at most
    /// `queue/discard_max_bytes`. In a file it is a hole, and its space goes back to the file
    /// system.
    ///
    /// # Errors
    /// Those of the system: `EOPNOTSUPP` where the device or the file system has no such operation,
    /// `EINTR` when a signal came first; then it can be called again.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.is_block_device {
            ranges::discard_in_block_device(&self.file, self.block(), offset, len)
        } else {
            ranges::punch_hole(&self.file, offset, len)
        }
    }
}

impl DeviceFile {
    /// Makes `len` bytes from byte `offset` on read as zeroes, for backends, to execute an
    /// [`OpKind::WriteZeroes`](crate::backend::OpKind::WriteZeroes).
    ///
    /// Nothing is transferred, but for the parts of logical blocks at the ends of the range, and
    /// for a block device whose page cache the kernel cannot drop (`EBUSY`).
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.is_block_device {
            ranges::zero_block_device(&self.file, self.block(), offset, len)
        } else {
            ranges::zero_file(&self.file, offset, len)
        }
    }

    /// Asks the system for the size of the device in bytes as it is now.
    ///
    /// It differs from the capacity in [`geometry`](Self::geometry) if the device was made shorter
    /// or longer since it was opened.
    ///
    /// # Errors
    /// Those of the system.
    pub fn current_len(&self) -> io::Result<u64> {
        // Of a block device `stat` reports no size. Transfers do not use the position that this
        // changes.
        (&self.file).seek(SeekFrom::End(0))
    }

    fn block(&self) -> u64 {
        self.geometry.logical_block.into()
    }

    /// Makes durable what was written: for backends, to execute an
    /// [`OpKind::Flush`](crate::backend::OpKind::Flush).
    ///
    /// That includes the metadata that are needed to read the bytes, such as newly allocated
    /// blocks, but not timestamps (`fdatasync(2)`).
    ///
    /// # Errors
    /// Those of the system.
    pub fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn explain(Refusal { error, holder }: Refusal, read_only: bool) -> Error {
    let errno = error.raw_os_error();
    let described = Error::os("open", error);
    if let Some(holder) = holder {
        return described.with_rule(holder.rule());
    }
    match errno {
        Some(libc::EACCES) if read_only => {
            described.with_rule("this user may not read it: check its mode and group")
        }
        Some(libc::EACCES) => described
            .with_rule("this user may not both read and write it: check its mode and group"),
        Some(libc::EPERM) => described.with_rule(
            "the kernel forbids to write to it: it may be mounted, immutable or write-protected",
        ),
        Some(libc::EROFS) => described.with_rule("it is on a read-only file system"),
        _ => described,
    }
}

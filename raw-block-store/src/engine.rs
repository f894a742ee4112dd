//! Opening a device by its path, with the engine that suits it.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

#[cfg(not(all(feature = "posix", feature = "uring", feature = "nvme")))]
use raw_block_core::ErrorKind;
use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, Direct, Dispatcher, Error as DeviceError, Geometry, ReadAt};

use crate::format::{SUPERBLOCK_CELL_LEN, Superblock};

/// How the device is reached.
///
/// # Examples
/// ```no_run
/// use raw_block_store::{Direct, Engine, open_backend};
///
/// let backend = open_backend("store.img", Engine::Posix, Direct::Preferred)?;
/// assert_eq!(backend.engine(), "posix");
/// # Ok::<(), raw_block_store::core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// NVMe passthrough for a character device; for anything else io_uring where the system allows
    /// it, POSIX otherwise.
    #[default]
    Auto,
    /// `pread(2)` and `pwrite(2)` on a pool of threads.
    Posix,
    /// io_uring.
    Uring,
    /// NVMe passthrough, on the character device of a namespace (`/dev/ngXnY`). It never passes the
    /// page cache.
    Nvme,
}

/// Opens the file, the block device, or the character device of an NVMe namespace at `path`.
///
/// `Engine::Auto` takes passthrough for a character device; otherwise io_uring, or POSIX where
/// io_uring is refused, and logs that it did. Which engines there are is decided by the features
/// `posix`, `uring` and `nvme` of this crate.
///
/// With [`Direct::Preferred`], a store whose blocks are smaller than the device's direct transfers,
/// such as a copy from a device with smaller blocks, is opened through the page cache, with a
/// warning.
///
/// A write to a file beyond the process's limit for file sizes (`RLIMIT_FSIZE`) raises `SIGXFSZ`,
/// which ends a process that neither blocks nor ignores it. Block it, and the write fails with
/// `EFBIG`.
///
/// # Examples
/// ```no_run
/// use raw_block_store::{Direct, Engine, Store, open_backend};
///
/// let store = Store::open(open_backend("/dev/nvme0n1", Engine::Auto, Direct::Required)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of the engine; [`ErrorKind::Unsupported`](raw_block_core::ErrorKind::Unsupported) for an
/// engine that is not built in.
pub fn open_backend(
    path: impl AsRef<Path>,
    engine: Engine,
    direct: Direct,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    open(path.as_ref(), engine, direct, false)
}

/// Opens the device at `path` read-only, which takes no permission to write: for
/// [`Store::open_read_only`](crate::Store::open_read_only). Writers are kept out for as long.
///
/// # Errors
/// Those of [`open_backend`].
pub fn open_backend_read_only(
    path: impl AsRef<Path>,
    engine: Engine,
    direct: Direct,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    open(path.as_ref(), engine, direct, true)
}

fn open(
    path: &Path,
    engine: Engine,
    direct: Direct,
    read_only: bool,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    let backend = open_with(path, engine, direct, read_only)?;
    // A character device has no page cache.
    if direct != Direct::Preferred || is_character_device(path) {
        return Ok(backend);
    }
    if !needs_smaller_transfers(&Dispatcher::read_only(Arc::clone(&backend))?) {
        return Ok(backend);
    }
    tracing::warn!(
        device = backend.name(),
        alignment = backend.geometry().transfer_alignment,
        "the blocks of the store are smaller than direct transfers can be: it is used through the page cache"
    );
    drop(backend);
    open_with(path, engine, Direct::Off, read_only)
}

/// Whether the device begins with a store whose blocks are too small for it.
///
/// `false` if it cannot be read: opening the store reports the error.
fn needs_smaller_transfers(dispatcher: &Dispatcher) -> bool {
    let alignment = dispatcher.geometry().transfer_alignment;
    let read = || {
        let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).ok()?;
        let len = SUPERBLOCK_CELL_LEN.next_multiple_of(alignment as usize) as u64;
        dispatcher.read_buffers(&mut [ReadAt::new(0, &mut cell).padded_to(len)]).all().ok()?;
        Some(Superblock::read(&cell).ok()?.block_size.get())
    };
    let fits = |block_size: u32| {
        block_size.is_multiple_of(alignment) && alignment as usize <= SUPERBLOCK_CELL_LEN
    };
    alignment > Geometry::MIN_LOGICAL_BLOCK && read().is_some_and(|block_size| !fits(block_size))
}

fn open_with(
    path: &Path,
    engine: Engine,
    direct: Direct,
    read_only: bool,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    match engine {
        Engine::Posix => open_posix(path, direct, read_only),
        Engine::Uring => open_uring(path, direct, read_only),
        Engine::Nvme => open_nvme(path, read_only),
        Engine::Auto if is_character_device(path) => open_nvme(path, read_only),
        Engine::Auto => open_uring(path, direct, read_only).or_else(|refused| match probe_uring() {
            Err(error) if cfg!(feature = "posix") => {
                tracing::warn!(%error, "io_uring cannot be used: the posix engine takes its place");
                open_posix(path, direct, read_only)
            }
            _ => Err(refused),
        }),
    }
}

/// `false` if `stat` fails: the engine that opens the path reports the error.
fn is_character_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

#[cfg(feature = "posix")]
fn open_posix(
    path: &Path,
    direct: Direct,
    read_only: bool,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    use raw_block_posix::{PosixBackend, PosixOptions};
    let options = PosixOptions::new().direct(direct);
    let open = if read_only { PosixBackend::open_read_only } else { PosixBackend::open };
    Ok(Arc::new(open(path, &options)?))
}

#[cfg(feature = "uring")]
fn open_uring(
    path: &Path,
    direct: Direct,
    read_only: bool,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    use raw_block_uring::{UringBackend, UringOptions};
    let options = UringOptions::new().direct(direct);
    let open = if read_only { UringBackend::open_read_only } else { UringBackend::open };
    Ok(Arc::new(open(path, &options)?))
}

#[cfg(feature = "nvme")]
fn open_nvme(path: &Path, read_only: bool) -> Result<Arc<dyn IoBackend>, DeviceError> {
    use raw_block_nvme::{NvmeBackend, NvmeOptions};
    let open = if read_only { NvmeBackend::open_read_only } else { NvmeBackend::open };
    Ok(Arc::new(open(path, &NvmeOptions::new())?))
}

#[cfg(feature = "uring")]
fn probe_uring() -> Result<(), DeviceError> {
    raw_block_uring::probe()
}

#[cfg(not(feature = "posix"))]
fn open_posix(path: &Path, _: Direct, _: bool) -> Result<Arc<dyn IoBackend>, DeviceError> {
    Err(not_built_in("posix", path))
}

#[cfg(not(feature = "uring"))]
fn open_uring(path: &Path, _: Direct, _: bool) -> Result<Arc<dyn IoBackend>, DeviceError> {
    Err(not_built_in("uring", path))
}

#[cfg(not(feature = "nvme"))]
fn open_nvme(path: &Path, _: bool) -> Result<Arc<dyn IoBackend>, DeviceError> {
    Err(not_built_in("nvme", path))
}

#[cfg(not(feature = "uring"))]
fn probe_uring() -> Result<(), DeviceError> {
    Err(not_built_in("uring", Path::new("any device")))
}

#[cfg(not(all(feature = "posix", feature = "uring", feature = "nvme")))]
fn not_built_in(engine: &str, path: &Path) -> DeviceError {
    let rule = format!("the {engine} engine is not built in: enable the feature {engine}");
    DeviceError::new(ErrorKind::Unsupported, "open", rule).on(path.display().to_string())
}

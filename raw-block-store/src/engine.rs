//! Opening a device by its path, with the engine that suits it.

use std::path::Path;
use std::sync::Arc;

#[cfg(not(all(feature = "posix", feature = "uring")))]
use raw_block_core::ErrorKind;
use raw_block_core::{Direct, Error as DeviceError, IoBackend};

/// How the device is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// io_uring where the system allows it, POSIX otherwise.
    #[default]
    Auto,
    /// `pread(2)` and `pwrite(2)` on a pool of threads.
    Posix,
    /// io_uring.
    Uring,
}

/// Opens the file or block device at `path`.
///
/// `Engine::Auto` takes io_uring, or POSIX where io_uring is refused, and logs that it did. Which engines
/// there are is decided by the features `posix` and `uring` of this crate.
///
/// # Errors
/// Those of the engine; [`ErrorKind::Unsupported`](raw_block_core::ErrorKind::Unsupported) for an engine that is not built in.
pub fn open_device(
    path: impl AsRef<Path>,
    engine: Engine,
    direct: Direct,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    open(path.as_ref(), engine, direct, false)
}

/// Opens the file or block device at `path` for reading alone, which takes no permission to write: for
/// [`Store::open_read_only`](crate::Store::open_read_only). Writers are kept out for as long.
///
/// # Errors
/// Those of [`open_device`].
pub fn open_device_read_only(
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
    match engine {
        Engine::Posix => open_posix(path, direct, read_only),
        Engine::Uring => open_uring(path, direct, read_only),
        Engine::Auto => match probe_uring() {
            Ok(()) => open_uring(path, direct, read_only),
            Err(error) if !cfg!(feature = "posix") => Err(error),
            Err(error) => {
                tracing::warn!(%error, "io_uring cannot be used: the posix engine takes its place");
                open_posix(path, direct, read_only)
            }
        },
    }
}

#[cfg(feature = "posix")]
fn open_posix(
    path: &Path,
    direct: Direct,
    read_only: bool,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    use raw_block_posix::{PosixBackend, PosixOptions};
    let options = PosixOptions { direct, ..PosixOptions::default() };
    Ok(Arc::new(if read_only {
        PosixBackend::open_read_only(path, &options)?
    } else {
        PosixBackend::open(path, &options)?
    }))
}

#[cfg(feature = "uring")]
fn open_uring(
    path: &Path,
    direct: Direct,
    read_only: bool,
) -> Result<Arc<dyn IoBackend>, DeviceError> {
    use raw_block_uring::{UringBackend, UringOptions};
    let options = UringOptions { direct, ..UringOptions::default() };
    Ok(Arc::new(if read_only {
        UringBackend::open_read_only(path, &options)?
    } else {
        UringBackend::open(path, &options)?
    }))
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

#[cfg(not(feature = "uring"))]
fn probe_uring() -> Result<(), DeviceError> {
    Err(not_built_in("uring", Path::new("any device")))
}

#[cfg(not(all(feature = "posix", feature = "uring")))]
fn not_built_in(engine: &str, path: &Path) -> DeviceError {
    let rule = format!("the {engine} engine is not built in: enable the feature {engine}");
    DeviceError::new(ErrorKind::Unsupported, "open", rule).on(path.display().to_string())
}

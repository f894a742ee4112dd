//! What the page cache holds of a device that is opened.

use std::fs::File;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::Error;

/// Writes back what the page cache holds of a file or block device, and drops it, so that reads
/// return what the medium holds.
///
/// After the kernel failed to write pages back, it keeps them, and takes them for written: reads
/// would return what an earlier process wrote, until the pages are dropped, and a later flush would
/// succeed.
///
/// # Errors
/// Those of the system for dropping. That pages cannot be written back is an error of the process
/// that wrote them, and is logged.
pub(super) fn drop_cached(file: &File, name: &str) -> Result<(), Error> {
    if let Err(error) = file.sync_data() {
        let device = name;
        tracing::warn!(device, %error, "what an earlier process wrote cannot be written back, and is lost");
    }
    // A length of 0 stands for everything.
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .map_err(|errno| Error::os("drop what the page cache holds", errno.into()))
}

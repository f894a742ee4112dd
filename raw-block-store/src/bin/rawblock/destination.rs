//! Where output goes: never over the store that it comes from.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::stat::{major, minor};

/// Fails if the standard output is the store's device: a shell may have opened it for writing.
pub(crate) fn check_stdout(device: &Path) -> Result<()> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    if stdout.and_then(|stdout| stdout.metadata()).is_ok_and(|stdout| is_on(&stdout, device)) {
        bail!("the standard output is {}, the store itself: name another file", device.display());
    }
    Ok(())
}

/// Writes the value of an object in the store on `device` to a file, whose previous contents are
/// lost.
///
/// # Errors
/// If the file is that store, by whatever path, or a block device; nothing is written then. If the
/// value cannot be written whole; a file that was made for it is removed then.
pub(crate) fn write(path: &Path, device: &Path, value: &[u8]) -> Result<()> {
    let what = || format!("cannot write the value to {}", path.display());
    let check = |metadata: &Metadata| {
        if is_on(metadata, device) {
            bail!("it is the store itself: name another file");
        }
        if metadata.file_type().is_block_device() {
            bail!("it is a block device: `-` writes to the standard output, which may be one");
        }
        Ok(())
    };
    // Opening a block device for writing would have its contents probed.
    if let Ok(metadata) = fs::metadata(path) {
        check(&metadata).with_context(what)?;
    }
    let mut options = OpenOptions::new();
    let (mut file, is_new) = match options.write(true).create_new(true).open(path) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Not yet truncated: the path may have been replaced since it was looked at.
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
            (file.with_context(what)?, false)
        }
        Err(error) => return Err(error).with_context(what),
    };
    let metadata = file.metadata().with_context(what)?;
    check(&metadata).with_context(what)?;
    let truncated = if metadata.is_file() { file.set_len(0) } else { Ok(()) };
    let written = truncated.and_then(|()| file.write_all(value));
    if written.is_err() && is_new {
        // The first error counts.
        let _ = fs::remove_file(path);
    }
    written.with_context(what)
}

/// Whether this is the file or device at `device`, or the file below it if that is a loop device.
fn is_on(output: &Metadata, device: &Path) -> bool {
    let Ok(device) = fs::metadata(device) else { return false };
    is_same(output, &device) || backing_file(&device).is_some_and(|file| is_same(output, &file))
}

/// Whether both are one file, or nodes of one device.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let identity = |metadata: &Metadata| {
        let kind = metadata.file_type();
        if kind.is_block_device() || kind.is_char_device() {
            (kind.is_block_device(), metadata.rdev(), None)
        } else {
            (false, metadata.dev(), Some(metadata.ino()))
        }
    };
    identity(one) == identity(other)
}

/// The file of a loop device.
fn backing_file(device: &Metadata) -> Option<Metadata> {
    if !device.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (major(device.rdev()), minor(device.rdev()));
    let path = format!("/sys/dev/block/{major}:{minor}/loop/backing_file");
    fs::metadata(fs::read_to_string(path).ok()?.trim_end_matches('\n')).ok()
}

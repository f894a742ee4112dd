//! The device of the benchmark: a file that it creates, or a named device or file.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use raw_block_core::backend::DeviceFile;
use raw_block_core::{Direct, Geometry};
use raw_block_nvme::{NvmeBackend, NvmeOptions};

use super::data::SplitMix;
use super::options::Options;
use super::units::size;

/// The smallest target that holds a store and a few batches.
const SMALLEST: u64 = 64 << 20;

/// A file or block device, whose first `span` bytes are fully written with random bytes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    /// The character device of the same namespace, if the user has named that.
    pub(super) generic: Option<PathBuf>,
    /// The number of bytes that are used.
    pub(super) span: u64,
    pub(super) geometry: Geometry,
    pub(super) direct: bool,
    pub(super) is_block_device: bool,
}

impl Target {
    /// Finds or creates the target. Refuses to overwrite data without permission.
    pub(super) fn prepare(options: &Options, say: impl Fn(&str)) -> Result<Self> {
        let wanted = options.span();
        let Some(path) = &options.device else {
            let path = own_path(wanted);
            if !is_fully_written(&path, wanted) {
                say(&format!("writing {} of random bytes to {}", size(wanted), path.display()));
                make_file(&path, wanted)?;
            }
            return Self::look_at(path, wanted);
        };
        if path.exists() {
            may_be_overwritten(path, options.destroy_data)?;
            if is_character_device(path) {
                let block_device = block_device_of(path)?;
                let target = Self::fill_device(&block_device, wanted, say)?;
                return Ok(Self { generic: Some(path.clone()), ..target });
            }
        } else if path.starts_with("/dev") {
            bail!("{} does not exist: `lsblk` lists the block devices", path.display());
        } else {
            make_file(path, wanted)?;
        }
        Self::fill_device(path, wanted, say)
    }

    fn fill_device(path: &Path, wanted: u64, say: impl Fn(&str)) -> Result<Self> {
        // Held open while it is filled: a device that is mounted or in use elsewhere is refused
        // here.
        let device = DeviceFile::open(path, Direct::Preferred)?;
        let span = wanted.min(device.geometry().capacity);
        if span < SMALLEST {
            bail!(
                "{} is smaller than {}, which is too small for a benchmark",
                path.display(),
                size(SMALLEST)
            );
        }
        say(&format!("writing {} of random bytes to {}", size(span), path.display()));
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|file| fill(file, span))
            .with_context(|| format!("cannot write to {}", path.display()))?;
        drop(device);
        Self::look_at(path.to_owned(), span)
    }

    fn look_at(path: PathBuf, span: u64) -> Result<Self> {
        let device = DeviceFile::open(&path, Direct::Preferred)?;
        Ok(Self {
            span,
            geometry: *device.geometry(),
            direct: device.is_direct(),
            is_block_device: device.is_block_device(),
            generic: None,
            path,
        })
    }

    /// Writes the file again if it has holes: reads of a hole cost a device nothing.
    pub(super) fn fill_holes(&self) -> Result<()> {
        if self.is_block_device || is_fully_written(&self.path, self.span) {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| fill(file, self.span))
            .with_context(|| format!("cannot write to {}", self.path.display()))
    }
}

/// The file that is created when no device is named.
fn own_path(len: u64) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| workspace.unwrap_or(Path::new("")).join("target"));
    target.join("bench").join(format!("device-{}MiB", len >> 20))
}

fn is_character_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// The block device of the NVMe namespace with this character device.
fn block_device_of(generic: &Path) -> Result<PathBuf> {
    let backend = NvmeBackend::open(generic, &NvmeOptions::new())?;
    let path = backend.block_device().context("the namespace has no block device")?;
    Ok(path.to_owned())
}

/// Refuses to overwrite an existing device or file without permission.
fn may_be_overwritten(path: &Path, destroy_data: bool) -> Result<()> {
    let kind = fs::metadata(path).with_context(|| path.display().to_string())?.file_type();
    let what = if kind.is_block_device() {
        "block device"
    } else if kind.is_file() {
        "file"
    } else if kind.is_char_device() {
        "character device"
    } else {
        bail!("{} is neither a block device nor a file", path.display());
    };
    if !destroy_data {
        bail!(
            "the benchmark overwrites the {what} {}: if its data is not needed, add --destroy-data; without \
             a path the benchmark creates its own file",
            path.display()
        );
    }
    Ok(())
}

fn is_fully_written(path: &Path, len: u64) -> bool {
    // A block in `st_blocks` has 512 bytes on every system.
    fs::metadata(path).is_ok_and(|found| found.len() == len && found.blocks() * 512 >= len)
}

/// Creates a file of random bytes. It appears under its name when it is complete.
fn make_file(path: &Path, len: u64) -> Result<()> {
    let failed = || format!("cannot create the file {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    File::create(&unfinished)
        .and_then(|file| fill(file, len))
        .and_then(|()| fs::rename(&unfinished, path))
        .inspect_err(|_| {
            // An incomplete file is useless.
            let _ = fs::remove_file(&unfinished);
        })
        .with_context(failed)
}

fn fill(mut file: File, len: u64) -> std::io::Result<()> {
    let mut random = SplitMix(len);
    let mut bytes = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        random.fill(&mut bytes[..part]);
        file.write_all(&bytes[..part])?;
        left -= part as u64;
    }
    file.sync_all()?;
    // Otherwise the first direct writes would have to empty the page cache.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_or_device_is_overwritten_only_if_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        fs::write(&path, "data").unwrap();
        let refusal = may_be_overwritten(&path, false).unwrap_err().to_string();
        assert!(refusal.contains("--destroy-data") && refusal.contains("precious"), "{refusal}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
        may_be_overwritten(&path, true).unwrap();
    }

    #[test]
    fn a_directory_is_refused_even_with_permission() {
        assert!(may_be_overwritten(Path::new("/tmp"), true).is_err());
        let error = block_device_of(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("/dev/null") && error.contains("NVMe"), "{error}");
    }

    #[test]
    fn a_file_with_holes_is_not_fully_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert!(!is_fully_written(&path, 1 << 20));
        make_file(&path, 1 << 20).unwrap();
        assert!(is_fully_written(&path, 1 << 20));
        assert!(!is_fully_written(&path, 2 << 20));
    }
}

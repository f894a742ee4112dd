//! What the kernel reports about an open file or block device.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};

use super::alignment;
use crate::{Error, ErrorKind, Geometry};

mod ioctl {
    // `linux/fs.h`: BLKSSZGET is _IO(0x12, 104) and BLKROGET _IO(0x12, 94), which fill an int;
    // BLKGETSIZE64 is _IOR(0x12, 114).
    nix::ioctl_read_bad!(logical_block_size, nix::request_code_none!(0x12, 104), i32);
    nix::ioctl_read_bad!(is_write_protected, nix::request_code_none!(0x12, 94), i32);
    nix::ioctl_read!(size_in_bytes, 0x12, 114, u64);
}

pub(super) fn of(file: &File, is_block_device: bool, direct: bool) -> Result<Geometry, Error> {
    let mut geometry = if is_block_device { of_block_device(file)? } else { of_file(file)? };
    if direct {
        alignment::set(&mut geometry, file, is_block_device)?;
    } else {
        // The page cache takes any byte range, also the last bytes of a file.
        (geometry.memory_alignment, geometry.transfer_alignment) = (1, 1);
        if !is_block_device {
            geometry.capacity = len_of_file(file)?.min(Geometry::MAX_CAPACITY);
        }
    }
    // Checks the capacity that is left.
    Geometry::new(geometry.capacity, geometry.transfer_alignment.max(geometry.logical_block))?;
    Ok(geometry)
}

fn of_file(file: &File) -> Result<Geometry, Error> {
    let mut geometry = Geometry::new(len_of_file(file)?, Geometry::MIN_LOGICAL_BLOCK)?;
    geometry.regular_file = true;
    // By fallocate(2); a file system that lacks one of them says so when it is asked.
    geometry.discard = true;
    geometry.write_zeroes = true;
    Ok(geometry)
}

fn len_of_file(file: &File) -> Result<u64, Error> {
    Ok(file.metadata().map_err(|error| Error::os("ask for the size", error))?.len())
}

fn of_block_device(file: &File) -> Result<Geometry, Error> {
    let failed = |errno: nix::Error| Error::os("ask for the size", errno.into());
    let (mut block, mut capacity) = (0, 0);
    // SAFETY: this ioctl writes one int to the address, which is that of an int.
    unsafe { ioctl::logical_block_size(file.as_raw_fd(), &raw mut block) }.map_err(failed)?;
    // SAFETY: this ioctl writes one u64 to the address, which is that of a u64.
    unsafe { ioctl::size_in_bytes(file.as_raw_fd(), &raw mut capacity) }.map_err(failed)?;
    let mut geometry = Geometry::new(capacity, u32::try_from(block).unwrap_or(0))?;

    // Without sysfs, as in some containers, the defaults stand.
    let limits = QueueLimits::of(file);
    if let Some(kib) = limits.number("max_sectors_kb") {
        geometry.max_transfer = (kib << 10).max(u64::from(geometry.logical_block));
    }
    if let Some(segments) = limits.number("max_segments") {
        geometry.max_segments = u32::try_from(segments).unwrap_or(u32::MAX).max(1);
    }
    geometry.volatile_write_cache =
        limits.text("write_cache").is_none_or(|cache| cache != "write through");
    geometry.discard = limits.number("discard_max_bytes").is_some_and(|bytes| bytes > 0);
    geometry.write_zeroes = true; // the kernel writes zeroes itself where the device cannot
    Ok(geometry)
}

/// How many write streams a block device has; 0 where the kernel does not say.
pub(super) fn write_streams(file: &File) -> u16 {
    QueueLimits::of(file).write_streams()
}

/// Refuses a device that can be opened for writing and then accepts no writes.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] for a write-protected device, [`ErrorKind::Unsupported`] for a
/// host-managed zoned device or a file of hugetlbfs.
pub(super) fn check_takes_writes(file: &File, is_block_device: bool) -> Result<(), Error> {
    let (kind, rule) = if is_block_device {
        let mut protected = 0;
        // SAFETY: this ioctl writes one int to the address, which is that of an int.
        unsafe { ioctl::is_write_protected(file.as_raw_fd(), &raw mut protected) }
            .map_err(|errno| Error::os("ask for write protection", errno.into()))?;
        if protected != 0 {
            (
                ErrorKind::PermissionDenied,
                "the device is write-protected: lift that (`blockdev --setrw`), or open it read-only",
            )
        } else if QueueLimits::of(file).is_host_managed() {
            (
                ErrorKind::Unsupported,
                "it is a host-managed zoned device, which takes writes only at the write pointer of a \
                 zone: use a device without zones, or one whose zones are host-aware",
            )
        } else {
            return Ok(());
        }
    } else if fstatfs(file).is_ok_and(|answer| answer.filesystem_type() == HUGETLBFS_MAGIC) {
        (
            ErrorKind::Unsupported,
            "files of hugetlbfs can be mapped, and not written to: use a file of another file system",
        )
    } else {
        return Ok(());
    };
    Err(Error::new(kind, "open", rule))
}

/// The limits of a block device's request queue in sysfs.
struct QueueLimits {
    directory: PathBuf,
    is_of_partition: bool,
}

impl QueueLimits {
    fn of(file: &File) -> Self {
        let device = file.metadata().map_or(0, |metadata| metadata.rdev());
        Self::at(Path::new("/sys"), libc::major(device), libc::minor(device))
    }

    fn at(sysfs: &Path, major: u32, minor: u32) -> Self {
        let device = sysfs.join(format!("dev/block/{major}:{minor}"));
        // A partition has its disk's queue.
        let is_of_partition = fs::exists(device.join("partition")).unwrap_or(false);
        let directory = device.join(if is_of_partition { "../queue" } else { "queue" });
        Self { directory, is_of_partition }
    }

    /// The kernel refuses streams in writes to a partition, whose disk has them (Linux 6.16 to
    /// 6.18).
    fn write_streams(&self) -> u16 {
        let of_disk = self.number("max_write_streams").unwrap_or(0);
        if self.is_of_partition { 0 } else { u16::try_from(of_disk).unwrap_or(u16::MAX) }
    }

    fn is_host_managed(&self) -> bool {
        self.text("zoned").is_some_and(|model| model == "host-managed")
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.directory.join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zoned_device_is_host_managed_only_if_sysfs_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let limits = QueueLimits::at(directory.path(), 259, 0);
        assert!(!limits.is_host_managed(), "without sysfs");
        fs::create_dir_all(&limits.directory).unwrap();
        for (model, expected) in [("none", false), ("host-aware", false), ("host-managed", true)] {
            fs::write(limits.directory.join("zoned"), format!("{model}\n")).unwrap();
            assert_eq!(limits.is_host_managed(), expected, "{model}");
        }
    }

    #[test]
    fn a_disk_has_write_streams_and_its_partitions_have_none() {
        let sysfs = tempfile::tempdir().unwrap();
        let disk = sysfs.path().join("devices/nvme0n1");
        let partition = disk.join("nvme0n1p1");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(&partition).unwrap();
        fs::write(partition.join("partition"), "1\n").unwrap();
        let numbers = sysfs.path().join("dev/block");
        fs::create_dir_all(&numbers).unwrap();
        std::os::unix::fs::symlink(&disk, numbers.join("259:0")).unwrap();
        std::os::unix::fs::symlink(&partition, numbers.join("259:1")).unwrap();
        let streams = |minor| QueueLimits::at(sysfs.path(), 259, minor).write_streams();
        assert_eq!((streams(0), streams(1)), (0, 0), "before Linux 6.16");
        for (text, expected) in [("0\n", 0), ("7\n", 7), ("70000\n", u16::MAX), ("?\n", 0)] {
            fs::write(disk.join("queue/max_write_streams"), text).unwrap();
            assert_eq!((streams(0), streams(1)), (expected, 0), "{text}");
        }
        // The partition has its disk's other limits.
        fs::write(disk.join("queue/max_segments"), "33\n").unwrap();
        let segments = |minor| QueueLimits::at(sysfs.path(), 259, minor).number("max_segments");
        assert_eq!((segments(0), segments(1)), (Some(33), Some(33)));
    }
}

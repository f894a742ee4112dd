//! What the kernel tells about an open file or block device.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use crate::{Error, Geometry, MIN_LOGICAL_BLOCK};

/// Alignment in bytes that any file system accepts for direct transfers, where the kernel does not
/// tell (before 6.1, or on a file system that does not implement `STATX_DIOALIGN`).
const SAFE_FILE_ALIGNMENT: u32 = 4096;

mod ioctl {
    // `linux/fs.h`: BLKSSZGET is _IO(0x12, 104) and fills an int; BLKGETSIZE64 is _IOR(0x12, 114).
    nix::ioctl_read_bad!(logical_block_size, nix::request_code_none!(0x12, 104), i32);
    nix::ioctl_read!(size_in_bytes, 0x12, 114, u64);
}

pub(super) fn of(file: &File, is_block_device: bool, direct: bool) -> Result<Geometry, Error> {
    let mut geometry = if is_block_device { of_block_device(file)? } else { of_file(file)? };
    if !direct {
        geometry.memory_alignment = 1;
    } else if let Some((memory, offset)) = direct_alignment(file) {
        geometry.memory_alignment = memory;
        geometry.transfer_alignment = offset.max(geometry.logical_block);
        geometry.capacity -= geometry.capacity % u64::from(geometry.transfer_alignment);
    } else if !is_block_device {
        geometry.memory_alignment = SAFE_FILE_ALIGNMENT;
        geometry.transfer_alignment = SAFE_FILE_ALIGNMENT;
        geometry.capacity -= geometry.capacity % u64::from(SAFE_FILE_ALIGNMENT);
    }
    // Checks the capacity that is left.
    Geometry::new(geometry.capacity, geometry.transfer_alignment)?;
    Ok(geometry)
}

fn of_file(file: &File) -> Result<Geometry, Error> {
    let capacity = file.metadata().map_err(|error| Error::os("ask for the size", error))?.len();
    let mut geometry = Geometry::new(capacity, MIN_LOGICAL_BLOCK)?;
    geometry.regular_file = true;
    // By fallocate(2); a file system that lacks one of them says so when it is asked.
    geometry.discard = true;
    geometry.write_zeroes = true;
    Ok(geometry)
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

/// Memory and offset alignment in bytes for direct transfers, as `statx(2)` tells them.
fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, which with AT_EMPTY_PATH means the descriptor itself, and
    // `answer` has room for what statx writes.
    let failed = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    // SAFETY: every field is an integer, so the zeroes it started with are a value already.
    let answer = unsafe { answer.assume_init() };
    let told = failed == 0 && answer.stx_mask & libc::STATX_DIOALIGN != 0;
    (told && answer.stx_dio_offset_align > 0)
        .then_some((answer.stx_dio_mem_align.max(1), answer.stx_dio_offset_align))
}

/// The limits of a block device's request queue in sysfs.
struct QueueLimits(String);

impl QueueLimits {
    fn of(file: &File) -> Self {
        let device = file.metadata().map_or(0, |metadata| metadata.rdev());
        let (major, minor) = (libc::major(device), libc::minor(device));
        let device = format!("/sys/dev/block/{major}:{minor}");
        // A partition has its disk's queue.
        let partition = fs::exists(format!("{device}/partition")).unwrap_or(false);
        Self(format!("{device}/{}queue", if partition { "../" } else { "" }))
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("{}/{name}", self.0)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

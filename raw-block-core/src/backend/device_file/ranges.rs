//! Discarding or zeroing a range of a file or block device.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::AlignedBuf;

mod ioctl {
    // `linux/fs.h`: BLKDISCARD is _IO(0x12, 119) and takes an array of offset and length in bytes.
    nix::ioctl_write_ptr_bad!(discard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

/// How many zeroes are written by one call.
const ZEROES: usize = 1 << 20;

/// Discards the whole blocks of a range.
pub(super) fn discard_in_block_device(
    device: &File,
    block: u64,
    offset: u64,
    len: u64,
) -> io::Result<()> {
    let Some(whole) = whole_blocks(block, offset, len) else { return Ok(()) };
    let range = [whole.start, whole.end - whole.start];
    // SAFETY: this ioctl reads two u64 from the address, which is that of two u64.
    unsafe { ioctl::discard(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

pub(super) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(change(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?)
}

pub(super) fn zero_file(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match change(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len) {
        // A hole reads as zeroes too.
        Err(Errno::EOPNOTSUPP) => punch_hole(file, offset, len),
        result => Ok(result?),
    }
}

/// Zeroes the whole blocks of a range by the device's own operation, and writes the rest.
pub(super) fn zero_block_device(
    device: &File,
    block: u64,
    offset: u64,
    len: u64,
) -> io::Result<()> {
    let end = offset + len;
    let Some(whole) = whole_blocks(block, offset, len) else {
        return write_zeroes(device, offset..end);
    };
    write_zeroes(device, offset..whole.start)?;
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    match change(device, zero, whole.start, whole.end - whole.start) {
        // The kernel first drops the range from the page cache, and fails where a page stays dirty:
        // before Linux 5.16 also a page that is partly outside. A write works. Waiting
        // for writeback instead would hide its errors from the next flush.
        Err(Errno::EBUSY) => write_zeroes(device, whole.clone())?,
        result => result?,
    }
    write_zeroes(device, whole.end..end)
}

/// The whole blocks of a range, if it has any.
fn whole_blocks(block: u64, offset: u64, len: u64) -> Option<Range<u64>> {
    let end = offset + len;
    let whole = offset.next_multiple_of(block)..end - end % block;
    (!whole.is_empty()).then_some(whole)
}

fn write_zeroes(file: &File, range: Range<u64>) -> io::Result<()> {
    let len = usize::try_from(range.end - range.start).unwrap_or(ZEROES).min(ZEROES);
    let zeroes = AlignedBuf::zeroed(len).map_err(io::Error::other)?;
    let mut at = range.start;
    while at < range.end {
        let part = usize::try_from(range.end - at).unwrap_or(len).min(len);
        file.write_all_at(&zeroes[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

fn change(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> nix::Result<()> {
    let signed = |bytes| libc::off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
    let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, signed(offset)?, signed(len)?)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;
    use crate::conformance::Skipped;
    use raw_block_fixtures::LoopDevice;

    #[test]
    fn the_whole_blocks_of_a_range_are_inside_it() {
        assert_eq!(whole_blocks(512, 0, 512), Some(0..512));
        assert_eq!(whole_blocks(512, 1, 1535), Some(512..1536));
        assert_eq!(whole_blocks(512, 512, 1000), Some(512..1024));
        assert_eq!(whole_blocks(512, 1, 1022), None);
        assert_eq!(whole_blocks(512, 600, 10), None);
    }

    #[test]
    fn zeroes_are_written_where_the_kernel_keeps_a_dirty_page() {
        let device = match LoopDevice::attach(1 << 20, 4096) {
            Ok(device) => device,
            Err(skipped) => return skipped.report(),
        };
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(flags).open(device.path()).unwrap()
        };
        // The kernel drops dirty pages only for a descriptor that holds the device.
        let (_holder, file) = (open(libc::O_EXCL), open(0));
        file.write_all_at(&[9; 65_536], 0).unwrap();
        let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
        if change(&file, zero, 4096, 4096) != Err(Errno::EBUSY) {
            return Skipped::because("this kernel zeroes below a dirty page").report();
        }
        zero_block_device(&file, 4096, 1000, 10_000).unwrap();
        let mut found = [1; 12_000];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found[1000..11_000].iter().all(|&byte| byte == 0));
        assert!(found[..1000].iter().chain(&found[11_000..]).all(|&byte| byte == 9));
    }
}

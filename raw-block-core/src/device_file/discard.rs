//! Discarding a range of a file or block device.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

mod ioctl {
    // `linux/fs.h`: BLKDISCARD is _IO(0x12, 119) and takes an array of offset and length in bytes.
    nix::ioctl_write_ptr_bad!(discard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

pub(super) fn in_block_device(device: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: this ioctl reads two u64 from the address, which is that of two u64.
    unsafe { ioctl::discard(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

pub(super) fn in_file(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let signed = |bytes| libc::off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, hole, signed(offset)?, signed(len)?)?)
}

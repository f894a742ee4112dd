//! What is done to a range of a file or block device without transferring its bytes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

mod ioctl {
    // `linux/fs.h`: BLKDISCARD is _IO(0x12, 119) and takes an array of offset and length in bytes.
    nix::ioctl_write_ptr_bad!(discard, nix::request_code_none!(0x12, 119), [u64; 2]);
}

pub(super) fn discard_in_block_device(device: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: this ioctl reads two u64 from the address, which is that of two u64.
    unsafe { ioctl::discard(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

pub(super) fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(change(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?)
}

pub(super) fn zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match change(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len) {
        // A hole reads as zeroes too.
        Err(Errno::EOPNOTSUPP) => punch_hole(file, offset, len),
        result => Ok(result?),
    }
}

fn change(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> nix::Result<()> {
    let signed = |bytes| libc::off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
    let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, signed(offset)?, signed(len)?)
}

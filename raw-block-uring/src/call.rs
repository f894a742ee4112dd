//! Executes ops by system calls, where a ring cannot.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use raw_block_core::backend::{DeviceFile, Op, OpKind};

/// The most segments of one call: `UIO_MAXIOV` of `linux/uio.h`.
const MAX_SEGMENTS: usize = 1024;

/// Executes an op, and waits for it. A transfer moves as much as the kernel moves in one call.
/// Returns the result that a completion would have: a number of bytes, or a negative `errno`.
pub(crate) fn execute(file: &DeviceFile, op: &Op) -> i32 {
    let result = match op.kind() {
        OpKind::Read | OpKind::Write => transfer(file, op),
        OpKind::Flush => file.sync_data().map(|()| 0),
        OpKind::Discard => file.discard(op.offset(), op.len()).map(|()| 0),
        OpKind::WriteZeroes => file.write_zeroes(op.offset(), op.len()).map(|()| 0),
    };
    result.unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO))
}

fn transfer(file: &DeviceFile, op: &Op) -> io::Result<i32> {
    let shortened;
    let segments = match op.iovecs_for_call(MAX_SEGMENTS) {
        [segment] => {
            shortened = shorten(*segment);
            std::slice::from_ref(&shortened)
        }
        segments => segments,
    };
    #[expect(clippy::cast_possible_truncation, reason = "bounded by a constant that fits")]
    let count = segments.len() as i32;
    let (fd, list) = (file.as_fd().as_raw_fd(), segments.as_ptr());
    let at = libc::off_t::try_from(op.offset())
        .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    let moved = if op.kind() == OpKind::Read {
        // SAFETY: the list has `count` segments. Nothing else accesses their memory while the op
        // lives.
        unsafe { libc::preadv(fd, list, count, at) }
    } else {
        // SAFETY: the list has `count` segments. Nothing writes to their memory while the op lives.
        unsafe { libc::pwritev(fd, list, count, at) }
    };
    // At most `Op::MAX_CALL_BYTES`.
    if moved < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(moved.try_into().unwrap_or(i32::MAX))
    }
}

/// Shortens a segment to the most bytes that one call moves.
fn shorten(segment: libc::iovec) -> libc::iovec {
    libc::iovec { iov_len: segment.iov_len.min(Op::MAX_CALL_BYTES), ..segment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_at_a_multiple_of_any_block() {
        let segment = |iov_len| libc::iovec { iov_base: std::ptr::null_mut(), iov_len };
        assert_eq!(shorten(segment(4096)).iov_len, 4096);
        assert_eq!(shorten(segment((1 << 31) + 65_536)).iov_len, Op::MAX_CALL_BYTES);
    }
}

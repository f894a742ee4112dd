//! The alignment of direct transfers.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::{AlignedBuf, Error, Geometry};

/// Alignment in bytes that any file system accepts for direct transfers, where the kernel does not
/// report it (before 6.1, or on a file system that does not implement `STATX_DIOALIGN`).
const SAFE_FILE_ALIGNMENT: u32 = 4096;

/// Sets the alignments of direct transfers, and rounds the capacity down to them.
///
/// # Errors
/// When there is no memory for the self-test.
pub(super) fn set(
    geometry: &mut Geometry,
    file: &File,
    is_block_device: bool,
) -> Result<(), Error> {
    let reported = reported(file);
    let (memory, transfer) = match reported {
        Some((memory, transfer)) => (memory, transfer.max(geometry.logical_block)),
        None if is_block_device => (1, geometry.logical_block),
        None => (SAFE_FILE_ALIGNMENT, SAFE_FILE_ALIGNMENT),
    };
    geometry.transfer_alignment = transfer;
    geometry.capacity -= geometry.capacity % u64::from(transfer);
    // A driver that takes whole pages may ignore where in the page the memory begins, whatever it
    // reports: zram does, and writes past the caller's memory.
    let page = u32::try_from(AlignedBuf::ALIGNMENT).unwrap_or(u32::MAX);
    geometry.memory_alignment = memory.max(transfer.min(page));
    if geometry.memory_alignment < page && !obeys_memory_offset(file, geometry)? {
        tracing::warn!(
            reported = geometry.memory_alignment,
            "the device does not read to where it was asked to in a page: it is given whole pages"
        );
        geometry.memory_alignment = page;
    }
    Ok(())
}

/// Memory and offset alignment in bytes for direct transfers, as `statx(2)` reports them.
///
/// For a file that shares blocks with a copy (a reflink), XFS reports two offset alignments: that
/// of reads (Linux 6.14), and a larger one, below which it executes a direct write through the page
/// cache. The kernel takes transfers of the smaller one, so that is the rule.
fn reported(file: &File) -> Option<(u32, u32)> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string, which with AT_EMPTY_PATH means the descriptor itself,
    // and `answer` has space for what statx writes.
    let failed = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN | libc::STATX_DIO_READ_ALIGN,
            answer.as_mut_ptr(),
        )
    };
    // SAFETY: every field is an integer, so the zeroes it started with are a value already.
    let answer = unsafe { answer.assume_init() };
    let has = |mask| failed == 0 && answer.stx_mask & mask != 0;
    let offset = if has(libc::STATX_DIO_READ_ALIGN) && answer.stx_dio_read_offset_align > 0 {
        answer.stx_dio_read_offset_align.min(answer.stx_dio_offset_align)
    } else {
        answer.stx_dio_offset_align
    };
    (has(libc::STATX_DIOALIGN) && offset > 0).then_some((answer.stx_dio_mem_align.max(1), offset))
}

/// Reads the first block twice, to the beginning of a page and to an address with no more than the
/// alignment in the geometry. Returns whether both reads agree and the second changed no other
/// memory.
///
/// A block that cannot be read proves nothing.
fn obeys_memory_offset(file: &impl FileExt, geometry: &Geometry) -> Result<bool, Error> {
    const UNTOUCHED: u8 = 0xA5;
    let (len, shift) = (geometry.transfer_alignment as usize, geometry.memory_alignment as usize);
    let mut whole = AlignedBuf::zeroed(len)?;
    // With a page more on either side, a driver that is wrong by less than a page stays in this
    // buffer.
    let mut shifted = AlignedBuf::zeroed(
        len.next_multiple_of(AlignedBuf::ALIGNMENT) + 2 * AlignedBuf::ALIGNMENT,
    )?;
    shifted.fill(UNTOUCHED);
    let begin = AlignedBuf::ALIGNMENT + shift;
    let reads = [file.read_at(&mut whole, 0), file.read_at(&mut shifted[begin..begin + len], 0)];
    match reads {
        [Ok(_), Err(error)] if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        [Ok(first), Ok(second)] if first == len && second == len => {
            let (before, rest) = shifted.split_at(begin);
            let (found, after) = rest.split_at(len);
            let untouched = before.iter().chain(after).all(|&byte| byte == UNTOUCHED);
            Ok(untouched && found == &whole[..])
        }
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of nines that answers a read to memory inside a page in its own way.
    struct Driver(fn(&mut [u8]) -> io::Result<usize>);

    impl FileExt for Driver {
        fn read_at(&self, memory: &mut [u8], _offset: u64) -> io::Result<usize> {
            if (memory.as_ptr() as usize).is_multiple_of(AlignedBuf::ALIGNMENT) {
                memory.fill(9);
                return Ok(memory.len());
            }
            (self.0)(memory)
        }

        fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
            unreachable!("nothing is written by opening")
        }
    }

    #[test]
    fn a_driver_is_trusted_with_a_page_only_if_it_reads_into_it() {
        let obeys = |driver| {
            let geometry = Geometry::new(1 << 20, 512).unwrap();
            obeys_memory_offset(&Driver(driver), &geometry).unwrap()
        };
        assert!(obeys(|memory| {
            memory.fill(9);
            Ok(memory.len())
        }));
        assert!(!obeys(|memory| Ok(memory.len())), "it read to somewhere else");
        assert!(!obeys(|_| Err(io::Error::from_raw_os_error(libc::EINVAL))), "it refuses");
        assert!(obeys(|_| Err(io::Error::from_raw_os_error(libc::EIO))), "nothing is proved");
    }
}

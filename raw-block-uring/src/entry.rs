//! Encodes an op as a submission entry.

use io_uring::{opcode, squeue, types};
use raw_block_core::backend::{Op, OpKind};

use crate::ring::Lookup;

/// The device's index in the ring's table of registered files.
const DEVICE: types::Fixed = types::Fixed(0);
/// The most segments of one entry: `UIO_MAXIOV` of `linux/uio.h`. The rest of a longer op takes
/// further entries.
const MAX_SEGMENTS: usize = 1024;

/// Discards a range of a block device, from Linux 6.12 on: `BLOCK_URING_CMD_DISCARD` of
/// `linux/blkdev.h`, which is `_IO(0x12, 0)`.
const DISCARD: u32 = 0x12 << 8;

/// The write stream of an op, from 1 on; 0 for none. The kernel takes 8 bits (`linux/io_uring.h`).
fn write_stream(op: &Op) -> u8 {
    let stream = op.options().placement.and_then(|handle| handle.checked_add(1));
    // The geometry has no handle above 254. Without a stream, the write would still be correct.
    stream.map_or(0, |stream| u8::try_from(stream).unwrap_or(0))
}

/// The number of write streams that an entry can name.
pub(crate) const MAX_STREAMS: u16 = u8::MAX as u16;

/// Joins segments into one if each begins where the previous one ends, so that the kernel reads no
/// list.
pub(crate) fn join(segments: &[libc::iovec]) -> Option<libc::iovec> {
    let end = |segment: &libc::iovec| segment.iov_base.cast::<u8>().wrapping_add(segment.iov_len);
    let (first, rest) = segments.split_first()?;
    rest.iter().try_fold(*first, |joined, next| {
        let iov_len = joined.iov_len.checked_add(next.iov_len)?;
        (end(&joined).cast() == next.iov_base).then_some(libc::iovec { iov_len, ..joined })
    })
}

/// The entry for the rest of an op.
///
/// `segments` is the list of the op, or one segment in its place. A discard of a block device
/// (`is_block_device`) and one of a file are different operations.
pub(crate) fn of(
    op: &Op,
    segments: &[libc::iovec],
    is_block_device: bool,
    memory: Lookup,
) -> squeue::Entry {
    let region = match memory {
        Lookup::Region(region) => Some(region),
        Lookup::Crossing | Lookup::Plain => None,
    };
    match (op.kind(), segments) {
        (OpKind::Read | OpKind::Write, [segment]) => one_segment(op, segment, region),
        (OpKind::Read | OpKind::Write, _) => match op.iovecs_for_call(MAX_SEGMENTS) {
            [segment] => one_segment(op, segment, region),
            segments => many_segments(op, segments, region),
        },
        // Data, and the metadata needed to read them: no op changes the size of the device.
        (OpKind::Flush, _) => opcode::Fsync::new(DEVICE).flags(types::FsyncFlags::DATASYNC).build(),
        (OpKind::Discard, _) if is_block_device => discard(op),
        (OpKind::WriteZeroes, _) => change_range(op, libc::FALLOC_FL_ZERO_RANGE),
        (OpKind::Discard, _) => change_range(op, libc::FALLOC_FL_PUNCH_HOLE),
    }
}

fn one_segment(op: &Op, segment: &libc::iovec, region: Option<u16>) -> squeue::Entry {
    let (at, memory) = (op.offset(), segment.iov_base.cast::<u8>());
    #[expect(clippy::cast_possible_truncation, reason = "bounded by a constant that fits")]
    let len = segment.iov_len.min(Op::MAX_CALL_BYTES) as u32;
    match (op.kind(), region) {
        (OpKind::Read, Some(region)) => {
            opcode::ReadFixed::new(DEVICE, memory, len, region).offset(at).build()
        }
        (OpKind::Read, None) => opcode::Read::new(DEVICE, memory, len).offset(at).build(),
        (_, Some(region)) => {
            let write = opcode::WriteFixed::new(DEVICE, memory, len, region);
            write.offset(at).write_stream(write_stream(op)).build()
        }
        (_, None) => {
            let write = opcode::Write::new(DEVICE, memory, len);
            write.offset(at).write_stream(write_stream(op)).build()
        }
    }
}

fn many_segments(op: &Op, segments: &[libc::iovec], region: Option<u16>) -> squeue::Entry {
    let (at, list) = (op.offset(), segments.as_ptr());
    #[expect(clippy::cast_possible_truncation, reason = "bounded by a constant that fits")]
    let count = segments.len() as u32;
    match (op.kind(), region) {
        (OpKind::Read, Some(region)) => {
            opcode::ReadvFixed::new(DEVICE, list, count, region).offset(at).build()
        }
        (OpKind::Read, None) => opcode::Readv::new(DEVICE, list, count).offset(at).build(),
        (_, Some(region)) => {
            let write = opcode::WritevFixed::new(DEVICE, list, count, region);
            write.offset(at).write_stream(write_stream(op)).build()
        }
        (_, None) => {
            let write = opcode::Writev::new(DEVICE, list, count);
            write.offset(at).write_stream(write_stream(op)).build()
        }
    }
}

fn discard(op: &Op) -> squeue::Entry {
    // The length goes into `addr3`, which is the first word of the entry's command data.
    let mut command = [0; 16];
    #[expect(clippy::host_endian_bytes, reason = "it is a number in memory for this kernel")]
    command[..8].copy_from_slice(&op.len().to_ne_bytes());
    opcode::UringCmd16::new(DEVICE, DISCARD).addr(Some(op.offset())).cmd(command).build()
}

fn change_range(op: &Op, mode: i32) -> squeue::Entry {
    opcode::Fallocate::new(DEVICE, op.len())
        .offset(op.offset())
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_one_piece_only_when_all_are_contiguous() {
        let segment = |start, iov_len| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(start),
            iov_len,
        };
        let joined = |segments: &[libc::iovec]| {
            join(segments).map(|joined| (joined.iov_base as usize, joined.iov_len))
        };
        let (first, second) = (segment(0x1000, 0x200), segment(0x1200, 0x1000));
        assert_eq!(joined(&[first]), Some((0x1000, 0x200)));
        assert_eq!(joined(&[first, second]), Some((0x1000, 0x1200)));
        assert_eq!(joined(&[first, second, segment(0x2200, 1)]), Some((0x1000, 0x1201)));
        assert_eq!(joined(&[second, first]), None, "in the other order");
        assert_eq!(joined(&[first, second, segment(0x2201, 1)]), None, "a byte apart");
        assert_eq!(joined(&[]), None);
    }
}

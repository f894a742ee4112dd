//! From an op to a submission entry.

use io_uring::{opcode, squeue, types};
use raw_block_core::backend::{Op, OpKind};

use crate::ring::Lookup;

/// The device's place in the ring's table of registered files.
const DEVICE: types::Fixed = types::Fixed(0);
/// One entry takes at most this many segments, `UIO_MAXIOV` of `linux/uio.h`, and [`Op::MAX_CALL_BYTES`]. The rest of a
/// longer op follows.
const MAX_SEGMENTS: usize = 1024;

/// Discards a range of a block device, from Linux 6.12 on: `BLOCK_URING_CMD_DISCARD` of `linux/blkdev.h`,
/// which is `_IO(0x12, 0)`.
const DISCARD: u32 = 0x12 << 8;

/// The write stream of an op, from 1 on; 0 for none. The kernel takes 8 bits (`linux/io_uring.h`).
fn write_stream(op: &Op) -> u8 {
    let stream = op.options().placement.and_then(|handle| handle.checked_add(1));
    // The geometry has no handle above; without a stream the write would be as good.
    stream.map_or(0, |stream| u8::try_from(stream).unwrap_or(0))
}

/// How many of a device's write streams an entry can name.
pub(crate) const MAX_STREAMS: u16 = u8::MAX as u16;

/// These segments as one, if each begins where the one before it ends: the kernel then has no list to take in.
pub(crate) fn one_piece(segments: &[libc::iovec]) -> Option<libc::iovec> {
    let end = |segment: &libc::iovec| segment.iov_base.cast::<u8>().wrapping_add(segment.iov_len);
    let (first, rest) = segments.split_first()?;
    rest.iter().try_fold(*first, |piece, next| {
        let iov_len = piece.iov_len.checked_add(next.iov_len)?;
        (end(&piece).cast() == next.iov_base).then_some(libc::iovec { iov_len, ..piece })
    })
}

/// The entry that carries out what is left of an op.
///
/// `segments` is the op's own list, or a single segment in its place; `is_block_device` says what is discarded.
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
        // Data and whatever is needed to find them again: the size of the device never changes here.
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
        let piece = |segments: &[libc::iovec]| {
            one_piece(segments).map(|piece| (piece.iov_base as usize, piece.iov_len))
        };
        let (first, second) = (segment(0x1000, 0x200), segment(0x1200, 0x1000));
        assert_eq!(piece(&[first]), Some((0x1000, 0x200)));
        assert_eq!(piece(&[first, second]), Some((0x1000, 0x1200)));
        assert_eq!(piece(&[first, second, segment(0x2200, 1)]), Some((0x1000, 0x1201)));
        assert_eq!(piece(&[second, first]), None, "in the other order");
        assert_eq!(piece(&[first, second, segment(0x2201, 1)]), None, "a byte apart");
        assert_eq!(piece(&[]), None);
    }
}

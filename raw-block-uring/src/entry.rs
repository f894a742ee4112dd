//! From an op to a submission entry.

use io_uring::{opcode, squeue, types};
use raw_block_core::{Op, OpKind};

use crate::regions::Regions;
use crate::slots::InFlight;

/// The device's place in the ring's table of registered files.
const DEVICE: types::Fixed = types::Fixed(0);
/// One entry moves at most this many bytes, well below the kernel's own limit for one transfer of
/// 2 GiB less a page (`read(2)`). The rest of a longer op follows.
const MAX_BYTES: usize = 1 << 30;
/// One entry takes at most this many segments: `UIO_MAXIOV` of `linux/uio.h`. The rest follows.
const MAX_SEGMENTS: usize = 1024;

/// The entry that carries out what is left of an op, and whether it uses registered memory.
pub(crate) fn of(in_flight: &InFlight, regions: &Regions) -> (squeue::Entry, bool) {
    let op = &in_flight.op;
    let (offset, segments) = (op.offset(), op.iovecs());
    #[expect(clippy::cast_possible_truncation, reason = "both are bounded by constants that fit")]
    let (count, first_len) = (
        segments.len().min(MAX_SEGMENTS) as u32,
        segments.first().map_or(0, |segment| segment.iov_len.min(MAX_BYTES)) as u32,
    );
    match (op.kind(), segments) {
        (OpKind::Read, [segment]) => {
            let to = segment.iov_base.cast();
            match regions.find(segment) {
                Some(region) => (
                    opcode::ReadFixed::new(DEVICE, to, first_len, region).offset(offset).build(),
                    true,
                ),
                None => (opcode::Read::new(DEVICE, to, first_len).offset(offset).build(), false),
            }
        }
        (OpKind::Write, [segment]) => {
            let from = segment.iov_base.cast_const().cast();
            match regions.find(segment) {
                Some(region) => (
                    opcode::WriteFixed::new(DEVICE, from, first_len, region).offset(offset).build(),
                    true,
                ),
                None => (opcode::Write::new(DEVICE, from, first_len).offset(offset).build(), false),
            }
        }
        (OpKind::Read, _) => {
            (opcode::Readv::new(DEVICE, segments.as_ptr(), count).offset(offset).build(), false)
        }
        (OpKind::Write, _) => {
            (opcode::Writev::new(DEVICE, segments.as_ptr(), count).offset(offset).build(), false)
        }
        // Data and whatever is needed to find them again: the size of the device never changes here.
        (OpKind::Flush, _) => {
            (opcode::Fsync::new(DEVICE).flags(types::FsyncFlags::DATASYNC).build(), false)
        }
        (OpKind::Discard, _) => (change_range(op, libc::FALLOC_FL_PUNCH_HOLE), false),
        // A hole reads as zeroes too.
        (OpKind::WriteZeroes, _) if in_flight.punches => {
            (change_range(op, libc::FALLOC_FL_PUNCH_HOLE), false)
        }
        (OpKind::WriteZeroes, _) => (change_range(op, libc::FALLOC_FL_ZERO_RANGE), false),
    }
}

fn change_range(op: &Op, mode: i32) -> squeue::Entry {
    opcode::Fallocate::new(DEVICE, op.len())
        .offset(op.offset())
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

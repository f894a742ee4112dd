//! Which bytes of a transfer move directly, and which through staging memory.

use crate::Geometry;
use crate::backend::Segment;

/// A piece of a transfer, in the order of the device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// The caller's memory as it is.
    Direct(Segment),
    /// The caller's bytes, by way of the staging memory from byte `at` on.
    Staged { caller: Segment, at: usize },
    /// Padding: `len` bytes of the staging memory from byte `at` on, zero in a write, ignored in a
    /// read.
    Padding { at: usize, len: usize },
}

/// The alignment of pieces that move directly, as masks, which spare twenty divisions a transfer.
/// The dispatcher accepts only powers of two.
#[derive(Clone, Copy)]
pub(super) struct Alignment {
    in_block: usize,
    in_address: usize,
}

impl Alignment {
    #[inline]
    pub(super) fn of(geometry: &Geometry) -> Self {
        Self {
            in_block: (geometry.transfer_alignment as usize).wrapping_sub(1),
            in_address: (geometry.memory_alignment as usize).wrapping_sub(1),
        }
    }

    #[inline]
    fn is_aligned(self, segment: &libc::iovec) -> bool {
        segment.iov_base as usize & self.in_address == 0
    }

    /// The number of bytes at the front of a segment that move directly, if it begins at a block of
    /// the device.
    #[inline]
    pub(super) fn direct_len(self, segment: &libc::iovec) -> usize {
        if self.is_aligned(segment) { segment.iov_len & !self.in_block } else { 0 }
    }
}

/// Splits the payload in `segments`, padded to `total_len`, into pieces. The payload is not longer.
///
/// Stages only what breaks the alignment rules, unless all of it is `copied`: a segment at an
/// unaligned address, or the part of a device block that a segment does not fill, with the bytes
/// that complete that block. `staging` is the first free byte of the staging memory; returns the
/// first one that is free afterwards. Consecutive staged pieces are contiguous in staging memory,
/// from an aligned address to an aligned address.
///
/// The same arguments give the same pieces: a write copies along them before it starts, a read
/// after it has completed.
pub(super) fn lay_out(
    segments: impl IntoIterator<Item = Segment>,
    total_len: u64,
    copied: bool,
    geometry: &Geometry,
    mut staging: usize,
    mut visit: impl FnMut(Piece),
) -> usize {
    let alignment @ Alignment { in_block, in_address } = Alignment::of(geometry);
    let block = in_block + 1;
    let align = |at: usize| (at + in_address) & !in_address;
    // The bytes of the current block that are staged; at 0 the next piece may be direct.
    let mut filled = 0;
    let mut moved = 0;
    for Segment(mut rest) in segments {
        while rest.iov_len > 0 {
            let usable = filled == 0 && !copied;
            let direct_len = if usable { alignment.direct_len(&rest) } else { 0 };
            let direct = direct_len > 0;
            let len = if direct {
                direct_len
            } else if filled == 0 && (copied || !alignment.is_aligned(&rest)) {
                rest.iov_len
            } else {
                rest.iov_len.min(block - filled)
            };
            let piece = Segment(libc::iovec { iov_len: len, ..rest });
            if direct {
                staging = align(staging);
                visit(Piece::Direct(piece));
            } else {
                visit(Piece::Staged { caller: piece, at: staging });
                staging += len;
                filled = (filled + len) & in_block;
            }
            moved += len as u64;
            rest.iov_base = rest.iov_base.cast::<u8>().wrapping_add(len).cast();
            rest.iov_len -= len;
        }
    }
    if let Ok(len @ 1..) = usize::try_from(total_len - moved) {
        visit(Piece::Padding { at: staging, len });
        staging += len;
    }
    align(staging)
}

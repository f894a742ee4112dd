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
    let block = geometry.transfer_alignment as usize;
    // `Dispatcher::with_options` accepts powers of two only, so masks replace twenty divisions a
    // transfer.
    let (in_block, in_address) = (block - 1, geometry.memory_alignment as usize - 1);
    let align = |at: usize| (at + in_address) & !in_address;
    // The bytes of the current block that are staged; at 0 the next piece may be direct.
    let mut filled = 0;
    let mut moved = 0;
    for Segment(mut rest) in segments {
        while rest.iov_len > 0 {
            let aligned = !copied && rest.iov_base as usize & in_address == 0;
            let direct = filled == 0 && aligned && rest.iov_len >= block;
            let len = if direct {
                rest.iov_len & !in_block
            } else if filled == 0 && !aligned {
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

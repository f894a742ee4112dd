//! Which bytes of a transfer move directly, and which through staging memory.

use super::request::Request;
use crate::Geometry;
use crate::backend::Segment;

/// A piece of a transfer, in the order of the device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// The caller's memory as it is.
    Direct(Segment),
    /// The caller's bytes, by way of the staging memory from byte `at` on.
    Staged { caller: Segment, at: usize },
    /// Padding: `len` bytes of the staging memory from byte `at` on, zero in a write, ignored in a read.
    Padding { at: usize, len: usize },
}

/// Splits the payload of a request, in `segments` and padded to its total length, into pieces.
///
/// Only what offends is staged, unless all of the request is [copied](Request::copied): a segment at an
/// unaligned address, or the part of a device block that a segment does not fill, together with what
/// completes that block. `staging` is the first byte of the
/// staging memory that is free; the first one that is free afterwards is returned. Staged pieces that
/// follow each other lie one behind the other, from an aligned place to an aligned place.
///
/// The same arguments give the same pieces: a write copies along them before it starts, a read after it
/// ended.
pub(super) fn lay_out(
    segments: &[Segment],
    request: &Request,
    geometry: &Geometry,
    mut staging: usize,
    mut visit: impl FnMut(Piece),
) -> usize {
    let block = geometry.transfer_alignment as usize;
    // Both are powers of two, or there would be no dispatcher: masks spare each transfer twenty divisions.
    let (in_block, in_place) = (block - 1, geometry.memory_alignment as usize - 1);
    let next_place = |at: usize| (at + in_place) & !in_place;
    // How many bytes of the current block are staged already; at 0 a new piece may be direct.
    let mut filled = 0;
    let mut moved = 0;
    for &segment in segments {
        let mut rest = segment.0;
        while rest.iov_len > 0 {
            let aligned = !request.copied && rest.iov_base as usize & in_place == 0;
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
                staging = next_place(staging);
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
    if let Ok(len @ 1..) = usize::try_from(request.total_len - moved) {
        visit(Piece::Padding { at: staging, len });
        staging += len;
    }
    next_place(staging)
}

//! From the transfers of a wave to its ops: staging what offends, merging what is adjacent.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::batch::Batch;
use super::layout::Piece;
use super::wave::{Run, Wave};
use crate::backend::{BatchMemory, Segment};
use crate::backend::{Op, OpKind, Stats};
use crate::{AlignedBuf, Error, Geometry};

/// A merged op never becomes longer, in bytes: above, merging gains little, and the caller starts
/// later with a part of the batch while the rest is in flight.
const LONGEST_MERGE: u64 = 256 << 10;

impl Batch {
    /// Makes the ops of `wave`, a part of `order`, which needs `staging` bytes of staging memory.
    ///
    /// # Errors
    /// When there is no memory to stage in; then there are no ops.
    pub(super) fn plan(
        &mut self,
        wave: Range<usize>,
        staging: usize,
        apart: bool,
        geometry: &Geometry,
        stats: &Stats,
    ) -> Result<(), Error> {
        let Self { requests, wave: Wave { runs, waiting, memory: shared, .. }, .. } = self;
        let kind = requests.kind;
        let memory = Arc::get_mut(shared)
            .unwrap_or_else(|| unreachable!("lanes and waves start when the ops are gone"));
        if memory.staging.len() < staging {
            memory.staging = AlignedBuf::default();
            memory.staging = AlignedBuf::zeroed(staging)?;
        }
        memory.segments.clear();

        let mergeable = !apart && kind.transfers();
        let longest = if mergeable { LONGEST_MERGE.min(geometry.max_transfer) } else { 0 };
        let (mut merged, mut direct, mut staged) = (0, 0, 0);
        for position in wave {
            let request = requests.get(requests.order[position]);
            let first = memory.segments.len();
            if kind.transfers() {
                requests.lay_out(request, geometry, request.staging, |piece| {
                    match piece {
                        Piece::Direct(Segment(segment)) => direct += segment.iov_len as u64,
                        Piece::Staged { caller: Segment(caller), .. } => {
                            staged += caller.iov_len as u64;
                        }
                        Piece::Padding { len, .. } => staged += len as u64,
                    }
                    place(piece, kind, memory, first);
                });
            }
            let segments = first..memory.segments.len();
            match runs.last_mut() {
                Some(run)
                    if run.offset + run.len == request.offset
                        && run.len + request.total_len <= longest
                        && run.options == request.options
                        && run.segments.len() + segments.len()
                            <= geometry.max_segments as usize =>
                {
                    merged += if run.requests.len() == 1 { 2 } else { 1 };
                    run.requests.end = position + 1;
                    run.len += request.total_len;
                    run.segments.end = segments.end;
                }
                _ => runs.push(Run::new(
                    position..position + 1,
                    request.offset,
                    request.total_len,
                    request.options,
                    segments,
                )),
            }
        }
        stats.update(|stats| {
            stats.ops += runs.len() as u64;
            stats.merged_transfers += merged;
            if kind.transfers() {
                stats.direct_bytes += direct;
                stats.staged_bytes += staged;
            }
        });

        // The list is complete and stays in place while there are ops: now they can point into it.
        let list = memory.segments.as_mut_ptr();
        for (index, run) in (0..).zip(runs.iter()) {
            let part = std::ptr::slice_from_raw_parts_mut(
                list.wrapping_add(run.segments.start),
                run.segments.len(),
            );
            let part = NonNull::new(part)
                .unwrap_or_else(|| unreachable!("a vector's pointer is not null"));
            let shared = Arc::clone(shared);
            // SAFETY: the parts of different runs do not overlap, and `shared` keeps the list in
            // place. Its segments are staging memory, kept by `shared` and laid out without
            // overlap, or the callers' memory, which by the contract of `add` is the batch's until
            // it is released, that is, until every op was dropped.
            let op = unsafe { Op::new(kind, index, run.offset, run.len, part, shared) };
            waiting.push_back(op.with_options(run.options));
        }
        Ok(())
    }
}

/// Appends a piece to the segment list, and for a write fills its staging memory. Pieces of one
/// request (whose segments begin at `first`) that touch each other in staging memory become one
/// segment.
fn place(piece: Piece, kind: OpKind, memory: &mut BatchMemory, first: usize) {
    let (at, len) = match piece {
        Piece::Direct(segment) => {
            memory.segments.push(segment);
            return;
        }
        Piece::Staged { caller: Segment(caller), at } => (at, caller.iov_len),
        Piece::Padding { at, len } => (at, len),
    };
    // SAFETY: `cut_wave` laid out the same pieces and sized the staging memory for them.
    let to = unsafe { memory.staging.start().add(at) };
    if kind == OpKind::Write {
        match piece {
            Piece::Staged { caller: Segment(caller), .. } => {
                let from = caller.iov_base.cast::<u8>().cast_const();
                // SAFETY: `from` is `len` bytes of the caller's, to which no other thread writes
                // (the contract of `add`); `to` is `len` bytes of staging memory that no op has
                // yet.
                unsafe { to.as_ptr().copy_from_nonoverlapping(from, len) };
            }
            // SAFETY: as above.
            _ => unsafe { to.write_bytes(0, len) },
        }
    }
    // A segment of the caller's may end where the staging memory begins; that is no neighbour.
    if let [.., Segment(last)] = &mut memory.segments[first..]
        && last.iov_base as usize >= memory.staging.start().as_ptr() as usize
        && last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == to.as_ptr()
    {
        last.iov_len += len;
    } else {
        memory.segments.push(Segment(libc::iovec { iov_base: to.as_ptr().cast(), iov_len: len }));
    }
}

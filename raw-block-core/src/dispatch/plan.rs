//! From the requests of a wave to its ops: stages unaligned memory, and merges neighbours.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::batch::Batch;
use super::layout::Piece;
use super::requests::{Request, Requests};
use super::wave::{Run, Wave};
use crate::backend::{BatchMemory, Op, OpKind, Segment, Stats};
use crate::{AlignedBuf, Error, Geometry};

/// The maximum length in bytes of a merged op: 256 KiB and a block in front of them, such as a
/// header. A longer one would gain little, and would delay the caller that works on a part of the
/// batch while the rest is in flight.
const LONGEST_MERGE: u64 = (256 + 4) << 10;

/// The bytes of a wave by the way that they move.
#[derive(Default)]
struct Moved {
    direct: u64,
    staged: u64,
}

impl Batch {
    /// Makes the ops of the requests at `positions`, which need `staging` bytes of staging memory.
    /// With `apart`, each request is a separate op.
    ///
    /// # Errors
    /// When there is no memory to stage in; then there are no ops.
    pub(super) fn plan(
        &mut self,
        positions: Range<usize>,
        staging: usize,
        apart: bool,
        geometry: &Geometry,
        stats: &Stats,
    ) -> Result<(), Error> {
        let Self { requests, wave, .. } = self;
        let kind = requests.kind;
        let memory = Arc::get_mut(&mut wave.memory)
            .unwrap_or_else(|| unreachable!("lanes and waves start when the ops are gone"));
        if memory.staging.len() < staging {
            memory.staging = AlignedBuf::default();
            memory.staging = AlignedBuf::zeroed(staging)?;
        }
        memory.segments.clear();

        let mergeable = !apart && kind.transfers();
        let longest = if mergeable { LONGEST_MERGE.min(geometry.max_transfer) } else { 0 };
        let (mut merged, mut moved) = (0, Moved::default());
        for position in positions {
            let request = requests.get(requests.order[position]);
            let segments = stage(requests, request, geometry, memory, &mut moved);
            merged += add_to_runs(&mut wave.runs, position, request, segments, longest, geometry);
        }
        stats.update(|stats| {
            stats.ops += wave.runs.len() as u64;
            stats.merged_transfers += merged;
            stats.direct_bytes += moved.direct;
            stats.staged_bytes += moved.staged;
        });
        make_ops(wave, kind);
        Ok(())
    }
}

/// Appends the segments of a request to the list of the wave, and fills its staging memory for a
/// write. Returns its part of the list.
#[inline]
fn stage(
    requests: &Requests,
    request: &Request,
    geometry: &Geometry,
    memory: &mut BatchMemory,
    moved: &mut Moved,
) -> Range<usize> {
    let first = memory.segments.len();
    if requests.kind.transfers() {
        requests.lay_out(request, geometry, request.staging, |piece| {
            match piece {
                Piece::Direct(Segment(segment)) => moved.direct += segment.iov_len as u64,
                Piece::Staged { caller: Segment(caller), .. } => {
                    moved.staged += caller.iov_len as u64;
                }
                Piece::Padding { len, .. } => moved.staged += len as u64,
            }
            place(piece, requests.kind, memory, first);
        });
    }
    first..memory.segments.len()
}

/// Adds a request to the last run if it continues it and the two fit into one op of at most
/// `longest` bytes; otherwise it begins a run. Returns how many more requests share an op.
#[inline]
fn add_to_runs(
    runs: &mut Vec<Run>,
    position: usize,
    request: &Request,
    segments: Range<usize>,
    longest: u64,
    geometry: &Geometry,
) -> u64 {
    match runs.last_mut() {
        Some(run)
            if run.offset + run.len == request.offset
                && run.len + request.total_len <= longest
                && run.options == request.options
                && run.segments.len() + segments.len() <= geometry.max_segments as usize =>
        {
            let merged = if run.requests.len() == 1 { 2 } else { 1 };
            run.requests.end = position + 1;
            run.len += request.total_len;
            run.segments.end = segments.end;
            merged
        }
        _ => {
            let Request { offset, total_len, options, .. } = *request;
            runs.push(Run::new(position..position + 1, offset, total_len, options, segments));
            0
        }
    }
}

/// Makes an op of each run. The segment list is complete, and stays in place while there are ops.
#[inline]
fn make_ops(wave: &mut Wave, kind: OpKind) {
    let list = wave.memory().segments.as_mut_ptr();
    for (index, run) in (0..).zip(&wave.runs) {
        let part = std::ptr::slice_from_raw_parts_mut(
            list.wrapping_add(run.segments.start),
            run.segments.len(),
        );
        let part =
            NonNull::new(part).unwrap_or_else(|| unreachable!("a vector's pointer is not null"));
        let shared = Arc::clone(&wave.memory);
        // SAFETY: the parts of different runs do not overlap, and `shared` keeps the list in place.
        // Its segments are staging memory, kept by `shared` and laid out without overlap, or the
        // callers' memory, which by the contract of `Requests::add` is the batch's until every op
        // was dropped.
        let op = unsafe { Op::new(kind, index, run.offset, run.len, part, shared) };
        wave.waiting.push_back(op.with_options(run.options));
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
                // SAFETY: `from` is `len` bytes of the caller's, which nothing writes to (the
                // contract of `Requests::add`); `to` is `len` bytes of staging memory that no op
                // has yet.
                unsafe { to.as_ptr().copy_from_nonoverlapping(from, len) };
            }
            // SAFETY: as above.
            _ => unsafe { to.write_bytes(0, len) },
        }
    }
    // A segment of the caller that ends where the staging memory begins is not merged with it.
    if let [.., Segment(last)] = &mut memory.segments[first..]
        && last.iov_base as usize >= memory.staging.start().as_ptr() as usize
        && last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == to.as_ptr()
    {
        last.iov_len += len;
    } else {
        memory.segments.push(Segment(libc::iovec { iov_base: to.as_ptr().cast(), iov_len: len }));
    }
}

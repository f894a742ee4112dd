//! One transfer on its way through a queue, and the memory that it keeps alive.

use std::fmt;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;

use super::batch_memory::{BatchMemory, Segment};
use super::op_kind::OpKind;
use crate::{Error, ErrorClass, ErrorKind, WriteOptions};

/// One transfer: a range of the device and the memory segments that it is read into or written
/// from.
///
/// Only the dispatcher makes ops, after it checked range and alignment, so a backend need not. An
/// op cannot be cloned: its holder owns the transfer, and returns it with
/// [`complete`](Op::complete) or [`fail`](Op::fail). Until then its memory stays valid.
///
/// After a short transfer, [`advance`](Op::advance) removes the part that was moved: `offset`,
/// `len` and the segments then describe the rest, ready to be issued again.
pub struct Op {
    kind: OpKind,
    /// Which op of its batch this is; the dispatcher's own.
    pub(crate) index: u32,
    segment_count: u32,
    offset: u64,
    len: u64,
    options: WriteOptions,
    segments: NonNull<Segment>,
    /// Keeps alive what `segments` points at.
    memory: Arc<BatchMemory>,
}

// SAFETY: an op owns its part of the segment list exclusively, and the memory that the segments
// name is valid from any thread until the op is dropped (the contract of `Op::new`).
unsafe impl Send for Op {}

impl Op {
    /// The most bytes that one system call should be asked to move.
    ///
    /// The kernel moves at most 2 GiB less a page (`read(2)`), and leaves the rest to the next
    /// call. With blocks above 4 KiB that is no multiple of the block, and `O_DIRECT` refuses it.
    /// This limit is a multiple of any block.
    pub const MAX_CALL_BYTES: usize = 1 << 30;

    /// # Safety
    /// `segments` lies inside `memory.segments` and belongs to no other op. Each segment names
    /// memory that stays valid until this op is dropped: for a read, initialised memory that
    /// nothing else accesses; for any other kind, initialised memory that nothing writes to.
    pub(crate) unsafe fn new(
        kind: OpKind,
        index: u32,
        offset: u64,
        len: u64,
        segments: NonNull<[Segment]>,
        memory: Arc<BatchMemory>,
    ) -> Self {
        Self {
            kind,
            index,
            offset,
            len,
            options: WriteOptions::new(),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the planner bounds a batch's segments"
            )]
            segment_count: segments.len() as u32,
            segments: segments.cast(),
            memory,
        }
    }

    /// The same write with these options.
    pub(crate) fn with_options(self, options: WriteOptions) -> Self {
        Self { options, ..self }
    }

    /// Whether this is an op of the batch with this memory.
    pub(crate) fn points_into(&self, memory: &Arc<BatchMemory>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    /// The address of the memory of its batch, which no other batch has while this op lives.
    pub(crate) fn memory_address(&self) -> usize {
        Arc::as_ptr(&self.memory).addr()
    }

    /// What the op does.
    #[must_use]
    pub fn kind(&self) -> OpKind {
        self.kind
    }

    /// Per-write options, which the [`Geometry`](crate::Geometry) of the backend offers.
    #[must_use]
    pub fn options(&self) -> WriteOptions {
        self.options
    }

    /// Where on the device what is left begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes are left to move (for discard and write-zeroes: the length of the range).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is left to move.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory segments of what is left, as the kernel takes them; none for a flush, a discard
    /// or write-zeroes.
    ///
    /// The list itself stays where it is until the op is dropped or advanced.
    #[must_use]
    pub fn iovecs(&self) -> &[libc::iovec] {
        // SAFETY: the pointer and count describe a part of the list in `memory` that this op owns
        // and that stays in place while the op lives (the contract of `new`).
        unsafe {
            std::slice::from_raw_parts(self.segments.as_ptr().cast(), self.segment_count as usize)
        }
    }

    /// The segments for the next system call: at most `max_segments`, together at most
    /// [`Op::MAX_CALL_BYTES`] long.
    ///
    /// The call ends between two segments, and so between two blocks. If the first segment alone is
    /// longer, it is the only one, and the caller cuts it at [`Op::MAX_CALL_BYTES`].
    #[must_use]
    pub fn iovecs_for_call(&self, max_segments: usize) -> &[libc::iovec] {
        fitting(self.iovecs(), max_segments)
    }

    /// The memory that a write takes its bytes from; empty for any other kind.
    #[must_use]
    pub fn source(&self) -> &[IoSlice<'_>] {
        if self.kind != OpKind::Write {
            return &[];
        }
        let list = self.iovecs();
        // SAFETY: `IoSlice` is ABI compatible with `iovec` on Unix (std documents it), and the
        // segments of a write are initialised memory that nothing writes to while the op lives.
        unsafe { std::slice::from_raw_parts(list.as_ptr().cast(), list.len()) }
    }

    /// The memory segments that a read puts its bytes into, in order; none for any other kind.
    ///
    /// The segments are given one by one, and never their list: what is in the list stays what the
    /// dispatcher put there.
    pub fn destination(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let segments = if self.kind == OpKind::Read { self.iovecs() } else { &[] };
        segments.iter().map(|segment| {
            // SAFETY: the segments of a read are initialised memory that nothing else accesses
            // while the op lives, each is given once, and the borrow of `self` keeps a second such
            // iterator from existing at the same time.
            unsafe { std::slice::from_raw_parts_mut(segment.iov_base.cast(), segment.iov_len) }
        })
    }

    /// Removes the first `bytes` from what is left to move, after a short transfer.
    ///
    /// More than is left counts as all.
    pub fn advance(&mut self, bytes: u64) {
        let bytes = bytes.min(self.len);
        self.offset += bytes;
        self.len -= bytes;
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        while self.segment_count > 0 {
            // SAFETY: at least one segment is left, so the pointer names an element of the list
            // that this op owns; `&mut self` makes the access exclusive.
            let segment = &mut unsafe { self.segments.as_mut() }.0;
            if segment.iov_len > left {
                segment.iov_base = segment.iov_base.cast::<u8>().wrapping_add(left).cast();
                segment.iov_len -= left;
                return;
            }
            left -= segment.iov_len;
            self.segment_count -= 1;
            // SAFETY: one element past an element of the list is inside the list or at its end.
            self.segments = unsafe { self.segments.add(1) };
        }
    }

    /// Returns the op as completed.
    #[must_use]
    pub fn complete(self) -> Completion {
        Completion { op: self, result: Ok(()) }
    }

    /// The error of an op that never began, or has ended, with the op's kind, offset and length.
    ///
    /// Its class follows from `source`: [`Unknown`](ErrorClass::Unknown) if the device did not
    /// answer a write in time (`ETIMEDOUT`) or the path to it was lost (`ENOLINK`), because the
    /// device may still execute what it has received. The error of a flush is never of class
    /// [`NotStarted`](ErrorClass::NotStarted): the kernel may have reported, and forgotten, that
    /// earlier writes failed. A backend that knows more overrides the class with
    /// [`Error::with_class`].
    #[must_use]
    pub fn error(&self, source: std::io::Error) -> Error {
        let unanswered = matches!(source.raw_os_error(), Some(libc::ETIMEDOUT | libc::ENOLINK));
        let error = Error::os(self.kind.name(), source).at(self.offset, self.len);
        if self.kind.modifies() && unanswered {
            error.with_class(ErrorClass::Unknown)
        } else if self.kind == OpKind::Flush && error.class() == ErrorClass::NotStarted {
            error.with_class(ErrorClass::Failed)
        } else {
            error
        }
    }

    /// Returns the op as failed, with the [error](Self::error) of `source`.
    #[must_use]
    pub fn fail(self, source: std::io::Error) -> Completion {
        let error = self.error(source);
        self.fail_with(error)
    }

    /// Returns the op as failed with this error, which names its own range.
    ///
    /// An op that was interrupted or lost, and may still take effect, needs an error [with the
    /// class](Error::with_class) [`Unknown`](crate::ErrorClass::Unknown): the dispatcher repeats
    /// transfers after errors of any other class.
    #[must_use]
    pub fn fail_with(self, error: Error) -> Completion {
        Completion { op: self, result: Err(error) }
    }

    /// Returns the op as failed because the device ended before the transfer did.
    #[must_use]
    pub fn fail_at_end(self) -> Completion {
        let rule =
            "the device ended before the transfer did; it became smaller since it was opened";
        let error =
            Error::new(ErrorKind::EndOfDevice, self.kind.name(), rule).at(self.offset, self.len);
        Completion { op: self, result: Err(error) }
    }
}

/// An op that has completed, with its memory and its result.
#[derive(Debug)]
pub struct Completion {
    pub(crate) op: Op,
    pub(crate) result: Result<(), Error>,
}

impl Completion {
    /// The op that has completed.
    #[must_use]
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// The result: `Ok` means that every byte was moved.
    ///
    /// # Errors
    /// The error of the op itself.
    pub fn result(&self) -> Result<(), &Error> {
        self.result.as_ref().map(|&()| ())
    }
}

/// The first of `segments` that one system call takes.
fn fitting(segments: &[libc::iovec], max_segments: usize) -> &[libc::iovec] {
    let mut left = Op::MAX_CALL_BYTES;
    let fits = |segment: &&libc::iovec| {
        left.checked_sub(segment.iov_len).map(|rest| left = rest).is_some()
    };
    let count = segments.iter().take(max_segments).take_while(fits).count();
    &segments[..count.max(1).min(segments.len())]
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op")
            .field("kind", &self.kind)
            .field("offset", &self.offset)
            .field("len", &self.len)
            .field("segments", &self.segment_count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many segments of these lengths one call takes.
    fn count(lens: &[usize], max_segments: usize) -> usize {
        let segment = |&iov_len: &usize| libc::iovec { iov_base: std::ptr::null_mut(), iov_len };
        let segments: Vec<_> = lens.iter().map(segment).collect();
        fitting(&segments, max_segments).len()
    }

    #[test]
    fn a_call_takes_no_more_segments_than_it_may() {
        assert_eq!(count(&[], 8), 0);
        assert_eq!(count(&[512; 20], 8), 8);
        assert_eq!(count(&[512; 8], 8), 8);
        assert_eq!(count(&[512; 3], 8), 3);
    }

    #[test]
    fn a_call_ends_between_two_segments_below_the_kernels_limit() {
        assert_eq!(count(&[3 << 20; 1024], 1024), 341);
        assert_eq!(count(&[Op::MAX_CALL_BYTES - 512, 512, 512], 8), 2);
        assert_eq!(count(&[Op::MAX_CALL_BYTES, 512], 8), 1);
        assert_eq!(count(&[512, Op::MAX_CALL_BYTES], 8), 1);
    }

    #[test]
    fn a_segment_longer_than_a_call_is_taken_alone() {
        assert_eq!(count(&[Op::MAX_CALL_BYTES + 512, 512], 8), 1);
        assert_eq!(count(&[usize::MAX, usize::MAX], 8), 1);
    }
}

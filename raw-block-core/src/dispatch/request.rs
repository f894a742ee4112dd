//! What the caller asked for: taking transfers into a batch, and putting them in order.

use std::ops::Range;

use super::batch::Batch;
use crate::backend::Segment;
use crate::backend::{OpKind, Transfer};
use crate::{Error, ErrorKind, Geometry, OwnedTransfer, WriteOptions};

/// One transfer as the caller asked for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) offset: u64,
    pub(super) total_len: u64,
    pub(super) options: WriteOptions,
    /// Its memory, in `Batch::callers`.
    pub(super) segments: Range<usize>,
    /// Where its staged pieces begin in the staging memory of the current wave.
    pub(super) staging: usize,
    /// Whether it has staged pieces.
    pub(super) staged: bool,
    /// Whether all of it is staged, because the kernel could not use the caller's memory.
    pub(super) copied: bool,
}

impl Batch {
    /// Adds transfers whose memory is borrowed.
    ///
    /// # Safety
    /// That of [`add`](Self::add), for the memory of each.
    pub(super) unsafe fn add_borrowed<T: Transfer>(
        &mut self,
        transfers: &[T],
        geometry: &Geometry,
    ) {
        for transfer in transfers {
            let segments = transfer.iovecs().iter().copied().map(Segment);
            let (offset, total_len) = (transfer.offset(), transfer.total_len());
            // SAFETY: the caller answers for it.
            unsafe { self.add(offset, total_len, transfer.options(), segments, geometry) };
        }
    }

    /// Adds a transfer; one that breaks a rule has its result at once.
    ///
    /// # Safety
    /// The memory of the transfer stays valid until this batch is [released](Self::is_released) or
    /// started anew; meanwhile nothing else writes to it, and for a read nothing else reads it either.
    pub(super) unsafe fn add(
        &mut self,
        offset: u64,
        total_len: u64,
        options: WriteOptions,
        segments: impl Iterator<Item = Segment>,
        geometry: &Geometry,
    ) {
        let first = self.callers.len();
        self.callers.extend(segments);
        let segments = first..self.callers.len();
        let lengths = self.callers[first..].iter().map(|segment| segment.0.iov_len as u64);
        let payload_len = lengths.fold(0, u64::saturating_add);
        let check = if payload_len > total_len {
            let rule = format!(
                "its payload of {payload_len} bytes does not fit into its total length: raise that"
            );
            Err(Error::new(ErrorKind::InvalidInput, self.kind.name(), rule).at(offset, total_len))
        } else {
            let check = geometry.check_range(self.kind, offset, total_len);
            check.and_then(|()| match self.kind {
                OpKind::Write => {
                    geometry.check_options(options).map_err(|error| error.at(offset, total_len))
                }
                _ => Ok(()),
            })
        };
        self.push(offset, total_len, options, segments, check);
    }

    /// Adds transfers with their buffers.
    pub(super) fn add_owned(&mut self, transfers: Vec<OwnedTransfer>, geometry: &Geometry) {
        let mut buffers = Vec::with_capacity(transfers.len());
        for OwnedTransfer { offset, buffer, payload_len, total_len, options } in transfers {
            if payload_len > buffer.len() {
                let rule = format!(
                    "its buffer of {} bytes does not hold the payload of {payload_len} bytes",
                    buffer.len()
                );
                let error = Error::new(ErrorKind::InvalidInput, self.kind.name(), rule);
                self.push(offset, total_len, options, 0..0, Err(error.at(offset, total_len)));
            } else {
                let iov_base = buffer.start().as_ptr().cast();
                let segment = Segment(libc::iovec { iov_base, iov_len: payload_len });
                // SAFETY: the buffer goes into the memory of this batch, from where it is taken only
                // when no op is left.
                unsafe { self.add(offset, total_len, options, std::iter::once(segment), geometry) };
            }
            buffers.push(buffer);
        }
        self.memory().owned = buffers;
    }

    /// Adds an op without memory: a flush, a discard, write-zeroes.
    pub(super) fn add_bare(&mut self, offset: u64, len: u64, check: Result<(), Error>) {
        self.push(offset, len, WriteOptions::new(), 0..0, check);
    }

    fn push(
        &mut self,
        offset: u64,
        total_len: u64,
        options: WriteOptions,
        segments: Range<usize>,
        check: Result<(), Error>,
    ) {
        if check.is_ok() {
            #[expect(clippy::cast_possible_truncation, reason = "the dispatcher bounds the batch")]
            self.order.push(self.requests.len() as u32);
        }
        self.results.push(check);
        self.requests.push(Request {
            offset,
            total_len,
            options,
            segments,
            staging: 0,
            staged: false,
            copied: false,
        });
    }

    /// Puts the transfers in the order of the device, and refuses writes that overlap.
    pub(super) fn arrange(&mut self) {
        let Self { requests, order, results, kind, .. } = self;
        let place = |&index: &u32| (requests[index as usize].offset, index);
        if !order.is_sorted_by_key(place) {
            order.sort_unstable_by_key(place);
        }
        if !kind.modifies() {
            return;
        }
        let mut end = 0;
        order.retain(|&index| {
            let request = &requests[index as usize];
            let free = request.offset >= end;
            if free {
                end = request.offset + request.total_len;
            } else {
                let rule = "it overlaps another write of its batch, and a batch has no order: \
                            submit it in a later batch";
                let error = Error::new(ErrorKind::Overlap, kind.name(), rule);
                results[index as usize] = Err(error.at(request.offset, request.total_len));
            }
            free
        });
    }
}

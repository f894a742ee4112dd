//! The transfers of a batch as the caller asked for them, in the order of the device.

use std::ops::Range;

use super::check::check_transfer;
use super::layout::{Piece, lay_out};
use super::reuse;
use crate::backend::{OpKind, Segment, Transfer};
use crate::{Error, ErrorKind, Geometry, OwnedTransfer, WriteOptions};

/// One transfer as the caller asked for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) offset: u64,
    pub(super) total_len: u64,
    pub(super) options: WriteOptions,
    /// Its part of `Requests::segments`.
    segments: Range<usize>,
    /// The first byte of its staged pieces in the staging memory of the current wave.
    pub(super) staging: usize,
    /// Whether it has staged pieces.
    pub(super) staged: bool,
    /// Whether all of it is staged, because the kernel could not use the caller's memory.
    pub(super) copied: bool,
}

/// The requests of one batch, the memory that they name, and their results.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) kind: OpKind,
    list: Vec<Request>,
    /// The callers' memory segments.
    segments: Vec<Segment>,
    /// Whether `segments` names memory that is borrowed from the caller.
    pub(super) borrowed: bool,
    /// The result of each request; `Ok` until it has failed.
    pub(super) results: Vec<Result<(), Error>>,
    /// The valid requests that the next waves carry, sorted by offset.
    pub(super) order: Vec<u32>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            kind: OpKind::Flush,
            list: Vec::new(),
            segments: Vec::new(),
            borrowed: false,
            results: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Removes all requests, to add `count` of one kind.
    pub(super) fn start(&mut self, kind: OpKind, count: usize) {
        self.kind = kind;
        self.list.clear();
        self.segments.clear();
        self.borrowed = false;
        self.results.clear();
        self.results.reserve(count);
        self.order.clear();
    }

    pub(super) fn get(&self, index: u32) -> &Request {
        &self.list[index as usize]
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Request {
        &mut self.list[index as usize]
    }

    /// Sets the error of a request, with the range of the request.
    pub(super) fn fail(&mut self, index: u32, error: Error) {
        let Request { offset, total_len, .. } = self.list[index as usize];
        self.results[index as usize] = Err(error.at(offset, total_len));
    }

    /// Lays a request out from byte `staging` of the staging memory on; see [`lay_out`].
    pub(super) fn lay_out(
        &self,
        request: &Request,
        geometry: &Geometry,
        staging: usize,
        visit: impl FnMut(Piece),
    ) -> usize {
        let segments = self.segments[request.segments.clone()].iter().copied();
        lay_out(segments, request.total_len, request.copied, geometry, staging, visit)
    }

    /// Adds transfers whose memory is borrowed.
    ///
    /// # Safety
    /// That of [`add`](Self::add), for the memory of each.
    pub(super) unsafe fn add_borrowed<T: Transfer>(
        &mut self,
        transfers: &[T],
        geometry: &Geometry,
    ) {
        self.borrowed = true;
        for transfer in transfers {
            let segments = transfer.iovecs().iter().copied().map(Segment);
            let (offset, total_len) = (transfer.offset(), transfer.total_len());
            // SAFETY: the caller upholds the contract of `add`.
            unsafe { self.add(offset, total_len, transfer.options(), segments, geometry) };
        }
    }

    /// Adds transfers that own their memory.
    ///
    /// # Safety
    /// The transfers are not dropped, and nothing accesses their bytes, until the batch is
    /// released.
    pub(super) unsafe fn add_owned(
        &mut self,
        transfers: &mut [OwnedTransfer],
        geometry: &Geometry,
    ) {
        for transfer in transfers {
            let OwnedTransfer { offset, total_len, options, .. } = *transfer;
            if let Err(error) = transfer.check_memory(self.kind) {
                self.push(offset, total_len, options, 0..0, Err(error));
                continue;
            }
            // SAFETY: the memory of the payload stays in place, also when the transfer is moved
            // (`Buffer::segment`), and is writable for a read (`check_memory`). For the rest of the
            // contract the caller answers.
            unsafe { self.add(offset, total_len, options, transfer.payload(), geometry) };
        }
    }

    /// Adds a request without memory: a flush, a discard or write-zeroes.
    pub(super) fn add_bare(&mut self, offset: u64, len: u64, check: Result<(), Error>) {
        self.push(offset, len, WriteOptions::new(), 0..0, check);
    }

    /// Adds a transfer; an invalid one gets its error at once.
    ///
    /// # Safety
    /// The memory of the transfer stays valid until the batch is released or started anew. Until
    /// then nothing else writes to it, and for a read nothing else reads it either.
    unsafe fn add(
        &mut self,
        offset: u64,
        total_len: u64,
        options: WriteOptions,
        segments: impl Iterator<Item = Segment>,
        geometry: &Geometry,
    ) {
        let first = self.segments.len();
        self.segments.extend(segments);
        let segments = first..self.segments.len();
        let lengths = self.segments[first..].iter().map(|segment| segment.0.iov_len as u64);
        let memory = (lengths.fold(0, u64::saturating_add), segments.len());
        let check = check_transfer(self.kind, offset, memory, total_len, options, geometry);
        self.push(offset, total_len, options, segments, check);
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
            self.order.push(self.list.len() as u32);
        }
        self.results.push(check);
        let (staging, staged, copied) = (0, false, false);
        self.list.push(Request { offset, total_len, options, segments, staging, staged, copied });
    }

    /// Sorts the requests by offset, and refuses writes that overlap.
    pub(super) fn sort(&mut self) {
        let Self { list, order, results, kind, .. } = self;
        let position = |&index: &u32| (list[index as usize].offset, index);
        if !order.is_sorted_by_key(position) {
            order.sort_unstable_by_key(position);
        }
        if !kind.modifies() {
            return;
        }
        let mut end = 0;
        order.retain(|&index| {
            let request = &list[index as usize];
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

    /// Orders the requests so that of neighbours one comes in a first part and the other in a
    /// second: together the kernel would merge them again. Each part is sorted by offset. Returns
    /// the length of the first one.
    pub(super) fn take_apart(&mut self) -> usize {
        let Self { list, order, .. } = self;
        order.sort_unstable_by_key(|&index| (list[index as usize].offset, index));
        let mut end = None;
        let (mut first, mut second) = (Vec::with_capacity(order.len()), Vec::new());
        for &index in &*order {
            let request = &list[index as usize];
            if end.is_none_or(|end| request.offset > end) {
                end = Some(request.offset + request.total_len);
                first.push(index);
            } else {
                second.push(index);
            }
        }
        let apart = first.len();
        order.clear();
        order.extend(first.into_iter().chain(second));
        apart
    }

    /// Empties the lists, and frees what a long batch allocated.
    pub(super) fn shrink(&mut self) {
        reuse::clear(&mut self.list);
        reuse::clear(&mut self.segments);
        reuse::clear(&mut self.order);
    }
}

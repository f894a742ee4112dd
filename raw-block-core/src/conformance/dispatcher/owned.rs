//! Owned transfers: memory of any kind, in one or several segments.

use std::mem::{discriminant, take};

use bytes::{Bytes, BytesMut};

use super::staging::moved;
use super::{assert_holds, fill};
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, assert_same, pattern};
use crate::{
    AlignedBuf, Buffer, BufferPool, Dispatcher, ErrorKind, Finished, Lease, OwnedTransfer, Region,
};

/// One buffer of each kind of memory, with these bytes.
fn each_kind(bytes: &[u8]) -> Vec<Buffer> {
    let pool = BufferPool::new(bytes.len(), 1).unwrap();
    let mut pooled = pool.take().unwrap();
    pooled.copy_from_slice(bytes);
    vec![
        aligned(bytes).into(),
        pooled.into(),
        bytes.to_vec().into(),
        lease(bytes, 0).into(),
        lease(bytes, 3).into(),
        Bytes::copy_from_slice(bytes).into(),
        BytesMut::from(bytes).into(),
    ]
}

/// A lease with these bytes, from byte `shift` of aligned memory on. Nothing else has the region.
fn lease(bytes: &[u8], shift: usize) -> Lease {
    let memory = AlignedBuf::zeroed(shift + bytes.len() + 1).unwrap();
    let mut lease = Region::owned(memory).unwrap().lease(shift..shift + bytes.len()).unwrap();
    lease.copy_from_slice(bytes);
    lease
}

/// Buffers of each kind that a device can read into, filled with what no pattern is.
fn each_writable_kind(len: usize) -> Vec<Buffer> {
    let mut buffers = each_kind(&vec![0xEE; len]);
    buffers.retain(|buffer| !buffer.is_read_only());
    buffers
}

/// Runs one transfer.
fn run(device: &Dispatcher, write: bool, transfer: OwnedTransfer) -> Finished {
    let batch = vec![transfer];
    let ticket = if write { device.batched_write(batch) } else { device.batched_read(batch) };
    ticket.unwrap().wait().remove(0)
}

pub(crate) fn memory_of_any_kind_is_written_and_read_and_comes_back(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    for (seed, len) in [(700, block), (701, 3 * block), (702, 2 * block + 5), (703, 1)] {
        let bytes = pattern(seed, len);
        let total = len.next_multiple_of(block) as u64;
        let transfers = |kinds: Vec<Buffer>| -> (Vec<_>, Vec<_>) {
            let identity = |buffer: &Buffer| (discriminant(buffer), buffer.as_ptr());
            let identities = kinds.iter().map(identity).collect();
            let transfer = |(number, buffer)| {
                OwnedTransfer::new(subject.at(4 * number), buffer).padded_to(total)
            };
            (kinds.into_iter().enumerate().map(transfer).collect(), identities)
        };
        let check = |all: Vec<Finished>, identities: Vec<_>| {
            assert_eq!(all.len(), identities.len());
            for (finished, identity) in all.into_iter().zip(identities) {
                finished.result.unwrap();
                assert_same(&finished.buffer, &bytes, "the memory");
                assert_eq!((discriminant(&finished.buffer), finished.buffer.as_ptr()), identity);
                assert!(finished.more.is_empty());
            }
        };
        let (writes, identities) = transfers(each_kind(&bytes));
        let count = writes.len();
        check(device.batched_write(writes).unwrap().wait(), identities);
        let mut padded = bytes.clone();
        padded.resize(len.next_multiple_of(block), 0);
        for number in 0..count {
            assert_holds(&device, subject.at(4 * number), &padded, "written from owned memory");
        }
        let (reads, identities) = transfers(each_writable_kind(len));
        check(device.batched_read(reads).unwrap().wait(), identities);
    }
}

pub(crate) fn segments_of_several_kinds_are_one_transfer(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    for (seed, len) in [(710, block), (711, 2 * block - 3)] {
        let kinds = each_kind(&[0]).len();
        let bytes = pattern(seed, kinds * len);
        let mut segments = Vec::new();
        for (number, part) in bytes.chunks(len).enumerate() {
            segments.push(each_kind(part).swap_remove(number));
        }
        segments.insert(2, Buffer::default());
        let total = bytes.len().next_multiple_of(block) as u64;
        let write = OwnedTransfer::vectored(subject.at(1), segments).padded_to(total);
        let written = run(&device, true, write);
        written.result.unwrap();
        assert_eq!(written.more.len(), kinds);
        let mut padded = bytes.clone();
        padded.resize(padded.len().next_multiple_of(block), 0);
        assert_holds(&device, subject.at(1), &padded, "written from several segments");

        let segments = each_writable_kind(len);
        let expected = &bytes[..segments.len() * len];
        let total = expected.len().next_multiple_of(block) as u64;
        let read = OwnedTransfer::vectored(subject.at(1), segments).padded_to(total);
        let Finished { buffer, more, result, .. } = run(&device, false, read);
        result.unwrap();
        let found: Vec<_> = [&buffer].into_iter().chain(&more).map(|it| it.to_vec()).collect();
        assert_same(&found.concat(), expected, "read into several segments");
    }
}

pub(crate) fn a_payload_may_end_inside_any_segment(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(720, 3 * block);
    fill(&device, 0, &bytes);
    for payload in [0, 1, block, block + 1, 2 * block, 3 * block - 1, 3 * block] {
        let segments = (0..3).map(|_| Buffer::from(vec![0xEE; block]));
        let read = OwnedTransfer::vectored(0, segments);
        let read = read.with_payload_len(payload).padded_to(3 * block as u64);
        let Finished { buffer, more, result, .. } = run(&device, false, read);
        result.unwrap();
        let found = [&buffer[..], &more[0], &more[1]].concat();
        assert_same(&found[..payload], &bytes[..payload], "the payload");
        assert!(found[payload..].iter().all(|&byte| byte == 0xEE), "bytes after it changed");
    }
}

pub(crate) fn a_payload_longer_than_its_memory_is_refused(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let segments = || [vec![1; block].into(), vec![2; block].into()];
    let transfer = |payload: usize| {
        let total = payload.next_multiple_of(block) as u64;
        OwnedTransfer::vectored(0, segments()).with_payload_len(payload).padded_to(total)
    };
    for write in [true, false] {
        run(&device, write, transfer(2 * block)).result.unwrap();
        let finished = run(&device, write, transfer(2 * block + 1));
        assert_eq!(finished.result.unwrap_err().kind(), ErrorKind::InvalidInput);
        let [first, second] = segments();
        assert_same(&finished.buffer, &first, "the memory of a refused transfer");
        assert_same(&finished.more[0], &second, "the memory of a refused transfer");
    }
}

pub(crate) fn a_read_into_read_only_memory_is_refused(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    fill(&device, 0, &pattern(740, 2 * block));
    let shared = Bytes::from(vec![7; block]);
    let alone = OwnedTransfer::new(0, shared.clone());
    let second = OwnedTransfer::vectored(0, [vec![9; block].into(), shared.clone().into()]);
    let other = OwnedTransfer::new(0, vec![0; block]);
    let mut all = device.batched_read(vec![alone, second, other]).unwrap().wait();
    for (finished, segment) in all.iter_mut().zip(["segment 0", "segment 1"]) {
        let error = std::mem::replace(&mut finished.result, Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(segment), "{error}");
    }
    assert!(shared.iter().all(|&byte| byte == 7), "read-only memory has changed");
    assert!(all[1].buffer.iter().all(|&byte| byte == 9), "a refused transfer has begun");
    assert_same(&take(&mut all[2].buffer), &pattern(740, block), "its neighbour");
}

pub(crate) fn owned_memory_is_copied_only_where_it_is_unaligned(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let whole = block as u64;
    let alignment = u64::from(subject.geometry().memory_alignment);
    for (shift, staged) in [(0, 0), (alignment / 2, whole)] {
        if alignment == 1 {
            return;
        }
        let bytes = pattern(730 + shift, 2 * block);
        let shift = shift as usize;
        for write in [true, false] {
            let part = if write { &bytes[block..] } else { &vec![0xEE; block] };
            let segments = [aligned(&bytes[..block]).into(), lease(part, shift).into()];
            let mut more = Vec::new();
            let (direct, copied) = moved(subject, || {
                let done = run(&device, write, OwnedTransfer::vectored(0, segments));
                done.result.unwrap();
                more = done.more;
            });
            assert_eq!((direct, copied), (2 * whole - staged, staged), "at {shift}");
            assert_same(&more[0], &bytes[block..], "the lease");
        }
        assert_holds(&device, 0, &bytes, "written from a lease");
    }
}

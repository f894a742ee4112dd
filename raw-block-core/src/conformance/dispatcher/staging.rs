//! What the device cannot take as it is goes through aligned memory, and nothing else does.

use std::io::IoSlice;
use std::ops::Range;

use super::{assert_holds, direct_memory, direct_stride, fill, kinds};
use crate::backend::Transfer;
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, assert_same, pattern};
use crate::conformance::secret::SecretMemory;
use crate::{AlignedBuf, ErrorKind, Geometry, OwnedTransfer, ReadAt, WriteAt, can_batch};

/// Direct and staged bytes of what `run` does.
pub(super) fn moved(subject: &Subject, run: impl FnOnce()) -> (u64, u64) {
    let before = subject.stats();
    run();
    let after = subject.stats();
    (after.direct_bytes - before.direct_bytes, after.staged_bytes - before.staged_bytes)
}

pub(crate) fn aligned_transfers_are_not_copied(subject: &Subject) {
    let device = subject.dispatcher();
    let len = 4 * subject.block();
    let bytes = aligned(&pattern(300, len));
    let mut found = AlignedBuf::zeroed(len).unwrap();
    let write = moved(subject, || fill(&device, 0, &bytes));
    assert_eq!(write, (len as u64, 0));
    let read = moved(subject, || {
        device.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
    });
    assert_eq!(read, (len as u64, 0));
    assert_same(&found, &bytes, "moved without a copy");
}

/// How many of `len` bytes of aligned memory the device takes as they are.
fn whole_units(subject: &Subject, len: usize) -> u64 {
    (len - len % subject.alignment()) as u64
}

pub(crate) fn a_padded_write_is_padded_with_zeroes_and_copies_only_its_tail(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    fill(&device, 0, &vec![0xFF; 8 * block]);
    let bytes = aligned(&pattern(301, 3 * block));
    // Two blocks and a half, on six.
    let payload = &bytes[..2 * block + block / 2];
    let counted = moved(subject, || {
        let write = WriteAt::new(subject.at(1), payload).padded_to(6 * block as u64);
        device.write_buffers(&[write]).all().unwrap();
    });
    let direct = whole_units(subject, payload.len());
    assert_eq!(counted, (direct, 6 * block as u64 - direct));
    let mut expected = vec![0xFF; 8 * block];
    expected[block..7 * block].fill(0);
    expected[block..block + payload.len()].copy_from_slice(payload);
    assert_holds(&device, 0, &expected, "a padded write");
}

pub(crate) fn a_padded_read_leaves_the_bytes_after_its_payload_alone(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(302, 4 * block);
    fill(&device, 0, &bytes);
    let payload = block + 3;
    let mut memory = aligned(&vec![0xEE; 4 * block]);
    let counted = moved(subject, || {
        let read = ReadAt::new(0, &mut memory[..payload]).padded_to(3 * block as u64);
        device.read_buffers(&mut [read]).all().unwrap();
    });
    let direct = whole_units(subject, payload);
    assert_eq!(counted, (direct, 3 * block as u64 - direct));
    assert_same(&memory[..payload], &bytes[..payload], "the payload");
    assert!(memory[payload..].iter().all(|&byte| byte == 0xEE), "bytes after the payload changed");
}

pub(crate) fn a_transfer_may_be_padding_alone(subject: &Subject) {
    padding_alone(subject, [&[]]);
}

pub(crate) fn a_transfer_without_segments_is_padding_alone(subject: &Subject) {
    padding_alone(subject, []);
}

fn padding_alone<const N: usize>(subject: &Subject, segments: [&[u8]; N]) {
    let device = subject.dispatcher();
    let block = subject.block();
    let mut expected = vec![0xFF; 4 * block];
    fill(&device, 0, &expected);
    let write = WriteAt::gather(subject.at(1), segments).padded_to(2 * block as u64);
    device.write_buffers(&[write]).all().unwrap();
    expected[block..3 * block].fill(0);
    assert_holds(&device, 0, &expected, "a write without payload");
    let none = segments.map(|_| &mut [][..]);
    device.read_buffers(&mut [ReadAt::scatter(0, none).padded_to(block as u64)]).all().unwrap();
}

pub(crate) fn memory_at_any_address_serves(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let alignment = subject.geometry().memory_alignment as usize;
    for shift in [1, 4, alignment / 2 + 1, 511] {
        let bytes = pattern(303 + shift as u64, 3 * block);
        let mut memory = AlignedBuf::zeroed(shift + bytes.len() + 64).unwrap();
        let range = shift..shift + bytes.len();
        memory[range.clone()].copy_from_slice(&bytes);
        let all = bytes.len() as u64;
        let expected = if shift.is_multiple_of(alignment) { (all, 0) } else { (0, all) };
        let write = moved(subject, || fill(&device, subject.at(2), &memory[range.clone()]));
        assert_eq!(write, expected, "a write from memory {shift} off");
        assert_holds(&device, subject.at(2), &bytes, "written from odd memory");

        memory.fill(0xEE);
        let read = moved(subject, || {
            let batch = &mut [ReadAt::new(subject.at(2), &mut memory[range.clone()])];
            device.read_buffers(batch).all().unwrap();
        });
        assert_eq!(read, expected, "a read into memory {shift} off");
        assert_same(&memory[range.clone()], &bytes, "read into odd memory");
        assert!(memory[..shift].iter().all(|&byte| byte == 0xEE), "bytes in front changed");
        assert!(memory[range.end..].iter().all(|&byte| byte == 0xEE), "bytes after it changed");
    }
}

pub(crate) fn memory_that_cannot_be_pinned_serves(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let len = 6 * block;
    let mut secret = match SecretMemory::new(len) {
        Ok(secret) => secret,
        Err(skipped) => return skipped.report(),
    };
    let bytes = pattern(306, len);
    secret.copy_from_slice(&bytes);
    // Its neighbours, which are merged with it, come from other memory; the last has a part of
    // both.
    let other = aligned(&bytes);
    let part = |memory: usize| memory * block..(memory + 1) * block;
    fill(&device, 0, &vec![0xFF; len]);
    let batch = [
        WriteAt::gather(subject.at(0), [&other[part(0)], &[][..]]),
        WriteAt::gather(subject.at(1), [&secret[block..3 * block], &[][..]]),
        WriteAt::gather(subject.at(3), [&other[part(3)], &[][..]]),
        WriteAt::gather(subject.at(4), [&other[part(4)], &secret[part(5)]]),
    ];
    device.write_buffers(&batch).all().unwrap();
    assert_holds(&device, 0, &bytes, "written from memory that cannot be pinned");
    device.write_buffers(&[WriteAt::new(0, &secret)]).all().unwrap();
    assert_holds(&device, 0, &bytes, "written from such memory alone");

    secret.fill(0xEE);
    device.read_buffers(&mut [ReadAt::new(0, &mut secret)]).all().unwrap();
    assert_same(&secret, &bytes, "read into memory that cannot be pinned");

    secret.fill(0xEE);
    let (first, rest) = secret.split_at_mut(block);
    let (second, third) = rest.split_at_mut(2 * block);
    let mut memory = aligned(&vec![0xEE; block]);
    let mut batch = [
        ReadAt::new(subject.at(0), first),
        ReadAt::new(subject.at(1), second),
        ReadAt::new(subject.at(3), &mut memory),
        // Two blocks and a part of the third.
        ReadAt::new(subject.at(3), &mut third[..3 * block - 5]).padded_to(3 * block as u64),
    ];
    let mut calls = 0;
    device.read_buffers_with(&mut batch, |_, read| {
        read.unwrap();
        calls += 1;
    });
    assert_eq!(calls, 4);
    assert_same(&memory, &bytes[part(3)], "a neighbour in other memory");
    assert_same(&secret[..len - 5], &bytes[..len - 5], "read part by part");
    assert_eq!(secret[len - 5..], [0xEE; 5], "the bytes after the payload");
}

pub(crate) fn several_segments_of_any_length_make_one_transfer(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let lengths: [[usize; 4]; 7] = [
        [block, block, block, block],
        [0, 2 * block, 0, block],
        [block / 2, block / 2, block, 0],
        [1, 2 * block - 2, 1, block],
        [block + 1, 0, block - 1, block],
        [3, 5, 7, 11],
        [0, 0, 0, 1],
    ];
    for lengths in lengths {
        let payload: usize = lengths.iter().sum();
        let total = payload.next_multiple_of(block);
        fill(&device, 0, &vec![0xFF; 6 * block]);
        let bytes = pattern(304, payload);
        // Each segment somewhere else, at an address that may be direct.
        let mut memory = lengths.map(|len| AlignedBuf::zeroed(len).unwrap());
        let mut rest = &bytes[..];
        for segment in &mut memory {
            let (first, others) = rest.split_at(segment.len());
            segment.copy_from_slice(first);
            rest = others;
        }
        let write = WriteAt::gather(subject.at(1), memory.each_ref().map(|segment| &segment[..]));
        device.write_buffers(&[write.padded_to(total as u64)]).all().unwrap();
        let mut expected = vec![0xFF; 6 * block];
        expected[block..block + total].fill(0);
        expected[block..block + payload].copy_from_slice(&bytes);
        assert_holds(&device, 0, &expected, &format!("gathered {lengths:?}"));

        let mut memory = lengths.map(|len| aligned(&vec![0xEE; len]));
        let segments = memory.each_mut().map(|segment| &mut segment[..]);
        let read = ReadAt::scatter(subject.at(1), segments).padded_to(total as u64);
        device.read_buffers(&mut [read]).all().unwrap();
        let found = memory.each_ref().map(|segment| &segment[..]).concat();
        assert_same(&found, &bytes, &format!("scattered {lengths:?}"));
    }
}

/// Copies a payload into segments of these lengths, each at an address that may be direct.
fn scatter(
    subject: &Subject,
    payload: &[u8],
    lengths: &[usize],
) -> (AlignedBuf, Vec<Range<usize>>) {
    let (mut ranges, mut end) = (Vec::new(), 0);
    for &len in lengths {
        ranges.push(end..end + len);
        end += direct_stride(subject.geometry(), len);
    }
    let mut memory = AlignedBuf::zeroed(end).unwrap();
    let mut rest = payload;
    for range in &ranges {
        let (first, others) = rest.split_at(range.len());
        memory[range.clone()].copy_from_slice(first);
        rest = others;
    }
    (memory, ranges)
}

pub(crate) fn lists_of_segments_of_any_number_are_written(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    // More than one system call takes, of lengths that begin and end blocks anywhere.
    let long: Vec<usize> = (0..1500).map(|number| 7 * number % 23).collect();
    let lists = [vec![block], vec![0, block, 2 * block, 0], vec![1, block, 5], long];
    let (mut memory, mut expected) = (Vec::new(), Vec::new());
    for (seed, lengths) in (310..).zip(&lists) {
        let payload = pattern(seed, lengths.iter().sum());
        memory.push(scatter(subject, &payload, lengths));
        expected.extend_from_slice(&payload);
        expected.resize(expected.len().next_multiple_of(block), 0);
    }
    let slices = memory.iter().map(|(memory, ranges)| {
        ranges.iter().map(|range| IoSlice::new(&memory[range.clone()])).collect::<Vec<_>>()
    });
    let slices: Vec<_> = slices.collect();
    // A single segment and an empty list share a batch with the lists.
    let first = aligned(&pattern(320, block));
    let mut batch = vec![WriteAt::new(0, &first), WriteAt::vectored(block as u64, &[])];
    batch[1] = batch[1].padded_to(block as u64);
    let mut at = 2 * block as u64;
    for list in &slices {
        let write = WriteAt::vectored(at, list);
        let total = write.total_len().next_multiple_of(block as u64);
        batch.push(write.padded_to(total));
        at += total;
    }
    device.write_buffers(&batch).all().unwrap();
    let front = [&first[..], &vec![0; block]].concat();
    assert_holds(&device, 0, &[front, expected].concat(), "written from lists");

    let whole = [WriteAt::vectored(0, &slices[1])];
    let (direct, staged) = moved(subject, || device.write_buffers(&whole).all().unwrap());
    assert_eq!((direct, staged), (3 * block as u64, 0));
    assert!(can_batch(&whole, subject.geometry()));
    assert!(!can_batch(&batch[4..5], subject.geometry()), "its segments fill no blocks");
}

pub(crate) fn a_list_of_too_many_segments_is_refused(subject: &Subject) {
    let device = subject.dispatcher();
    let bytes = aligned(&pattern(321, subject.block()));
    let mut list = vec![IoSlice::new(&[]); WriteAt::MAX_SEGMENTS];
    list[WriteAt::MAX_SEGMENTS / 2] = IoSlice::new(&bytes);
    device.write_buffers(&[WriteAt::vectored(0, &list)]).all().unwrap();
    assert_holds(&device, 0, &bytes, "as many segments as there may be");
    list.push(IoSlice::new(&[]));
    let batch = [WriteAt::vectored(0, &list), WriteAt::new(subject.at(1), &bytes)];
    assert_eq!(kinds(&device.write_buffers(&batch)), [Some(ErrorKind::InvalidInput), None]);
    assert!(!can_batch(&batch[..1], subject.geometry()));
}

pub(crate) fn can_batch_says_whether_anything_is_copied_or_refused(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let Geometry { memory_alignment, .. } = *subject.geometry();
    let memory = direct_memory(subject, 4, 2 * block);
    let odd = memory_alignment as usize / 2;
    let whole = block as u64;
    let one = |offset, range| WriteAt::gather(offset, [&memory[range], &[][..]]);
    let next = direct_stride(subject.geometry(), block);
    let batches = [
        vec![one(0, 0..block)],
        vec![one(0, 0..2 * block), one(subject.at(2), 0..block), one(subject.at(9), 0..block)],
        vec![WriteAt::gather(0, [&memory[..block], &memory[next..next + block]])],
        vec![one(0, odd..odd + block)],
        vec![one(0, 1..1 + block)],
        vec![one(0, 0..block), one(subject.at(1), 0..block - 1).padded_to(whole)],
        vec![WriteAt::gather(0, [&memory[..block / 2], &memory[next..next + block / 2]])],
        vec![one(1, 0..block)],
        vec![one(0, 0..block - 1)],
        vec![one(0, 0..0)],
        vec![one(0, 0..block).padded_to(2 * whole)],
        vec![one(0, 0..2 * block).padded_to(whole)],
        vec![one(subject.at(subject.blocks()), 0..block)],
        vec![],
    ];
    for (number, batch) in batches.iter().enumerate() {
        let mut refused = false;
        let (_, staged) = moved(subject, || {
            refused = kinds(&device.write_buffers(batch)).iter().any(Option::is_some);
        });
        let said = can_batch(batch, subject.geometry());
        assert_eq!(said, !refused && staged == 0, "batch {number}: {staged} bytes were copied");
    }
}

pub(crate) fn a_batch_that_needs_much_aligned_memory_is_done_in_parts(subject: &Subject) {
    let device = subject.dispatcher();
    let total_len = 4 << 20;
    let bytes = pattern(305, total_len);
    fill(&device, 0, &bytes);
    // Eighty MiB pass through aligned memory.
    let batch = (0..20).map(|_| {
        OwnedTransfer::new(0, AlignedBuf::zeroed(9).unwrap())
            .with_payload_len(9)
            .padded_to(total_len as u64)
    });
    let (direct, staged) = moved(subject, || {
        for finished in device.batched_read(batch.collect()).unwrap().wait() {
            finished.result.unwrap();
            assert_same(&finished.buffer, &bytes[..9], "one of many");
        }
    });
    let whole = whole_units(subject, 9);
    assert_eq!((direct, staged), (20 * whole, 20 * (total_len as u64 - whole)));
}

//! Each transfer has its own result, and the right one.

use super::{assert_holds, fill, kinds};
use crate::backend::OpKind;
use crate::conformance::bytes::{assert_same, pattern};
use crate::conformance::{Skipped, Subject};
use crate::{AlignedBuf, Dispatcher, Error, ErrorKind, Geometry, ReadAt, WriteAt, WriteOptions};

/// Offset and total length of transfers that break a rule, and the kind of the error.
fn offenders(subject: &Subject) -> Vec<(u64, u64, ErrorKind)> {
    let (block, end) = (subject.block() as u64, subject.geometry().capacity);
    let mut offenders = vec![
        (block, 0, ErrorKind::InvalidInput),
        (block + 1, block, ErrorKind::Misaligned),
        (block / 2, block, ErrorKind::Misaligned),
        (block, block + 1, ErrorKind::Misaligned),
        (end, block, ErrorKind::OutOfRange),
        (end - block, 2 * block, ErrorKind::OutOfRange),
        (u64::MAX - block + 1, block, ErrorKind::OutOfRange),
        (u64::MAX - 2 * block + 1, 2 * block, ErrorKind::OutOfRange),
        (block, u64::MAX - block + 1, ErrorKind::OutOfRange),
        (u64::MAX, block, ErrorKind::Misaligned),
        (0, u64::MAX, ErrorKind::Misaligned),
    ];
    if subject.alignment() == 1 {
        offenders.retain(|&(.., kind)| kind != ErrorKind::Misaligned);
    }
    offenders
}

pub(crate) fn the_geometry_can_be_worked_with(subject: &Subject) {
    let geometry = *subject.geometry();
    let Geometry { logical_block, transfer_alignment, memory_alignment, .. } = geometry;
    assert!(logical_block.is_power_of_two() && logical_block >= Geometry::MIN_LOGICAL_BLOCK);
    assert!(transfer_alignment == 1 || transfer_alignment >= logical_block);
    assert!(transfer_alignment.is_power_of_two());
    assert!(
        memory_alignment.is_power_of_two() && memory_alignment as usize <= AlignedBuf::ALIGNMENT
    );
    assert!(geometry.capacity.is_multiple_of(u64::from(transfer_alignment)));
    assert!(geometry.max_transfer >= u64::from(transfer_alignment));
    assert!(geometry.max_segments >= 1);
    fill(&subject.dispatcher(), 0, &pattern(199, subject.block()));
    assert_eq!(*subject.geometry(), geometry, "it never changes");
    assert!(!subject.backend.engine().is_empty() && !subject.backend.name().is_empty());
}

pub(crate) fn each_write_of_a_batch_has_its_own_result(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let offenders = offenders(subject);
    let good = pattern(200, (offenders.len() + 1) * block);
    // Good ones and bad ones in turn, so that each bad one has good neighbours.
    let mut batch = Vec::new();
    let mut expected = Vec::new();
    for (number, part) in good.chunks(block).enumerate() {
        batch.push(WriteAt::new(subject.at(20 + number), part));
        expected.push(None);
        if let Some(&(offset, total_len, kind)) = offenders.get(number) {
            batch.push(WriteAt::new(offset, &[]).padded_to(total_len));
            expected.push(Some(kind));
        }
    }
    assert_eq!(kinds(&device.write_buffers(&batch)), expected);
    assert_holds(&device, subject.at(20), &good, "the good ones");
}

pub(crate) fn options_of_a_write_are_obeyed_or_refused(subject: &Subject) {
    let device = subject.dispatcher();
    let geometry = *subject.geometry();
    let block = subject.block();
    let placed = |handle| WriteOptions::new().placement(handle);
    let durable = WriteOptions::new().durable(true);
    let lacks_durable = (!geometry.durable_writes).then_some(ErrorKind::Unsupported);
    let handles = geometry.placement_handles;
    let no_handle = if handles == 0 { ErrorKind::Unsupported } else { ErrorKind::InvalidInput };
    let mut cases = vec![
        (WriteOptions::new(), None),
        (durable, lacks_durable),
        (WriteOptions::new(), None),
        (placed(handles), Some(no_handle)),
        (placed(u16::MAX), Some(no_handle)),
    ];
    cases.extend((0..handles).map(|handle| (placed(handle), None)));
    let good = pattern(230, cases.len() * block);
    fill(&device, 0, &pattern(231, good.len()));
    let before = device.stats();
    let batch: Vec<_> = (cases.iter().zip(good.chunks(block)).enumerate())
        .map(|(number, (&(options, _), part))| {
            WriteAt::new(subject.at(number), part).with_options(options)
        })
        .collect();
    let expected: Vec<_> = cases.iter().map(|&(_, error)| error).collect();
    assert_eq!(kinds(&device.write_buffers(&batch)), expected);
    let done = expected.iter().filter(|error| error.is_none()).count() as u64;
    assert_eq!(device.stats().ops - before.ops, done, "neighbours with other options stay apart");
    for (number, part) in good.chunks(block).enumerate() {
        if expected[number].is_none() {
            assert_holds(&device, subject.at(number), part, "what was written with options");
        }
    }
}

pub(crate) fn each_read_of_a_batch_has_its_own_result(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let offenders = offenders(subject);
    let good = pattern(201, (offenders.len() + 1) * block);
    fill(&device, subject.at(20), &good);

    let mut found = vec![0; good.len()];
    let mut batch = Vec::new();
    let mut expected = Vec::new();
    for (number, part) in found.chunks_mut(block).enumerate() {
        batch.push(ReadAt::new(subject.at(20 + number), part));
        expected.push(None);
        if let Some(&(offset, total_len, kind)) = offenders.get(number) {
            batch.push(ReadAt::new(offset, &mut []).padded_to(total_len));
            expected.push(Some(kind));
        }
    }
    assert_eq!(kinds(&device.read_buffers(&mut batch)), expected);
    assert_same(&found, &good, "the good ones");
}

pub(crate) fn a_payload_longer_than_its_total_length_is_refused(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(202, 3 * block);
    fill(&device, 0, &bytes);
    let long = vec![1; block + 1];
    let batch = [
        WriteAt::new(0, &long[..1]).padded_to(0),
        WriteAt::new(subject.at(1), &long).padded_to(block as u64),
    ];
    let refused = Some(ErrorKind::InvalidInput);
    assert_eq!(kinds(&device.write_buffers(&batch)), [refused, refused]);
    assert_holds(&device, 0, &bytes, "after refused writes");

    let mut long = long;
    let mut batch = [ReadAt::new(0, &mut long).padded_to(block as u64)];
    assert_eq!(kinds(&device.read_buffers(&mut batch)), [refused]);
    assert!(long.iter().all(|&byte| byte == 1), "a refused read moved bytes");
}

pub(crate) fn an_error_says_what_where_and_on_which_device(subject: &Subject) {
    let device = subject.dispatcher();
    let end = subject.at(subject.blocks());
    let bytes = vec![0; subject.block()];
    let error = device.write_buffers(&[WriteAt::new(end, &bytes)]).all().unwrap_err();
    assert_eq!((error.offset(), error.length()), (Some(end), Some(bytes.len() as u64)));
    let text = error.to_string();
    for part in ["write", &end.to_string(), &bytes.len().to_string(), subject.backend.name()] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

pub(crate) fn an_empty_batch_has_no_results(subject: &Subject) {
    let device = subject.dispatcher();
    assert!(device.write_buffers::<1>(&[]).is_empty());
    assert!(device.read_buffers::<2>(&mut []).is_empty());
    assert!(device.batched_write(Vec::new()).unwrap().wait().is_empty());
    assert_eq!(device.batched_read(Vec::new()).unwrap().wait().len(), 0);
    fill(&device, 0, &pattern(203, subject.block()));
}

pub(crate) fn overlapping_writes_are_refused_but_for_one(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let before = pattern(204, 8 * block);
    fill(&device, 0, &before);
    // The same place three times; a long one over two short ones; one that overlaps none.
    let bytes = pattern(205, 9 * block);
    let part = |first: usize, blocks: usize| &bytes[first * block..(first + blocks) * block];
    let places = [(0, 1), (0, 1), (0, 1), (2, 3), (4, 1), (3, 1), (6, 1)];
    let writes: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(number, &(at, blocks))| WriteAt::new(subject.at(at), part(number, blocks)))
        .collect();
    let results = kinds(&device.write_buffers(&writes));

    let overlap = |kind: &Option<ErrorKind>| *kind == Some(ErrorKind::Overlap);
    assert!(results.iter().all(|kind| kind.is_none() || overlap(kind)), "{results:?}");
    assert_eq!(
        results[..3].iter().filter(|kind| overlap(kind)).count(),
        2,
        "one of three is written"
    );
    assert!(overlap(&results[3]) != (overlap(&results[4]) && overlap(&results[5])), "{results:?}");
    assert_eq!(results[6], None, "the last one overlaps none");

    let mut expected = before;
    for (number, &(at, blocks)) in places.iter().enumerate() {
        if results[number].is_none() {
            expected[at * block..(at + blocks) * block].copy_from_slice(part(number, blocks));
        }
    }
    assert_holds(&device, 0, &expected, "those that were not refused");
}

pub(crate) fn overlapping_reads_are_served(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(206, 6 * block);
    fill(&device, subject.at(9), &bytes);
    let places = [(0, 6), (0, 1), (0, 1), (1, 4), (2, 2), (5, 1), (3, 3)];
    let mut found: Vec<_> = places.map(|(_, blocks)| vec![0xEE; blocks * block]).into();
    let mut batch: Vec<_> = places
        .iter()
        .zip(&mut found)
        .map(|(&(at, _), memory)| ReadAt::new(subject.at(9 + at), memory))
        .collect();
    device.read_buffers(&mut batch).all().unwrap();
    for ((at, blocks), found) in places.into_iter().zip(&found) {
        assert_same(found, &bytes[at * block..(at + blocks) * block], "one of several");
    }
}

pub(crate) fn a_flush_follows_writes(subject: &Subject) {
    let device = subject.dispatcher();
    device.flush().unwrap();
    let bytes = pattern(207, subject.block());
    fill(&device, 0, &bytes);
    device.flush().unwrap();
    device.flush().unwrap();
    assert_holds(&device, 0, &bytes, "after a flush");
}

pub(crate) fn ranges_of_one_unit_of_alignment_are_served(subject: &Subject) {
    let device = subject.dispatcher();
    let (unit, at) = (subject.alignment(), |number: usize| (number * subject.alignment()) as u64);
    let (first, last) = (at(1025), subject.geometry().capacity - at(5));
    let geometry = subject.geometry();
    for from in [first, last] {
        let mut bytes = pattern(209, 5 * unit);
        fill(&device, from, &vec![0xFF; 5 * unit]);
        let units = [0, 1, 2, 3, 4]
            .map(|number| WriteAt::new(from + at(number), &bytes[number * unit..][..unit]));
        device.write_buffers(&units).all().unwrap();
        assert_holds(&device, from, &bytes, "units written");
        for number in 0..5 {
            let unit = &bytes[number * unit..][..unit];
            assert_holds(&device, from + at(number), unit, "a unit");
        }
        let supported = |result: Result<(), Error>| match result {
            Ok(()) => true,
            // Some file systems report only in the attempt that they cannot.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                false
            }
        };
        if geometry.write_zeroes && supported(device.write_zeroes(from + at(1), at(1))) {
            bytes[unit..2 * unit].fill(0);
        }
        assert_holds(&device, from, &bytes, "zeroes");
        if geometry.discard && supported(device.discard(from + at(3), at(1))) {
            assert_holds(&device, from, &bytes[..3 * unit], "before a discarded unit");
            assert_holds(&device, from + at(4), &bytes[4 * unit..], "past a discarded unit");
        }
    }
}

pub(crate) fn erasing_obeys_the_rules_of_a_transfer(subject: &Subject) {
    let device = subject.dispatcher();
    let geometry = subject.geometry();
    type Erase = fn(&Dispatcher, u64, u64) -> Result<(), Error>;
    let operations: [(OpKind, bool, Erase); 2] = [
        (OpKind::Discard, geometry.discard, Dispatcher::discard),
        (OpKind::WriteZeroes, geometry.write_zeroes, Dispatcher::write_zeroes),
    ];
    for (kind, supported, erase) in operations {
        for (offset, len, expected) in offenders(subject) {
            let found = erase(&device, offset, len).unwrap_err().kind();
            let expected = if supported { expected } else { ErrorKind::Unsupported };
            assert_eq!(found, expected, "{} of {len} at {offset}", kind.name());
        }
        let block = subject.block();
        let mut bytes = pattern(208, 4 * block);
        fill(&device, 0, &bytes);
        match erase(&device, subject.at(1), 2 * block as u64) {
            Ok(()) => assert!(supported, "it said that it has no {}", kind.name()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                if supported {
                    Skipped::because(error).report();
                }
                continue;
            }
        }
        if kind == OpKind::WriteZeroes {
            bytes[block..3 * block].fill(0);
            assert_holds(&device, 0, &bytes, "zeroes");
        }
        assert_holds(&device, subject.at(3), &bytes[3 * block..], "past the end");
        assert_holds(&device, 0, &bytes[..block], "in front");
    }
}

//! Neighbours on the device share an op.

use super::{assert_holds, direct_memory, direct_stride, fill, kinds};
use crate::conformance::Subject;
use crate::conformance::bytes::{assert_same, pattern};
use crate::{ReadAt, WriteAt};

/// How many transfers are neighbours.
const NEIGHBOURS: usize = 24;

/// Ops and merged transfers of what `run` does.
fn counted(subject: &Subject, run: impl FnOnce()) -> (u64, u64) {
    let before = subject.stats();
    run();
    let after = subject.stats();
    (after.ops - before.ops, after.merged_transfers - before.merged_transfers)
}

/// Whether two blocks fit into one command.
fn can_merge(subject: &Subject) -> bool {
    let geometry = subject.geometry();
    geometry.max_segments > 1 && geometry.max_transfer >= 2 * subject.block() as u64
}

fn assert_merged(subject: &Subject, (ops, merged): (u64, u64)) {
    let geometry = subject.geometry();
    if !can_merge(subject) {
        return assert_eq!((ops, merged), (NEIGHBOURS as u64, 0), "nothing can share a command");
    }
    assert!(ops < NEIGHBOURS as u64, "{NEIGHBOURS} neighbours became {ops} ops");
    assert!(merged > NEIGHBOURS as u64 - ops, "{merged} transfers share an op");
    let blocks_per_op = (geometry.max_transfer / subject.block() as u64).max(1);
    let per_op = blocks_per_op.min(u64::from(geometry.max_segments));
    assert!(ops * per_op >= NEIGHBOURS as u64, "an op is larger than one command");
}

pub(crate) fn neighbours_share_an_op(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(400, NEIGHBOURS * block);
    let stride = direct_stride(subject.geometry(), block);
    let mut memory = direct_memory(subject, NEIGHBOURS, block);
    for (to, from) in memory.chunks_mut(stride).zip(bytes.chunks(block)) {
        to[..block].copy_from_slice(from);
    }
    // Not in the order of the device.
    let mut batch: Vec<_> = (0..).zip(memory.chunks(stride)).collect();
    batch.rotate_left(7);
    batch[3..20].reverse();
    let batch: Vec<_> = batch
        .into_iter()
        .map(|(number, memory)| WriteAt::new(subject.at(5 + number), &memory[..block]))
        .collect();
    let write = counted(subject, || device.write_buffers(&batch).all().unwrap());
    assert_merged(subject, write);
    assert_holds(&device, subject.at(5), &bytes, "neighbours");

    memory.fill(0xEE);
    let mut batch: Vec<_> = (0..)
        .zip(memory.chunks_mut(stride))
        .map(|(number, memory)| ReadAt::new(subject.at(5 + number), &mut memory[..block]))
        .collect();
    batch.reverse();
    let read = counted(subject, || device.read_buffers(&mut batch).all().unwrap());
    assert_merged(subject, read);
    let found: Vec<_> =
        memory.chunks(stride).flat_map(|memory| &memory[..block]).copied().collect();
    assert_same(&found, &bytes, "neighbours");
}

pub(crate) fn transfers_apart_share_nothing(subject: &Subject) {
    let device = subject.dispatcher();
    let bytes = pattern(401, subject.block());
    let batch: Vec<_> =
        (0..10).map(|number| WriteAt::new(subject.at(2 * number), &bytes)).collect();
    let (ops, merged) = counted(subject, || device.write_buffers(&batch).all().unwrap());
    assert_eq!((ops, merged), (10, 0));
}

pub(crate) fn neighbours_with_padding_share_an_op(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(402, NEIGHBOURS * block);
    fill(&device, 0, &vec![0xFF; (NEIGHBOURS + 1) * block]);
    let mut expected = vec![0; NEIGHBOURS * block];
    let batch: Vec<_> = (0..NEIGHBOURS)
        .map(|number| {
            // A payload of 0 bytes, of 7, of 14, ...
            let payload = &bytes[number * block..number * block + 7 * number];
            expected[number * block..number * block + payload.len()].copy_from_slice(payload);
            WriteAt::new(subject.at(number), payload).padded_to(block as u64)
        })
        .collect();
    let write = counted(subject, || device.write_buffers(&batch).all().unwrap());
    assert_merged(subject, write);
    assert_holds(&device, 0, &expected, "padded neighbours");
    assert_holds(&device, subject.at(NEIGHBOURS), &vec![0xFF; block], "after them");
}

pub(crate) fn a_refused_transfer_parts_its_neighbours(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let before = pattern(403, 3 * block);
    fill(&device, 0, &before);
    let bytes = pattern(404, 3 * block);
    let parts: Vec<_> = bytes.chunks(block).collect();
    let batch = [
        WriteAt::new(0, parts[0]),
        WriteAt::new(subject.at(1), parts[1]).padded_to(0),
        WriteAt::new(subject.at(2), parts[2]),
    ];
    let results = kinds(&device.write_buffers(&batch));
    assert!(results[0].is_none() && results[1].is_some() && results[2].is_none());
    let expected = [parts[0], &before[block..2 * block], parts[2]].concat();
    assert_holds(&device, 0, &expected, "around a refused write");
}

pub(crate) fn a_batch_of_100_000_transfers_is_done(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(405, 1000 * block);
    fill(&device, 0, &bytes);
    let mut found = vec![[0_u8; 8]; 100_000];
    let mut batch: Vec<_> = (0..)
        .zip(&mut found)
        .map(|(number, memory)| {
            ReadAt::new(subject.at(number * 7919 % 1000), memory).padded_to(block as u64)
        })
        .collect();
    device.read_buffers(&mut batch).all().unwrap();
    for (number, found) in found.iter().enumerate() {
        let at = number * 7919 % 1000 * block;
        assert_eq!(found, &bytes[at..at + 8], "transfer {number}");
    }
}

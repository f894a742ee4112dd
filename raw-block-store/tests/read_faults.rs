//! A device that reads something else than was written: never wrong bytes, always counted, and nothing else
//! is harmed.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::ops::{ControlFlow, Range};
use std::thread;
use std::time::Duration;

use common::{bytes, payload, put_all};
use raw_block_core::simulated::{Fault, SimulatedDevice};
use raw_block_core::{Geometry, OpKind};
use raw_block_store::format::Superblock;
use raw_block_store::{Error, FormatOptions, Get, OpenOptions, Put, Store, Verification};

const SLOTS: u64 = 12;
const PAYLOAD: usize = 9000;
const EIO: i32 = 5;

/// A store with an object in each of the first eight slots; slots 0 to 3 were written twice.
fn store(block_size: u32, options: &OpenOptions) -> (SimulatedDevice, Store, Superblock) {
    let geometry = Geometry::new(1 << 20, 512).unwrap();
    let device = SimulatedDevice::new(geometry, 1).unwrap();
    let format = FormatOptions {
        slot_count: Some(SLOTS),
        block_size: Some(block_size),
        delete_log_blocks: Some(2),
        ..FormatOptions::for_payloads(PAYLOAD as u64)
    };
    Store::format(device.backend(), &format).unwrap();
    // Without a thread it is known which checkpoint is the newest.
    let options = OpenOptions { checkpoint_thread: false, ..options.clone() };
    let store = Store::open_with(device.backend(), &options).unwrap();
    let superblock = *Superblock::read(&device.peek(0, 4096)).unwrap();
    for key in [b"a", b"b", b"c", b"d"] {
        store.put(key, &bytes(u64::from(key[0]), PAYLOAD)).unwrap();
    }
    let keys: Vec<&[u8]> = vec![b"a", b"b", b"c", b"d"];
    store.delete_many(&keys).into_iter().for_each(|result| _ = result.unwrap());
    store.checkpoint().unwrap();
    let values: Vec<_> = (0..8).map(value).collect();
    let keys: Vec<_> = (0..8).map(key).collect();
    let puts: Vec<_> = keys.iter().zip(&values).map(|(key, value)| Put::new(key, value)).collect();
    put_all(&store, &puts);
    store.flush().unwrap();
    (device, store, superblock)
}

fn key(number: u8) -> [u8; 1] {
    [number]
}

fn value(number: u8) -> Vec<u8> {
    // One payload is in its header block.
    bytes(u64::from(number), if number == 1 { 200 } else { PAYLOAD })
}

/// Everything that a device may read in place of what was written to a range.
fn faults(range: &Range<u64>, elsewhere: u64) -> Vec<(&'static str, Fault)> {
    vec![
        ("an error", Fault::fail(OpKind::Read, EIO).within(range.clone())),
        // In the part of a header block that is always used.
        ("a flipped bit", Fault::flip_bit(Some(700)).within(range.clone())),
        ("zeroes", Fault::zeroed().within(range.clone())),
        ("what was there before", Fault::old_version().within(range.clone())),
        ("what is elsewhere", Fault::other_block(elsewhere).within(range.clone())),
    ]
}

/// The bytes of the object in a slot that are checked: header with what is in its block, and payload.
fn parts(superblock: &Superblock, slot: u8) -> [Range<u64>; 2] {
    let start = superblock.slot_offset(slot.into()).unwrap();
    let payload = start + u64::from(superblock.block_size.get());
    [start..start + 128, payload..payload + 8192]
}

#[test]
fn a_get_finds_the_right_bytes_or_says_what_is_wrong() {
    for block_size in [512, 4096] {
        let (device, store, superblock) = store(block_size, &OpenOptions::default());
        let mut failed = 0;
        for victim in 0..8 {
            for (part, range) in parts(&superblock, victim).into_iter().enumerate() {
                if part == 1 && victim == 1 {
                    continue;
                }
                let [header, behind] = parts(&superblock, (victim + 2) % 8);
                let elsewhere = if part == 0 { header.start } else { behind.start };
                for (what, fault) in faults(&range, elsewhere) {
                    device.inject(fault);
                    let case = format!("{what}, slot {victim}, part {part}");
                    for number in 0..8 {
                        let found = store.get(&key(number));
                        if number == victim {
                            let error = found.expect_err(&case);
                            assert!(
                                matches!(error, Error::Damaged { .. } | Error::Device { .. }),
                                "{case}: {error}"
                            );
                            failed += u64::from(matches!(error, Error::Damaged { .. }));
                        } else {
                            assert!(found.unwrap().unwrap().payload() == value(number), "{case}");
                        }
                    }
                    let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
                    assert_eq!(report.findings.len(), 1, "{case}: {report:?}");
                    assert_eq!((report.objects, report.complete), (8, true));
                    failed += 1;
                    device.clear_faults();
                }
            }
        }
        assert_eq!(store.stats().failed_checks, failed);
        assert!(store.scrub(|_| ControlFlow::Continue(())).unwrap().findings.is_empty());
    }
}

#[test]
fn a_batch_tells_a_miss_from_a_failed_check_from_an_error_of_the_device() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    let [_, payload] = parts(&superblock, 2);
    device.inject(Fault::flip_bit(None).within(payload));
    let [_, payload] = parts(&superblock, 4);
    device.inject(Fault::fail(OpKind::Read, EIO).within(payload));
    let keys: Vec<_> = (0..9).map(key).collect();
    let mut buffers = vec![vec![0; PAYLOAD]; 9];
    let mut gets: Vec<_> =
        keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
    let found = store.get_many(&mut gets);
    for (number, (found, buffer)) in (0..).zip(found.iter().zip(&buffers)) {
        match number {
            2 => assert!(matches!(found, Err(Error::Damaged { .. }))),
            4 => assert!(matches!(found, Err(Error::Device { .. }))),
            8 => assert!(matches!(found, Ok(None))),
            _ => {
                let len = found.as_ref().unwrap().unwrap().payload_len;
                assert!(buffer[..len] == value(number));
            }
        }
    }
}

#[test]
fn a_scrub_names_the_damaged_place() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    // Its first block is written for the second time.
    for key in [&b"e"[..], b"f"] {
        store.delete_many(&[key]).into_iter().for_each(|result| _ = result.unwrap());
    }
    let last = superblock.last_superblock_offset.get();
    let checkpoint = superblock.checkpoint_offset[1].get();
    let log = superblock.delete_log_offset.get();
    for (range, named, structure) in [
        (0..512, 0, "a copy of the superblock"),
        (4096..4608, 4096, "a copy of the superblock"),
        (last..last + 512, last, "a copy of the superblock"),
        (checkpoint..checkpoint + 512, checkpoint, "the header of a checkpoint"),
        (checkpoint + 4096..checkpoint + 4608, checkpoint + 4096, "a block of a checkpoint"),
        (log..log + 4096, log, "a block of the delete log"),
        (log + 4096..log + 8192, log + 4096, "a block of the delete log"),
    ] {
        for (what, fault) in faults(&range, superblock.slot_offset(9).unwrap()) {
            if what == "what was there before" && structure == "a copy of the superblock" {
                // An older copy is a valid one.
                continue;
            }
            device.inject(fault);
            let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
            assert_eq!(report.findings.len(), 1, "{what} at {named}: {report:?}");
            match &report.findings[0].error {
                Error::Damaged { structure: found, offset, .. } => {
                    assert_eq!((*found, *offset), (structure, named));
                }
                Error::Device { error, .. } => assert_eq!(what, "an error", "{error}"),
                Error::CheckpointLost { number: 2, .. } => assert_eq!(named, checkpoint),
                other => panic!("{what} at {named}: {other}"),
            }
            device.clear_faults();
        }
    }
}

#[test]
fn what_is_replaced_while_a_scrub_reads_it_is_no_damage() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    let slots = superblock.slot_offset(0).unwrap()..superblock.last_superblock_offset.get();
    device.inject(Fault::hold(OpKind::Read).within(slots));
    let report = thread::scope(|scope| {
        let scrub = scope.spawn(|| store.scrub(|_| ControlFlow::Continue(())).unwrap());
        // It reads objects by tickets.
        while store.device().stats().tickets_out == 0 {
            assert!(!scrub.is_finished(), "it waits for the device");
            thread::sleep(Duration::from_millis(1));
        }
        // Into the free slots, and others then into those that became free.
        for keys in [[0, 1, 2, 3], [100, 101, 102, 103]] {
            let value = bytes(7, PAYLOAD);
            keys.into_iter().for_each(|number| store.put(&key(number), &value).unwrap());
            store.checkpoint().unwrap();
        }
        assert_eq!(store.stats().live_slots, SLOTS);
        device.clear_faults();
        scrub.join().unwrap()
    });
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!((report.objects, report.complete), (4, true));
    assert_eq!(store.stats().failed_checks, 0);
}

#[test]
fn an_open_store_believes_no_damaged_structure_and_an_unharmed_copy_serves() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    drop(store);
    let last = superblock.last_superblock_offset.get();
    for copy in [0, 4096, last] {
        for (what, fault) in faults(&(copy..copy + 512), superblock.slot_offset(9).unwrap()) {
            let device = device.fork(3);
            device.inject(fault);
            let store =
                Store::open(device.backend()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!((0..8).all(|number| payload(&store, &key(number)).unwrap() == value(number)));
        }
    }
    for container in superblock.checkpoint_offset.map(u64::from) {
        for range in [container..container + 512, container + 4096..container + 4608] {
            for (what, fault) in faults(&range, superblock.slot_offset(9).unwrap()) {
                let device = device.fork(3);
                device.inject(fault);
                match Store::open(device.backend()) {
                    // It was not the newest.
                    Ok(store) => {
                        for number in 0..8 {
                            assert!(
                                payload(&store, &key(number)).unwrap() == value(number),
                                "{what}"
                            );
                        }
                        assert!([b"a", b"b", b"c", b"d"].iter().all(|key| !store.contains(*key)));
                    }
                    Err(error) => assert!(
                        matches!(error, Error::CheckpointLost { number: 2, .. }),
                        "{what}: {error}"
                    ),
                }
            }
        }
    }
}

/// For each fault in the header of each object: the recovered store has all the others, and not that one. Then `also`
/// looks at it: what the fault is, the device that has it, the store, and the number of the object.
fn recover_with_damaged_headers(
    device: &SimulatedDevice,
    superblock: &Superblock,
    also: impl Fn(&str, &SimulatedDevice, Store, u8),
) {
    for victim in 0..8 {
        let [header, _] = parts(superblock, victim);
        let elsewhere = superblock.slot_offset(u64::from(victim + 2) % 8).unwrap();
        for (what, fault) in faults(&header, elsewhere) {
            let device = device.fork(3);
            device.inject(fault);
            // One that cannot be read is left out only on request.
            let options = OpenOptions { accept_older_states: true, ..OpenOptions::default() };
            let store = Store::open_with(device.backend(), &options).unwrap();
            for number in (0..8).filter(|&number| number != victim) {
                assert!(payload(&store, &key(number)).unwrap() == value(number), "{what}");
            }
            assert_eq!(payload(&store, &key(victim)), None, "{what}");
            also(what, &device, store, victim);
        }
    }
}

#[test]
fn a_damaged_header_costs_a_recovery_its_own_object_and_no_other() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    drop(store);
    recover_with_damaged_headers(&device, &superblock, |what, device, store, victim| {
        // Nothing that comes later is mixed up with what could not be read.
        store.put(&key(victim), b"newer").unwrap();
        drop(store);
        device.clear_faults();
        let store = Store::open(device.backend()).unwrap();
        assert_eq!(payload(&store, &key(victim)).unwrap(), b"newer", "{what}");
    });
}

#[test]
fn a_header_that_the_checkpoint_names_is_missed_by_a_recovery_if_it_is_damaged_and_counted() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    store.checkpoint().unwrap();
    drop(store);
    recover_with_damaged_headers(&device, &superblock, |what, _, store, _| {
        assert_eq!(store.stats().failed_checks, 1, "{what}");
    });
    // What was replaced or deleted since is not missed.
    let store = Store::open(device.backend()).unwrap();
    assert!(store.delete_many(&[&key(0)]).remove(0).unwrap());
    store.put(&key(2), b"newer").unwrap();
    store.flush().unwrap();
    drop(store);
    for victim in [0, 2] {
        let [header, _] = parts(&superblock, victim);
        device.inject(Fault::zeroed().within(header));
    }
    let store = Store::open(device.backend()).unwrap();
    assert_eq!(store.stats().failed_checks, 0);
    assert_eq!(payload(&store, &key(0)), None);
    assert_eq!(payload(&store, &key(2)).unwrap(), b"newer");
}

#[test]
fn a_damaged_payload_found_by_a_recovery_is_told_by_its_get() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    drop(store);
    for victim in (0..8).filter(|&victim| victim != 1) {
        let [header, behind] = parts(&superblock, (victim + 2) % 8);
        // The payload of slot 1 is in its header block.
        let elsewhere = if victim == 7 { header.start } else { behind.start };
        let [_, range] = parts(&superblock, victim);
        for (what, fault) in faults(&range, elsewhere) {
            let device = device.fork(3);
            device.inject(fault);
            let store = Store::open(device.backend()).unwrap();
            for number in 0..8 {
                match store.get(&key(number)) {
                    Ok(Some(found)) => {
                        assert!(number != victim && found.payload() == value(number), "{what}");
                    }
                    Err(Error::Device { .. }) => assert_eq!((number, what), (victim, "an error")),
                    Err(Error::Damaged { .. }) => {
                        assert!(number == victim && what != "an error", "{what}, {number}");
                    }
                    found => panic!("{what}, slot {victim}: {found:?}"),
                }
            }
            assert_eq!(store.stats().failed_checks, u64::from(what != "an error"), "{what}");
        }
    }
}

#[test]
fn a_damaged_block_of_the_delete_log_brings_back_its_own_objects_or_none() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    let log = superblock.delete_log_offset.get();
    let blocks = [log..log + 4096, log + 4096..log + 8192];
    let all_are_well = |store: &Store, but: &[u8], what: &str| {
        for number in (0..8).filter(|number| !but.contains(number)) {
            assert!(payload(store, &key(number)).unwrap() == value(number), "{what}");
        }
        assert!([b"a", b"b", b"c", b"d"].iter().all(|key| !store.contains(*key)), "{what}");
    };
    // The deletions of "a" to "d" are in the first block, and the checkpoint speaks for them.
    let covered = device.fork(3);
    for (range, deleted) in [(&blocks[0], 0), (&blocks[1], 0), (&blocks[0], 6), (&blocks[1], 5)] {
        let uncovered = deleted > 0;
        let device = if uncovered { &device } else { &covered };
        if uncovered && store.contains(&key(5)) {
            // One in the second block, the next in the first again.
            for number in [5, 6] {
                assert!(store.delete_many(&[&key(number)]).remove(0).unwrap());
            }
            store.flush().unwrap();
        }
        for (what, fault) in faults(range, superblock.slot_offset(9).unwrap()) {
            let device = device.fork(3);
            device.inject(fault);
            let opened = Store::open(device.backend());
            assert_eq!(
                matches!(opened, Err(Error::NewestLost { offset, .. }) if offset == range.start),
                what == "an error"
            );
            drop(opened);
            let options = OpenOptions { accept_older_states: true, ..OpenOptions::default() };
            let store = Store::open_with(device.backend(), &options).unwrap();
            if uncovered {
                all_are_well(&store, &[5, 6], what);
                let back = payload(&store, &key(deleted));
                assert!(back.is_none_or(|back| back == value(deleted)), "{what}");
                assert!(!store.contains(&key(11 - deleted)), "{what}");
            } else {
                all_are_well(&store, &[], what);
            }
        }
    }
}

#[test]
fn with_less_verification_what_a_recovery_found_is_verified_once_all_the_same() {
    for verification in [Verification::Header, Verification::None] {
        let options = OpenOptions { verification, ..OpenOptions::default() };
        let (device, store, superblock) = store(4096, &options);
        let [_, range] = parts(&superblock, 5);
        device.inject(Fault::flip_bit(Some(3)).within(range.clone()));
        assert!(payload(&store, &key(5)).unwrap() != value(5), "it is not verified");
        drop(store);
        let store = Store::open_with(device.backend(), &options).unwrap();
        assert!(matches!(store.get(&key(5)), Err(Error::Damaged { .. })));
        device.clear_faults();
        assert!(payload(&store, &key(5)).unwrap() == value(5));
        device.inject(Fault::flip_bit(Some(3)).within(range));
        assert!(payload(&store, &key(5)).unwrap() != value(5), "it was verified once");
        assert_eq!(payload(&store, &key(1)).unwrap(), value(1), "in the header block");
    }
}

#[test]
fn all_keys_are_listed_with_their_metadata_but_for_those_that_cannot_be_read() {
    let (device, store, superblock) = store(4096, &OpenOptions::default());
    put_all(&store, &[Put::new(b"ninth", &[7; 5000]).with_metadata(b"of it")]);
    let [header, _] = parts(&superblock, 3);
    device.inject(Fault::zeroed().within(header));
    let mut listed = Vec::new();
    store
        .list(|object| {
            listed.push((object.key.to_vec(), object.metadata.to_vec(), object.payload_len));
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut expected: Vec<_> = (0..8)
        .filter(|&number| number != 3)
        .map(|number| (key(number).to_vec(), Vec::new(), value(number).len() as u64))
        .collect();
    expected.push((b"ninth".to_vec(), b"of it".to_vec(), 5000));
    assert_eq!(listed, expected);
    assert_eq!(store.stats().failed_checks, 1);
    let mut first = 0;
    store
        .list(|_| {
            first += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(first, 1);
}

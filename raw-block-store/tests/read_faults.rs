//! A device that reads something else than was written: gets return no wrong bytes, damage is counted, and nothing else
//! is harmed.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::ops::{ControlFlow, Range};

use common::slots::{FoundObject, FoundSlot, block_range, find, layout_of, slots};
use common::{bytes, payload, small, without_thread};
use raw_block_core::simulated::{Fault, SimulatedDevice};
use raw_block_core::{Geometry, OpKind};
use raw_block_store::format::{CheckpointHeader, Layout};
use raw_block_store::{
    Error, FormatOptions, Get, OpenOptions, Put, ScrubReport, Store, Verification,
};

const LEN: usize = 704 << 10;
const PAYLOAD: usize = 9000;
const EIO: i32 = 5;
/// The object whose payload is in its slot header.
const INLINE: u8 = 1;
/// The object that has metadata.
const DESCRIBED: u8 = 3;
const DELETED: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

fn key(number: u8) -> [u8; 1] {
    [number]
}

fn value(number: u8) -> Vec<u8> {
    bytes(u64::from(number), if number == INLINE { 200 } else { PAYLOAD })
}

/// A store with eight objects in as many slots, of which the checkpoint names the first four. Four
/// other objects were deleted since the checkpoint. Every block was written before by something that is deleted.
fn filled(block_size: u32) -> (SimulatedDevice, Store) {
    let device = SimulatedDevice::new(Geometry::new(LEN as u64, 512).unwrap(), 1).unwrap();
    let segment_size = Some(64 << 10);
    let format = FormatOptions { segment_size, block_size: Some(block_size), ..small() };
    Store::format(device.backend(), &format).unwrap();
    let store = open(&device, &without_thread()).unwrap();
    let is_filler = |number: &u32| store.put(&number.to_le_bytes(), &[7; 2 * PAYLOAD]).is_ok();
    let fillers = (0..).take_while(is_filler).count();
    for (_, filler) in (0..fillers).zip(0_u32..) {
        assert!(store.delete(&filler.to_le_bytes()).unwrap());
    }
    let put = |number: u8| {
        let (key, value) = (key(number), value(number));
        let metadata = if number == DESCRIBED { &b"metadata"[..] } else { b"" };
        let put = Put::new(&key, &value).with_metadata(metadata);
        store.put_many(&[put]).remove(0).unwrap();
    };
    DELETED.iter().for_each(|key| store.put(key, &[7; PAYLOAD]).unwrap());
    (0..4).for_each(put);
    store.checkpoint().unwrap();
    (4..8).for_each(put);
    DELETED.iter().for_each(|key| assert!(store.delete(key).unwrap()));
    (device, store)
}

fn closed(block_size: u32) -> SimulatedDevice {
    let (device, store) = filled(block_size);
    store.close().unwrap();
    device
}

/// A device whose store has to be recovered.
fn not_closed() -> SimulatedDevice {
    let (device, store) = filled(512);
    store.flush().unwrap();
    device
}

fn open(device: &SimulatedDevice, options: &OpenOptions) -> Result<Store, Error> {
    Store::open_with(device.backend(), options)
}

fn open_whatever_is_left(device: &SimulatedDevice) -> Store {
    open(device, &OpenOptions { accept_older_states: true, ..without_thread() }).unwrap()
}

fn image(device: &SimulatedDevice) -> Vec<u8> {
    device.peek(0, LEN)
}

/// Everything that a device may read in place of what was written to a range.
fn faults(range: &Range<u64>, elsewhere: u64) -> Vec<(&'static str, Fault)> {
    let faults = [
        ("an error", Fault::fail(OpKind::Read, EIO)),
        // In the part of a header block that is always used.
        ("a flipped bit", Fault::flip_bit(Some(500))),
        ("zeroes", Fault::zeroed()),
        ("what was there before", Fault::old_version()),
        ("what is elsewhere", Fault::other_block(elsewhere)),
    ];
    faults.map(|(what, fault)| (what, fault.within(range.clone()))).into()
}

fn scrub(store: &Store) -> ScrubReport {
    store.scrub(|_| ControlFlow::Continue(())).unwrap()
}

/// All objects but this one are as they were put, and what was deleted is not there.
fn others_are_intact(store: &Store, victim: u8, what: &str) {
    for number in (0..8).filter(|&number| number != victim) {
        assert!(payload(store, &key(number)).unwrap() == value(number), "{what}: {number}");
    }
    assert!(DELETED.iter().all(|key| !store.contains(key)), "{what}");
}

/// Reads an object in a store whose device has a fault in this part of it.
fn get_with_fault(store: &Store, victim: u8, what: &str, is_header: bool) {
    let is_read = !is_header || [INLINE, DESCRIBED].contains(&victim);
    match store.get(&key(victim)) {
        Ok(found) => {
            assert!(!is_read, "{what}: the fault is not noticed");
            assert!(found.unwrap().payload() == value(victim), "{what}");
        }
        Err(Error::Device { error, .. }) => assert_eq!(what, "an error", "{error}"),
        Err(Error::Damaged { .. }) => {
            assert!(is_read && what != "an error", "{what}");
            assert!(!store.contains(&key(victim)) && store.pin(&key(victim)).is_none());
            assert!(matches!(store.get(&key(victim)), Err(Error::Damaged { .. })));
            assert_eq!(store.stats().failed_checks, 1, "it is counted once");
        }
        Err(other) => panic!("{what}: {other}"),
    }
    others_are_intact(store, victim, what);
}

#[test]
fn a_get_finds_the_right_bytes_or_says_what_is_wrong() {
    for block_size in [512, 4096] {
        let closed = closed(block_size);
        let image = image(&closed);
        for victim in [0, INLINE, DESCRIBED] {
            let (slot, object) = find(&image, &key(victim));
            let (other, other_object) = find(&image, &key(6));
            let header = (slot.header, other.header.start, true);
            let payload = (object.payload, other_object.payload.start, false);
            let parts = if object.is_inline { vec![header] } else { vec![header, payload] };
            for (range, elsewhere, is_header) in parts {
                for (what, fault) in faults(&range, elsewhere) {
                    let device = closed.fork(3);
                    let store = open(&device, &without_thread()).unwrap();
                    device.inject(fault);
                    get_with_fault(&store, victim, what, is_header);
                    let findings = scrub(&store).findings;
                    assert_eq!(findings.len(), 1, "{what}: {findings:?}");
                    // It is there again if the device could not read it, and else when it is put again.
                    device.clear_faults();
                    if what != "an error" {
                        assert!(store.get(&key(victim)).is_err());
                        store.put(&key(victim), &value(victim)).unwrap();
                    }
                    assert!(payload_is(&store, victim));
                    assert!(scrub(&store).findings.is_empty());
                }
            }
        }
    }
}

fn payload_is(store: &Store, number: u8) -> bool {
    payload(store, &key(number)).unwrap() == value(number)
}

#[test]
fn each_object_of_a_batch_has_its_own_error() {
    let device = closed(512);
    let store = open(&device, &without_thread()).unwrap();
    let payload = |number| find(&image(&device), &key(number)).1.payload;
    device.inject(Fault::flip_bit(None).within(payload(2)));
    device.inject(Fault::fail(OpKind::Read, EIO).within(payload(4)));
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

/// The container of the newest checkpoint.
fn newest_container(image: &[u8], layout: &Layout) -> u64 {
    let number = |offset: u64| {
        let start = usize::try_from(offset).unwrap();
        let block = &image[start..start + layout.block_size as usize];
        CheckpointHeader::read(block, layout).map_or(0, |header| header.number.get())
    };
    layout.container_offset.into_iter().max_by_key(|&offset| number(offset)).unwrap()
}

#[test]
fn a_scrub_names_the_damaged_place() {
    let device = not_closed();
    let store = open(&device, &without_thread()).unwrap();
    assert!(store.delete(&key(7)).unwrap());
    let image = image(&device);
    let layout = layout_of(&image);
    let container = newest_container(&image, &layout);
    let tombstones = slots(&image).into_iter().filter(FoundSlot::is_tombstone);
    let tombstone = tombstones.max_by_key(|slot| (slot.generation, slot.block)).unwrap();
    let segment = find(&image, &key(0)).0.segment;
    for (start, structure) in [
        (0, "a copy of the superblock"),
        (4096, "a copy of the superblock"),
        (layout.last_superblock_offset, "a copy of the superblock"),
        (container, "the header of a checkpoint"),
        (container + 512, "a block of a checkpoint"),
        (layout.segment_offset(segment), "the header of a segment"),
        (tombstone.header.start, "a slot header"),
    ] {
        for (what, fault) in faults(&(start..start + 512), layout.block_offset(segment, 5)) {
            if what == "what was there before" && structure == "a copy of the superblock" {
                // An older copy is a valid one.
                continue;
            }
            device.inject(fault);
            let findings = scrub(&store).findings;
            assert_eq!(findings.len(), 1, "{what} at {start}: {findings:?}");
            match &findings[0].error {
                Error::Damaged { structure: found, offset, .. } => {
                    assert_eq!((*found, *offset), (structure, start), "{what}");
                }
                Error::Device { error, .. } => assert_eq!(what, "an error", "{error}"),
                other => panic!("{what} at {start}: {other}"),
            }
            let is_body = start == container + 512;
            let named = if what == "an error" && is_body { container } else { start };
            assert_eq!(findings[0].offset, named, "{what}");
            device.clear_faults();
        }
    }
}

#[test]
fn an_opening_uses_no_damaged_structure() {
    let device = not_closed();
    let image = image(&device);
    let layout = layout_of(&image);
    let elsewhere = find(&image, &key(6)).0.header.start;
    for copy in [0, 4096, layout.last_superblock_offset] {
        for (what, fault) in faults(&(copy..copy + 512), elsewhere) {
            let device = device.fork(3);
            device.inject(fault);
            let store = open(&device, &without_thread()).unwrap_or_else(|error| {
                panic!("{what} in the superblock at {copy}: {error}");
            });
            others_are_intact(&store, 8, what);
        }
    }
    for container in layout.container_offset {
        for start in [container, container + 512] {
            for (what, fault) in faults(&(start..start + 512), elsewhere) {
                let device = device.fork(3);
                device.inject(fault);
                match open(&device, &without_thread()) {
                    Ok(store) => others_are_intact(&store, 8, what),
                    Err(Error::CheckpointLost { .. }) => {
                        assert_eq!(container, newest_container(&image, &layout), "{what}");
                    }
                    Err(error) => panic!("{what} in container {container}: {error}"),
                }
            }
        }
    }
}

#[test]
fn a_damaged_slot_header_costs_a_recovery_its_own_object() {
    let device = not_closed();
    let image = image(&device);
    for victim in 0..8 {
        let (slot, _) = find(&image, &key(victim));
        let elsewhere = find(&image, &key((victim + 2) % 8)).0.header.start;
        for (what, fault) in faults(&slot.header, elsewhere) {
            let device = device.fork(3);
            device.inject(fault);
            // One that cannot be read is left out only on request.
            let store = open_whatever_is_left(&device);
            others_are_intact(&store, victim, what);
            let failed = match store.get(&key(victim)) {
                // What a table names is found without its header.
                Ok(Some(found)) => {
                    assert!(victim < 4 && found.payload() == value(victim), "{what}");
                    0
                }
                Ok(None) => u64::from(victim < 4),
                Err(error) => {
                    assert!([INLINE, DESCRIBED].contains(&victim), "{what}: {error}");
                    u64::from(what != "an error")
                }
            };
            assert_eq!(store.stats().failed_checks, failed, "{what}");
            // What is put later wins over what could not be read.
            store.put(&key(victim), b"newer").unwrap();
            drop(store);
            device.clear_faults();
            let store = open(&device, &without_thread()).unwrap();
            assert_eq!(payload(&store, &key(victim)).unwrap(), b"newer", "{what}");
        }
    }
}

#[test]
fn a_damaged_payload_found_by_a_recovery_is_missed() {
    let device = not_closed();
    let image = image(&device);
    for victim in (0..8).filter(|&victim| victim != INLINE) {
        let (_, FoundObject { payload: range, .. }) = find(&image, &key(victim));
        let elsewhere = find(&image, &key(6 - 2 * u8::from(victim == 6))).1.payload.start;
        for (what, fault) in faults(&range, elsewhere) {
            let device = device.fork(3);
            device.inject(fault);
            let store = open(&device, &without_thread()).unwrap();
            let is_named = victim < 4;
            match store.get(&key(victim)) {
                // The power cut may have torn it before it was durable.
                Ok(None) => assert!(!is_named && what != "an error", "{what}, {victim}"),
                Err(Error::Damaged { .. }) => assert!(is_named && what != "an error", "{what}"),
                Err(Error::Device { .. }) => assert_eq!(what, "an error"),
                found => panic!("{what}, {victim}: {found:?}"),
            }
            others_are_intact(&store, victim, what);
            assert_eq!(store.stats().failed_checks, u64::from(what != "an error"), "{what}");
        }
    }
}

#[test]
fn a_damaged_tombstone_brings_back_its_own_objects_or_none() {
    let device = not_closed();
    let image = image(&device);
    let elsewhere = find(&image, &key(6)).0.header.start;
    let tombstones = slots(&image).into_iter().filter(FoundSlot::is_tombstone);
    let mut tombstones: Vec<_> = tombstones.collect();
    tombstones.sort_by_key(|slot| (slot.generation, slot.block));
    let newest = &tombstones[tombstones.len() - DELETED.len()..];
    for (deleted, tombstone) in DELETED.into_iter().zip(newest) {
        for (what, fault) in faults(&tombstone.header, elsewhere) {
            let device = device.fork(3);
            device.inject(fault);
            let opened = open(&device, &without_thread());
            let start = tombstone.header.start;
            assert_eq!(
                matches!(opened, Err(Error::NewestLost { offset, .. }) if offset == start),
                what == "an error"
            );
            drop(opened);
            let store = open_whatever_is_left(&device);
            assert!((0..8).all(|number| payload_is(&store, number)), "{what}");
            assert!(payload(&store, deleted).is_none_or(|back| back == [7; PAYLOAD]), "{what}");
            let others = DELETED.into_iter().filter(|&other| other != deleted);
            assert!(others.into_iter().all(|other| !store.contains(other)), "{what}");
        }
    }
}

#[test]
fn with_less_verification_a_recovery_verifies_once_all_the_same() {
    for verification in [Verification::Header, Verification::None] {
        let options = OpenOptions { verification, ..without_thread() };
        let device = closed(512);
        let (_, object) = find(&image(&device), &key(5));
        let flip = || Fault::flip_bit(Some(3)).within(object.payload.clone());
        let store = open(&device, &options).unwrap();
        device.inject(flip());
        assert!(!payload_is(&store, 5), "it is not verified");
        drop(store);

        let device = not_closed();
        device.inject(flip());
        let store = open(&device, &options).unwrap();
        assert_eq!(payload(&store, &key(5)), None);
        device.clear_faults();
        assert!(payload_is(&store, 6));
        let (_, object) = find(&image(&device), &key(6));
        device.inject(Fault::flip_bit(Some(3)).within(object.payload));
        assert!(!payload_is(&store, 6), "it was verified once");
        assert!(payload_is(&store, INLINE));
    }
}

#[test]
fn all_keys_are_listed_but_for_those_that_cannot_be_read() {
    let device = closed(512);
    let store = open(&device, &without_thread()).unwrap();
    let (slot, _) = find(&image(&device), &key(4));
    device.inject(Fault::zeroed().within(slot.header));
    let mut listed = Vec::new();
    store
        .list(|object| {
            listed.push((object.key.to_vec(), object.metadata.to_vec(), object.payload_len));
            ControlFlow::Continue(())
        })
        .unwrap();
    listed.sort_unstable();
    let metadata = |number| if number == DESCRIBED { b"metadata".to_vec() } else { Vec::new() };
    let expected: Vec<_> = (0..8)
        .filter(|&number| number != 4)
        .map(|number| (key(number).to_vec(), metadata(number), value(number).len() as u64))
        .collect();
    assert_eq!(listed, expected);
    assert_eq!(store.stats().failed_checks, 1);
}

#[test]
fn an_unreadable_block_of_a_filled_segment_is_named() {
    let device = not_closed();
    let image = image(&device);
    let (last, _) = find(&image, &key(7));
    let layout = layout_of(&image);
    let range = block_range(&layout, last.segment, last.block);
    device.inject(Fault::fail(OpKind::Read, EIO).within(range.clone()));
    match open(&device, &without_thread()) {
        Err(Error::NewestLost { offset, .. }) => assert_eq!(offset, range.start),
        other => panic!("{other:?}"),
    }
}

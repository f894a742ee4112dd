//! A device that reads something else than was written: gets return no wrong bytes, damage is
//! counted, and nothing else is harmed.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/read_faults.rs"]
mod read_faults;

use std::ops::ControlFlow;

use common::slots::{FoundSlot, find, layout_of, slots};
use common::without_thread;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;
use raw_block_store::{Error, Get, Put, ScrubReport, Store};
use read_faults::{
    DESCRIBED, EIO, INLINE, PAYLOAD, closed, faults, image, key, newest_container, not_closed,
    open, others_are_intact, payload_is, value,
};

fn scrub(store: &Store) -> ScrubReport {
    store.scrub(|_| ControlFlow::Continue(())).unwrap()
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
            assert!(
                !store.contains(&key(victim)).unwrap()
                    && store.pin(&key(victim)).unwrap().is_none()
            );
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
                    // It is there again if the device could not read it, and else when it is put
                    // again.
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

#[test]
fn each_object_of_a_batch_has_its_own_error() {
    let device = closed(512);
    let store = open(&device, &without_thread()).unwrap();
    let payload = |number| find(&image(&device), &key(number)).1.payload;
    device.inject(DeviceFault::flip_bit(None).within(payload(2)));
    device.inject(DeviceFault::fail(OpKind::Read, EIO).within(payload(4)));
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
fn a_fault_of_a_shared_header_fails_the_gets_that_need_it() {
    let device = closed(512);
    let store = open(&device, &without_thread()).unwrap();
    let keys = [*b"k", *b"l", *b"m"];
    let puts = keys.each_ref().map(|key| Put::new(key, &[7; 1024]).with_metadata(key));
    store.put_many(&puts).all().unwrap();
    let header = find(&image(&device), b"k").0.header;
    assert_eq!(header, find(&image(&device), b"m").0.header);
    for (what, fault) in faults(&header, find(&image(&device), &key(6)).1.payload.start) {
        let device = device.fork(3);
        let store = open(&device, &without_thread()).unwrap();
        device.inject(fault);
        let mut payloads = [[0; 1024]; 3];
        let [first, second, third] = &mut payloads;
        let mut metadata = [[0]; 2];
        let [described, also_described] = &mut metadata;
        let found = store.get_many(&mut [
            Get::new(b"k", first).with_metadata(described),
            Get::new(b"l", second),
            Get::new(b"m", third).with_metadata(also_described),
        ]);
        for (number, found) in found.iter().enumerate() {
            match found {
                Ok(Some(_)) => assert_eq!(number, 1, "{what}"),
                Err(Error::Device { .. }) => assert!(number != 1 && what == "an error", "{what}"),
                Err(Error::Damaged { offset, .. }) => {
                    assert!(number != 1 && what != "an error", "{what}");
                    let payload = find(&image(&device), &keys[number]).1.payload;
                    assert_eq!(*offset, payload.start, "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        assert_eq!(payloads[1], [7; 1024], "{what}");
    }
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
fn all_keys_are_listed_but_for_those_that_cannot_be_read() {
    let device = closed(512);
    let store = open(&device, &without_thread()).unwrap();
    let (slot, _) = find(&image(&device), &key(4));
    device.inject(DeviceFault::zeroed().within(slot.header));
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

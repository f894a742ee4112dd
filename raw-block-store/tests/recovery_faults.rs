//! A device that reads something else than was written to a store that is opened: damage costs the
//! objects that it hits, and no others.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/read_faults.rs"]
mod read_faults;

use common::slots::{FoundObject, FoundSlot, block_range, find, layout_of, slots};
use common::{payload, without_thread};
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;
use raw_block_store::{Error, Verification};
use read_faults::{
    DELETED, DESCRIBED, EIO, INLINE, PAYLOAD, closed, faults, image, key, newest_container,
    not_closed, open, open_whatever_is_left, others_are_intact, payload_is, value,
};

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
            assert!(others.into_iter().all(|other| !store.contains(other).unwrap()), "{what}");
        }
    }
}

#[test]
fn with_less_verification_a_recovery_verifies_once_all_the_same() {
    for verification in [Verification::Header, Verification::None] {
        let options = without_thread().verification(verification);
        let device = closed(512);
        let (_, object) = find(&image(&device), &key(5));
        let flip = || DeviceFault::flip_bit(Some(3)).within(object.payload.clone());
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
        device.inject(DeviceFault::flip_bit(Some(3)).within(object.payload));
        assert!(!payload_is(&store, 6), "it was verified once");
        assert!(payload_is(&store, INLINE));
    }
}

#[test]
fn headers_are_verified_as_the_options_say() {
    let device = closed(512);
    let (slot, _) = find(&image(&device), &key(5));
    device.inject(DeviceFault::flip_bit(Some(3)).within(slot.header));
    for verification in [Verification::Full, Verification::Header, Verification::None] {
        let store = open(&device, &without_thread().verification(verification)).unwrap();
        match store.get(&key(5)) {
            // A payload that passes its checks needs no header.
            Ok(Some(found)) => {
                assert_eq!(found.payload(), value(5));
                assert_ne!(verification, Verification::Header);
            }
            Err(Error::Damaged { .. }) => assert_eq!(verification, Verification::Header),
            other => panic!("{verification:?}: {other:?}"),
        }
        assert!(payload_is(&store, 6) && payload_is(&store, INLINE));
    }
}

#[test]
fn an_unreadable_block_of_a_filled_segment_is_named() {
    let device = not_closed();
    let image = image(&device);
    let (last, _) = find(&image, &key(7));
    let layout = layout_of(&image);
    let range = block_range(&layout, last.segment, last.block);
    device.inject(DeviceFault::fail(OpKind::Read, EIO).within(range.clone()));
    match open(&device, &without_thread()) {
        Err(Error::NewestLost { offset, .. }) => assert_eq!(offset, range.start),
        other => panic!("{other:?}"),
    }
}

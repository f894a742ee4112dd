//! Devices with places that cannot be read: an opening finds all the rest, and says what it left
//! out.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::faulty::Faulty;
use common::slots::{block_range, find, layout_of, slots};
use common::{payload, small, without_thread};
use raw_block_core::backend::OpKind;
use raw_block_store::{Error, Store};

fn open(device: &Faulty) -> Result<Store, Error> {
    Store::open_with(device.backend(), &without_thread())
}

/// Opens a store also when an older state of an object may be back.
fn open_whatever_is_left(device: &Faulty) -> Store {
    let options = without_thread().accept_older_states(true);
    Store::open_with(device.backend(), &options).unwrap()
}

/// A store that was not closed, with an object in each of eight slots. Nothing of it is in the
/// checkpoint.
fn not_closed() -> Faulty {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    let store = open(&device).unwrap();
    (0..8_u8).for_each(|key| store.put(&[key], &[key; 1500]).unwrap());
    store.flush().unwrap();
    device
}

/// Opening the store is refused because of the block at this offset, and changes nothing.
fn refused_at(device: &Faulty, offset: u64) {
    let before = device.bytes();
    match open(device) {
        Err(error @ Error::NewestLost { offset: at, .. }) => {
            assert_eq!(at, offset, "{error}");
            assert!(error.to_string().contains("on request"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(device.bytes() == before, "something was written");
}

#[test]
fn an_unreadable_slot_header_costs_its_object_on_request() {
    for victim in [0, 3, 7] {
        let device = not_closed();
        let (slot, _) = find(&device.bytes(), &[victim]);
        device.fail_at(OpKind::Read, slot.header.start);
        refused_at(&device, slot.header.start);
        let store = open_whatever_is_left(&device);
        for key in (0..8).filter(|&key| key != victim) {
            assert_eq!(payload(&store, &[key]).unwrap(), [key; 1500]);
        }
        assert!(!store.contains(&[victim]).unwrap());
    }
}

#[test]
fn an_unreadable_block_where_a_slot_may_be_refuses_the_opening() {
    let device = not_closed();
    let (last, _) = find(&device.bytes(), &[7]);
    let layout = layout_of(&device.bytes());
    let next = block_range(&layout, last.segment, last.block + last.blocks);
    device.fail_at(OpKind::Read, next.start);
    refused_at(&device, next.start);
    assert_eq!(open_whatever_is_left(&device).stats().objects, 8);
}

#[test]
fn an_unreadable_place_that_hides_nothing_newer_refuses_nothing() {
    let device = not_closed();
    let layout = layout_of(&device.bytes());
    let (slot, object) = find(&device.bytes(), &[3]);
    let table = block_range(&layout, slot.segment, layout.segment_blocks - 1);
    let unused = block_range(&layout, 5, 0);
    let header = block_range(&layout, slot.segment, 0);
    for range in [object.payload, table, unused, header] {
        let device = Faulty::holding(device.bytes());
        device.fail_at(OpKind::Read, range.start);
        let store = open(&device).unwrap();
        assert_eq!(store.stats().objects, 8);
        for key in 0..8 {
            match store.get(&[key]) {
                Ok(found) => assert_eq!(found.unwrap().payload(), [key; 1500]),
                Err(error) => assert_eq!(key, 3, "{error}"),
            }
        }
    }
}

#[test]
fn an_unreadable_tombstone_is_left_out_only_on_request() {
    let device = not_closed();
    let store = open(&device).unwrap();
    assert!(store.delete(&[0]).unwrap());
    store.flush().unwrap();
    drop(store);
    let slots = slots(&device.bytes());
    let tombstone = slots.iter().find(|slot| slot.is_tombstone()).unwrap();
    device.fail_at(OpKind::Read, tombstone.header.start);
    refused_at(&device, tombstone.header.start);
    let store = open_whatever_is_left(&device);
    assert_eq!(payload(&store, &[0]).unwrap(), [0; 1500], "the deletion is lost");
    assert_eq!(store.stats().objects, 8);
}

#[test]
fn a_bad_place_costs_a_closed_store_one_object_at_most() {
    let device = not_closed();
    open(&device).unwrap().close().unwrap();
    let layout = layout_of(&device.bytes());
    let intact = |store: &Store| {
        let is_intact = |key: &u8| {
            let found = store.get(&[*key]);
            found.is_ok_and(|found| found.is_some_and(|it| it.payload() == [*key; 1500]))
        };
        (0..8).filter(is_intact).count()
    };
    let (slot, object) = find(&device.bytes(), &[3]);
    let table = block_range(&layout, slot.segment, layout.segment_blocks - 1);
    let header = block_range(&layout, slot.segment, 0);
    for (range, expected) in
        [(object.payload, 7), (slot.header.clone(), 8), (header, 8), (table.clone(), 8)]
    {
        let device = Faulty::holding(device.bytes());
        device.fail_at(OpKind::Read, range.start);
        assert_eq!(intact(&open(&device).unwrap()), expected, "{range:?}");
    }
    device.fail_within(OpKind::Read, &[slot.header.clone(), table]);
    refused_at(&device, slot.header.start);
    assert_eq!(intact(&open_whatever_is_left(&device)), 7);
}

#[test]
fn what_could_not_be_read_does_not_win_over_newer_puts() {
    let device = not_closed();
    let headers = [6, 7].map(|key| find(&device.bytes(), &[key]).0.header);
    device.fail_within(OpKind::Read, &headers);
    let store = open_whatever_is_left(&device);
    assert_eq!(store.stats().objects, 6);
    // The slots stay as they are, with sequences that nothing has seen.
    store.put(&[7], b"newer").unwrap();
    assert!(!store.delete(&[6]).unwrap());
    drop(store);
    let device = Faulty::holding(device.bytes());
    let store = open(&device).unwrap();
    assert_eq!(payload(&store, &[7]).unwrap(), b"newer");
    assert_eq!(payload(&store, &[6]), None);
}

#[test]
fn an_older_version_of_an_unreadable_payload_shows_on_request() {
    let device = not_closed();
    let store = open(&device).unwrap();
    store.put(&[3], &[9; 1500]).unwrap();
    drop(store);
    let (_, newest) = find(&device.bytes(), &[3]);
    let unreadable = || {
        let device = Faulty::holding(device.bytes());
        device.fail_at(OpKind::Read, newest.payload.start);
        device
    };
    let store = open(&unreadable()).unwrap();
    assert!(matches!(store.get(&[3]), Err(Error::Device { .. })));
    let store = open_whatever_is_left(&unreadable());
    assert_eq!(payload(&store, &[3]).unwrap(), [3; 1500]);
}

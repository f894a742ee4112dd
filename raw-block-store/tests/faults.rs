//! Devices that fail, stores that this software must not touch, and calls that get in each other's way.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use common::faulty::{Fate, Faulty};
use common::{payload, put_all, store};
use raw_block_core::{Geometry, MemoryBackend, OpKind};
use raw_block_store::format::{Superblock, crc32c};
use raw_block_store::{Error, FormatOptions, OpenOptions, Put, Store};

fn options(slots: u64) -> FormatOptions {
    FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(8192) }
}

/// A store of 16 slots, and where its parts are.
fn faulty_store() -> (Faulty, Store, Superblock) {
    let device = Faulty::new(8 << 20);
    Store::format(device.backend(), &options(16)).unwrap();
    // Without a thread for checkpoints it is known when they are taken.
    let without_thread = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    let store = Store::open_with(device.backend(), &without_thread).unwrap();
    let superblock = *Superblock::read(&device.bytes()[..4096]).unwrap();
    (device, store, superblock)
}

fn fill(store: &Store, keys: std::ops::Range<u8>) {
    for key in keys {
        store.put(&[key], &[key; 5000]).unwrap();
    }
}

#[test]
fn formatting_spares_a_store_of_newer_software() {
    let (device, store, _) = faulty_store();
    store.close().unwrap();
    let mut bytes = device.bytes();
    let len = bytes.len();
    for at in [0, 4096, len - 4096] {
        bytes[at + 12] = 2;
        let checksum = crc32c([&bytes[at + 12..at + 512]]);
        bytes[at + 8..at + 12].copy_from_slice(&checksum.to_le_bytes());
    }
    let newer = Faulty::holding(bytes.clone());
    let refused = Store::format(newer.backend(), &options(16));
    assert!(
        matches!(&refused, Err(Error::AlreadyAStore { which, .. }) if which.contains("version 2"))
    );
    assert!(newer.bytes() == bytes, "nothing was written");
    let forced = FormatOptions { force: true, ..options(16) };
    Store::format(newer.backend(), &forced).unwrap();
    assert!(Store::open(newer.backend()).is_ok());
}

#[test]
fn formatting_spares_a_store_that_is_damaged() {
    let (device, store, _) = faulty_store();
    store.close().unwrap();
    let mut bytes = device.bytes();
    let len = bytes.len();
    for at in [0, 4096, len - 4096] {
        bytes[at + 100] ^= 1;
    }
    let damaged = Faulty::holding(bytes);
    let refused = Store::format(damaged.backend(), &options(16));
    assert!(
        matches!(&refused, Err(Error::AlreadyAStore { which, .. }) if which.contains("checksum"))
    );
}

#[test]
fn a_checkpoint_header_that_failed_but_landed_does_not_cost_the_store() {
    let (device, store, superblock) = faulty_store();
    fill(&store, 0..16);
    assert!(store.delete_many(&[&[0]]).remove(0).unwrap());
    store.flush().unwrap();
    // The next checkpoint goes to container 1; its header is written, and the completion is lost.
    let header = superblock.checkpoint_offset[1].get();
    let mut once = true;
    device.rule(move |op| {
        let lost = op.kind() == OpKind::Write && op.offset() == header && std::mem::take(&mut once);
        if lost { Fate::FailedButDone } else { Fate::Done }
    });
    assert!(store.put(&[20], &[20; 5000]).is_err());
    // Power cuts at every flush of the next attempt.
    let images = Arc::new(Mutex::new(Vec::new()));
    let (taken, copied) = (Arc::clone(&images), device.clone());
    device.rule(move |op| {
        if op.kind() == OpKind::Flush {
            taken.lock().unwrap().push(copied.bytes());
        }
        Fate::Done
    });
    store.put(&[20], &[20; 5000]).unwrap();
    let images = std::mem::take(&mut *images.lock().unwrap());
    assert!(images.len() >= 3, "{} flushes", images.len());
    for image in images {
        let store = Store::open(Faulty::holding(image).backend()).unwrap();
        for key in 1..16 {
            assert_eq!(payload(&store, &[key]).unwrap(), [key; 5000]);
        }
        assert_eq!(payload(&store, &[0]), None);
    }
}

/// Opens a store also when an older state of an object may be back.
fn open_whatever_is_left(device: &Faulty) -> Store {
    let options = OpenOptions { accept_older_states: true, ..OpenOptions::default() };
    Store::open_with(device.backend(), &options).unwrap()
}

#[test]
fn a_slot_header_that_cannot_be_read_costs_its_object_and_no_more_and_only_on_request() {
    // Slot 7 was written last, slot 12 never.
    for slot in [7, 12] {
        let (device, store, superblock) = faulty_store();
        fill(&store, 0..8);
        store.flush().unwrap();
        drop(store);
        let at = superblock.slot_offset(slot).unwrap();
        device.fail_at(OpKind::Read, at);
        let before = device.bytes();
        let refused = Store::open(device.backend());
        assert!(matches!(refused, Err(Error::NewestLost { offset, .. }) if offset == at));
        assert!(device.bytes() == before, "nothing was written");
        let store = open_whatever_is_left(&device);
        for key in (0..8).filter(|&key| u64::from(key) != slot) {
            assert_eq!(payload(&store, &[key]).unwrap(), [key; 5000]);
        }
        assert_eq!(store.contains(&[7]), slot != 7);
    }
}

#[test]
fn a_block_of_the_delete_log_that_cannot_be_read_is_left_out_only_on_request() {
    let (device, store, superblock) = faulty_store();
    fill(&store, 0..2);
    assert!(store.delete_many(&[&[0]]).remove(0).unwrap());
    store.flush().unwrap();
    drop(store);
    let at = superblock.delete_log_offset.get();
    device.fail_at(OpKind::Read, at);
    let refused = Store::open(device.backend());
    assert!(matches!(refused, Err(Error::NewestLost { offset, .. }) if offset == at));
    let store = open_whatever_is_left(&device);
    assert_eq!(payload(&store, &[0]).unwrap(), [0; 5000], "the deletion is lost");
    assert_eq!(payload(&store, &[1]).unwrap(), [1; 5000]);
}

#[test]
fn what_could_not_be_read_does_not_win_over_what_was_put_since() {
    let (device, store, superblock) = faulty_store();
    store.put(b"other", b"in slot 0").unwrap();
    store.put(b"key", b"in slot 1").unwrap();
    drop(store);
    let slots = [0, 1].map(|slot| superblock.slot_offset(slot).unwrap());
    device.rule(move |op| {
        let fails = op.kind() == OpKind::Read && slots.contains(&op.offset());
        if fails { Fate::Failed } else { Fate::Done }
    });
    let store = open_whatever_is_left(&device);
    assert_eq!(store.stats().live_slots, 0);
    // Goes to slot 0. Slot 1 stays as it is, with a sequence that nobody has seen.
    store.put(b"key", b"newer").unwrap();
    drop(store);
    device.rule(|_| Fate::Done);
    assert_eq!(payload(&Store::open(device.backend()).unwrap(), b"key").unwrap(), b"newer");
}

#[test]
fn the_older_copy_of_a_payload_that_cannot_be_read_shows_only_on_request() {
    let (device, store, superblock) = faulty_store();
    store.put(b"key", &[1; 5000]).unwrap();
    store.put(b"key", &[2; 5000]).unwrap();
    drop(store);
    let image = device.bytes();
    let unreadable = |image| {
        let device = Faulty::holding(image);
        device.fail_at(OpKind::Read, superblock.slot_offset(1).unwrap() + 8192);
        device
    };
    let store = Store::open(unreadable(image.clone()).backend()).unwrap();
    assert!(matches!(store.get(b"key"), Err(Error::Device { .. })));
    let store = open_whatever_is_left(&unreadable(image));
    assert_eq!(payload(&store, b"key").unwrap(), [1; 5000]);
}

#[test]
fn one_superblock_copy_that_cannot_be_written_is_borne_and_two_are_not() {
    let (device, store, superblock) = faulty_store();
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    device.fail_at(OpKind::Write, 4096);
    let store = Store::open(device.backend()).unwrap();
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    store.close().unwrap();
    let last = superblock.last_superblock_offset.get();
    device.rule(move |op| {
        let fails = op.kind() == OpKind::Write && [0, last].contains(&op.offset());
        if fails { Fate::Failed } else { Fate::Done }
    });
    assert!(matches!(Store::open(device.backend()), Err(Error::Device { .. })));
}

#[test]
fn a_failed_put_leaves_the_older_object_and_its_neighbours_in_the_batch() {
    let (device, store, superblock) = faulty_store();
    store.put(b"b", b"older").unwrap();
    // The batch takes slots 1 to 3.
    device.fail_at(OpKind::Write, superblock.slot_offset(2).unwrap());
    let results = store.put_many(&[
        Put::new(b"a", &[1; 5000]),
        Put::new(b"b", &[2; 5000]),
        Put::new(b"c", &[3; 5000]),
    ]);
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(
        matches!(&results[1], Err(error @ Error::Device { .. }) if error.to_string().contains("put an object"))
    );
    assert_eq!(payload(&store, b"a").unwrap(), [1; 5000]);
    assert_eq!(payload(&store, b"b").unwrap(), b"older");
    let stats = store.stats();
    assert_eq!((stats.live_slots, stats.waiting_slots, stats.free_slots), (3, 1, 12));
}

#[test]
fn a_failed_delete_leaves_the_object_there() {
    let (device, store, superblock) = faulty_store();
    store.put(b"key", b"value").unwrap();
    device.fail_at(OpKind::Write, superblock.delete_log_offset.get());
    assert!(matches!(store.delete_many(&[b"key"]).remove(0), Err(Error::Device { .. })));
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    assert!(store.delete_many(&[b"key"]).remove(0).unwrap(), "the next block of the log is used");
}

#[test]
fn after_a_failed_flush_nothing_is_changed_and_gets_go_on() {
    let (device, store, _) = faulty_store();
    store.put(b"key", b"value").unwrap();
    device.rule(|op| if op.kind() == OpKind::Flush { Fate::Failed } else { Fate::Done });
    assert!(store.flush().is_err());
    device.rule(|_| Fate::Done);
    assert!(store.put(b"other", b"value").is_err());
    assert!(store.delete_many(&[b"key"]).remove(0).is_err());
    assert!(store.flush().is_err());
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    assert!(store.close().is_err());
    assert_eq!(payload(&Store::open(device.backend()).unwrap(), b"key").unwrap(), b"value");
}

#[test]
fn a_device_has_one_store_at_a_time() {
    let (device, store) = store(8192, 4);
    assert!(matches!(Store::open(device.clone()), Err(Error::Busy { .. })));
    let forced = FormatOptions { force: true, ..options(4) };
    assert!(matches!(Store::format(device.clone(), &forced), Err(Error::Busy { .. })));
    store.close().unwrap();
    assert!(Store::open(device).is_ok());
}

#[test]
fn impossible_labels_and_blocks_are_said_to_be_unsuitable() {
    let label = FormatOptions { label: "x".repeat(65), ..options(4) };
    let refused = Store::format(Faulty::new(8 << 20).backend(), &label);
    assert!(matches!(refused, Err(Error::Unsuitable { reason, .. }) if reason.contains("label")));
    let mut geometry = Geometry::new(8 << 20, 512).unwrap();
    geometry.transfer_alignment = 8192;
    let device = Arc::new(MemoryBackend::with_geometry(geometry));
    assert!(matches!(Store::format(device.clone(), &options(4)), Err(Error::Unsuitable { .. })));
    assert!(matches!(Store::open(device), Err(Error::Unsuitable { .. })));
}

#[test]
fn an_object_always_comes_with_its_own_metadata() {
    let (_, store) = store(8192, 512);
    store.put(b"key", &[0; 64]).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                store.put(b"key", &[0; 64]).unwrap();
                put_all(&store, &[Put::new(b"key", &[1; 64]).with_metadata(b"one")]);
            }
        });
        let wrong = (0..50_000).filter(|_| {
            let object = store.get(b"key").unwrap().unwrap();
            (object.payload()[0] == 1) != (object.metadata() == b"one")
        });
        let wrong = wrong.count();
        over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, 0);
    });
}

#[test]
fn a_store_with_slots_to_spare_is_never_called_full() {
    let (_, store) = store(8192, 6);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| store.put(b"key", &[0; 5000]).unwrap()));
        }
    });
    assert_eq!(store.stats().live_slots, 1);
}

#[test]
fn gets_go_on_while_a_checkpoint_is_written() {
    let (device, store, _) = faulty_store();
    fill(&store, 0..16);
    assert!(store.delete_many(&[&[0]]).remove(0).unwrap());
    std::thread::scope(|scope| {
        // The first flush of a checkpoint ends only when a get was answered: with a get inside it.
        let (flushing, is_flushing) = mpsc::channel();
        let (answered, is_answered) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(Some((flushing, is_answered))));
        device.hold_flush(move || {
            if let Some((flushing, is_answered)) = held.lock().unwrap().take() {
                flushing.send(()).unwrap();
                is_answered.recv().unwrap();
            }
        });
        scope.spawn(|| store.put(&[20], &[20; 5000]).unwrap());
        is_flushing.recv().unwrap();
        assert_eq!(payload(&store, &[3]).unwrap(), [3; 5000]);
        answered.send(()).unwrap();
    });
    assert_eq!(payload(&store, &[20]).unwrap(), [20; 5000]);
}

#[test]
fn an_outdated_clean_mark_is_not_believed_when_the_newer_copies_are_lost() {
    let (device, store, superblock) = faulty_store();
    store.put(b"key", &[1; 5000]).unwrap();
    store.close().unwrap();
    // Copy 0 stays as it is: clean, with the older state.
    device.fail_at(OpKind::Write, 0);
    let store = Store::open(device.backend()).unwrap();
    store.put(b"key", &[2; 5000]).unwrap();
    store.flush().unwrap();
    drop(store);
    device.rule(|_| Fate::Done);
    let newer = [4096, superblock.last_superblock_offset.get()];
    device.rule(move |op| {
        let fails = op.kind() == OpKind::Read && newer.contains(&op.offset());
        if fails { Fate::Failed } else { Fate::Done }
    });
    assert_eq!(payload(&Store::open(device.backend()).unwrap(), b"key").unwrap(), [2; 5000]);
}

#[test]
fn a_clean_mark_of_an_interrupted_close_is_outdone_by_the_next_open() {
    let (device, store, superblock) = faulty_store();
    store.put(b"key", &[1; 5000]).unwrap();
    // Power is cut in the close, after one copy was marked clean.
    let image = Arc::new(Mutex::new(None));
    let (taken, copied, mut marked) = (Arc::clone(&image), device.clone(), false);
    let first = superblock.last_superblock_offset.get();
    device.rule(move |op| {
        let marks = op.kind() == OpKind::Write && [0, 4096, first].contains(&op.offset());
        if marked && op.kind() == OpKind::Flush {
            taken.lock().unwrap().get_or_insert_with(|| copied.bytes());
        }
        marked |= marks;
        Fate::Done
    });
    store.close().unwrap();
    let image = image.lock().unwrap().take().unwrap();
    let clean = [0, 4096, first].into_iter().find(|&at| {
        let at = usize::try_from(at).unwrap();
        Superblock::read(&image[at..at + 4096]).unwrap().clean_checkpoint != 0
    });
    let clean = clean.unwrap();
    // That copy can be neither read nor written for a while.
    let device = Faulty::holding(image);
    device.rule(move |op| {
        let hidden = !op.is_empty() && op.offset() == clean;
        if hidden { Fate::Failed } else { Fate::Done }
    });
    let store = Store::open(device.backend()).unwrap();
    store.put(b"key", &[2; 5000]).unwrap();
    store.flush().unwrap();
    drop(store);
    device.rule(|_| Fate::Done);
    assert_eq!(payload(&Store::open(device.backend()).unwrap(), b"key").unwrap(), [2; 5000]);
}

//! Images of a store whose structures lie, with valid checksums and keyed hashes: an error or a
//! result, no panic, no bytes that were not put, and nothing else is lost.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/forge.rs"]
mod forge;

use std::ops::{ControlFlow, Range};
use std::sync::LazyLock;

use common::faulty::Faulty;
use common::slots::{FoundSlot, find, slots};
use common::{BLOCK, bytes, check_segments, get_one, payload, small, without_thread};
use forge::{Forged, SHORT, number, set};
use raw_block_store::{Error, Store};

/// Enough for the eight segments that a store has at least.
const LEN: usize = 300 << 10;
const KEYS: u8 = 24;

/// A store of which three segments are full, and each object has a slot.
static CLOSED: LazyLock<Forged> = LazyLock::new(|| make(true));
static DROPPED: LazyLock<Forged> = LazyLock::new(|| make(false));

fn value(key: u8) -> Vec<u8> {
    bytes(key.into(), if key.is_multiple_of(4) { 100 } else { 3000 })
}

fn make(is_closed: bool) -> Forged {
    let device = Faulty::new(LEN);
    Store::format(device.backend(), &small()).unwrap();
    let store = Store::open_with(device.backend(), &without_thread()).unwrap();
    (0..KEYS / 2).for_each(|key| store.put(&[key], &value(key)).unwrap());
    store.put(b"deleted", &[7; 3000]).unwrap();
    store.checkpoint().unwrap();
    (KEYS / 2..KEYS).for_each(|key| store.put(&[key], &value(key)).unwrap());
    assert!(store.delete(b"deleted").unwrap());
    if is_closed {
        store.close().unwrap();
    } else {
        store.flush().unwrap();
    }
    Forged::new(&device.bytes())
}

/// What must be true of an object after a structure lied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is as it was put.
    Kept,
    /// It is as it was put, or missed, or damaged.
    MayBeLost,
}

/// Checks what a store shows. Returns how many objects are as they were put.
fn look(store: &Store, what: &str, fate: &impl Fn(u8) -> Fate) -> usize {
    check_segments(store);
    let mut intact = 0;
    for key in 0..KEYS {
        match store.get(&[key]) {
            Ok(Some(found)) => {
                assert!(found.payload() == value(key), "{what}: {key} has bytes that were not put");
                intact += 1;
            }
            Ok(None) | Err(Error::Damaged { .. }) => {
                assert_eq!(fate(key), Fate::MayBeLost, "{what}: {key} is lost");
            }
            Err(error) => panic!("{what}: {key}: {error}"),
        }
    }
    let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
    assert!(report.complete);
    intact
}

/// Opens a store on a forged image and uses it. Returns how many objects were intact, or why it was
/// not opened.
fn hold(forged: &Forged, what: &str, fate: impl Fn(u8) -> Fate) -> Result<usize, Error> {
    let device = Faulty::holding(forged.image.clone());
    let store = Store::open_with(device.backend(), &without_thread()).inspect_err(|error| {
        let is_clear = matches!(
            error,
            Error::CheckpointLost { .. } | Error::Damaged { .. } | Error::UnusableStore { .. }
        );
        assert!(is_clear && !error.to_string().is_empty(), "{what}: {error}");
        assert!(device.bytes() == forged.image, "{what}: {error}, and something was written");
    })?;
    let intact = look(&store, what, &fate);
    for key in 100..104 {
        match store.put(&[key], &bytes(99, 900)) {
            Ok(()) => assert!(store.get(&[key]).unwrap().unwrap().payload() == bytes(99, 900)),
            Err(Error::OutOfSpace { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
    store.close().unwrap_or_else(|error| panic!("{what}: {error}"));
    let store = Store::open_with(device.backend(), &without_thread()).unwrap();
    assert!(look(&store, what, &fate) >= intact, "{what}");
    Ok(intact)
}

/// Numbers that a field may lie with.
fn lies(truth: u64, width: usize) -> Vec<u64> {
    let max = u64::MAX >> (64 - 8 * width);
    let mut lies = vec![0, 1, 64, 1 << 62, max];
    lies.extend([truth.wrapping_add(1), truth.wrapping_sub(1)]);
    lies.retain(|lie| *lie <= max && *lie != truth);
    lies.sort_unstable();
    lies.dedup();
    lies
}

/// A field of a structure: its place and its length.
type Field = (usize, usize);

/// Tries all lies of these fields. `forge` changes a structure of the image, and `fate` says what
/// may become of an object.
fn each_lie(
    original: &Forged,
    fields: &[Field],
    forge: impl Fn(&mut Forged, &dyn Fn(&mut [u8])),
    fate: impl Fn(u8) -> Fate,
) {
    for &(at, width) in fields {
        let truth = std::cell::Cell::new(0);
        let read = |structure: &mut [u8]| truth.set(number(structure, at, width));
        forge(&mut original.clone(), &read);
        for lie in lies(truth.get(), width) {
            let mut forged = original.clone();
            forge(&mut forged, &|structure| set(structure, at, width, lie));
            let _ = hold(&forged, &format!("{lie} at {at} in place of {}", truth.get()), &fate);
        }
    }
}

fn may_lose(keys: &[u8]) -> impl Fn(u8) -> Fate {
    move |key| if keys.contains(&key) { Fate::MayBeLost } else { Fate::Kept }
}

fn keys_of(slot: &FoundSlot) -> Vec<u8> {
    slot.objects.iter().map(|object| object.key[0]).collect()
}

/// The keys of the objects of a segment.
fn keys_in(forged: &Forged, segment: u32) -> Vec<u8> {
    let slots = slots(&forged.image);
    slots.iter().filter(|slot| slot.segment == segment).flat_map(keys_of).collect()
}

/// The fields of a slot header after its hash, and of the first entry but its key hash.
const SLOT_FIELDS: [Field; 15] = [
    (40, 8),
    (48, 4),
    (52, 4),
    (56, 4),
    (60, 2),
    (62, 2),
    (64, 4),
    (68, 4),
    (72, 8),
    (80 + 16, 8),
    (80 + 32, 4),
    (80 + 36, 2),
    (80 + 38, 2),
    (80 + 40, 4),
    (80 + 44, 4),
];

#[test]
fn a_slot_header_that_lies_costs_its_own_objects() {
    for key in [KEYS - 4, KEYS - 5] {
        let (slot, _) = find(&DROPPED.image, &[key]);
        // Valid lengths may claim the slots that follow in the segment.
        let mut lost = keys_of(&slot);
        lost.extend(keys_in(&DROPPED, slot.segment).into_iter().filter(|other| *other > key));
        each_lie(
            &DROPPED,
            &SLOT_FIELDS,
            |forged, change| forged.slot(slot.segment, slot.block, change),
            may_lose(&lost),
        );
    }
}

#[test]
fn a_slot_that_leaves_its_segment_counts_for_nothing() {
    let (slot, _) = find(&DROPPED.image, &[KEYS - 1]);
    for blocks in [64 - slot.block, 64, 1000, u32::MAX - slot.block, u32::MAX] {
        let mut forged = DROPPED.clone();
        forged.slot(slot.segment, slot.block, |header| {
            set(header, 64, 4, blocks.into());
            let len = (u64::from(blocks) - 1) * BLOCK as u64;
            set(header, 80 + 32, 4, len.min(u32::MAX.into()));
        });
        let intact = hold(&forged, "a slot leaves its segment", may_lose(&[KEYS - 1])).unwrap();
        assert_eq!(intact, usize::from(KEYS) - 1);
    }
}

#[test]
fn a_slot_header_cannot_make_an_object_empty() {
    let key = [KEYS - 1];
    let (slot, _) = find(&DROPPED.image, &key);
    let mut forged = DROPPED.clone();
    forged.slot(slot.segment, slot.block, |header| {
        // The slot ends with its header, and so does the object.
        set(header, 64, 4, 1);
        set(header, 80 + 32, 4, 0);
        set(header, 80 + 40, 4, slot.block.into());
        set(header, 80 + 44, 4, 0);
    });
    for with_header in [false, true] {
        let device = Faulty::holding(forged.image.clone());
        let store = Store::open_with(device.backend(), &without_thread()).unwrap();
        assert!(store.contains(&key).unwrap(), "the header counts");
        let is_found = if with_header {
            store.get(&key).map(|found| found.is_some())
        } else {
            get_one(&store, &key, &mut []).map(|found| found.is_some())
        };
        assert!(!matches!(is_found, Ok(true)), "a payload that was never put is found");
    }
}

#[test]
fn entry_numbers_out_of_range_count_for_nothing() {
    let (slot, _) = find(&DROPPED.image, &[KEYS - 1]);
    for first_entry in [64, 65, u32::MAX] {
        let mut forged = DROPPED.clone();
        forged.slot(slot.segment, slot.block, |header| set(header, 56, 4, first_entry.into()));
        let intact = hold(&forged, "entry numbers", may_lose(&[KEYS - 1])).unwrap();
        assert_eq!(intact, usize::from(KEYS) - 1);
    }
}

/// Makes the slot of an object claim that of the next one too. Returns the keys of both.
fn claim_next(forged: &mut Forged, key: u8) -> [u8; 2] {
    let (slot, _) = find(&forged.image, &[key]);
    let next = slots(&forged.image)
        .into_iter()
        .find(|other| (other.segment, other.block) == (slot.segment, slot.block + slot.blocks));
    let next = next.unwrap();
    forged.slot(slot.segment, slot.block, |header| {
        let blocks = slot.blocks + next.blocks;
        set(header, 64, 4, blocks.into());
        set(header, 80 + 32, 4, u64::from(blocks - 1) * BLOCK as u64);
    });
    [key, keys_of(&next)[0]]
}

#[test]
fn two_headers_that_claim_one_block_cost_no_third_object() {
    let mut forged = DROPPED.clone();
    let both = claim_next(&mut forged, KEYS - 3);
    let intact = hold(&forged, "two slots claim a block", may_lose(&both)).unwrap();
    assert_eq!(intact, usize::from(KEYS) - 2);
    // What a table names is found all the same.
    let mut forged = CLOSED.clone();
    let both = claim_next(&mut forged, KEYS - 3);
    let intact = hold(&forged, "two slots claim a block", may_lose(&both)).unwrap();
    assert_eq!(intact, usize::from(KEYS));
}

#[test]
fn two_segments_that_claim_one_number_are_distinguished() {
    let mut forged = DROPPED.clone();
    let (slot, _) = find(&forged.image, &[KEYS - 1]);
    let other = forged.layout.segment_offset((slot.segment + 1) % 8);
    forged.structure(other, SHORT, |header| set(header, 40, 4, slot.segment.into()));
    let lost = keys_in(&DROPPED, (slot.segment + 1) % 8);
    let _ = hold(&forged, "two segments have a number", may_lose(&lost));
}

#[test]
fn a_segment_header_that_lies_costs_its_own_segment() {
    const FIELDS: [Field; 5] = [(32, 8), (40, 4), (44, 4), (48, 8), (56, 8)];
    for original in [&*CLOSED, &*DROPPED] {
        let (slot, _) = find(&original.image, &[KEYS - 1]);
        let offset = original.layout.segment_offset(slot.segment);
        each_lie(
            original,
            &FIELDS,
            |forged, change| forged.structure(offset, SHORT, change),
            may_lose(&keys_in(original, slot.segment)),
        );
    }
}

#[test]
fn a_table_that_lies_costs_its_own_segment() {
    // The table block, and its first and second entry but their key hashes.
    let fields = |entry: usize| {
        let at = 64 + 48 * entry;
        [(16, 8), (24, 8), (32, 4), (36, 2), (38, 2), (40, 4), (44, 4)].map(|(of, w)| (at + of, w))
    };
    let mut all = vec![(32, 8), (40, 8), (48, 4), (52, 4), (56, 4)];
    all.extend(fields(0));
    all.extend(fields(1));
    let (slot, _) = find(&CLOSED.image, &[0]);
    let last = CLOSED.layout.block_offset(slot.segment, CLOSED.layout.segment_blocks - 1);
    each_lie(
        &CLOSED,
        &all,
        |forged, change| forged.structure(last, BLOCK, change),
        may_lose(&keys_in(&CLOSED, slot.segment)),
    );
}

#[test]
fn a_table_whose_entries_claim_one_block_is_replaced_by_a_scan() {
    let (slot, _) = find(&CLOSED.image, &[1]);
    let last = CLOSED.layout.block_offset(slot.segment, CLOSED.layout.segment_blocks - 1);
    let mut forged = CLOSED.clone();
    const SECOND: Range<usize> = 64 + 48..64 + 96;
    forged.structure(last, BLOCK, |table| table.copy_within(64..64 + 48, SECOND.start));
    let intact = hold(&forged, "two entries claim a block", may_lose(&[])).unwrap();
    assert_eq!(intact, usize::from(KEYS));
}

#[test]
fn a_checkpoint_that_lies_is_refused_or_shows_what_was_put() {
    const HEADER: [Field; 6] = [(32, 8), (40, 8), (48, 8), (56, 8), (64, 4), (68, 4)];
    // The body block, and the records of the first two segments, of which each has a word of live
    // bits.
    let mut body = vec![(32, 8), (40, 8)];
    for record in [48, 48 + 40] {
        let fields = [(0, 8), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 8), (32, 8)];
        body.extend(fields.map(|(at, width)| (record + at, width)));
    }
    for (original, body) in [(&*CLOSED, &body[..10]), (&*DROPPED, &body[10..])] {
        let container = original.newest_container();
        let any = |_| Fate::MayBeLost;
        let header = |forged: &mut Forged, change: &dyn Fn(&mut [u8])| {
            forged.structure(container, SHORT, change);
        };
        each_lie(original, &HEADER, header, any);
        let block = container + BLOCK as u64;
        let body_block = |forged: &mut Forged, change: &dyn Fn(&mut [u8])| {
            forged.structure(block, BLOCK, change);
        };
        each_lie(original, body, body_block, any);
    }
}

/// A record that counts too many entries leaves no space for their table after the last slot.
#[test]
fn a_segment_with_too_many_counted_entries_is_sealed() {
    const ENTRIES: Field = (48 + 16, 4);
    const NEXT_BLOCK: Field = (48 + 20, 4);
    let value = bytes(1, 29_000);
    for is_closed in [true, false] {
        let device = Faulty::new(LEN);
        Store::format(device.backend(), &small()).unwrap();
        let store = Store::open_with(device.backend(), &without_thread()).unwrap();
        store.put(b"key", &value).unwrap();
        let ended = if is_closed { store.close() } else { store.checkpoint() };
        ended.unwrap();
        let mut forged = Forged::new(&device.bytes());
        let (slot, _) = find(&forged.image, b"key");
        let (entries, table) = (64, forged.layout.table_block(64));
        assert!(slot.segment == 0 && slot.block + slot.blocks > table);
        let body = forged.newest_container() + BLOCK as u64;
        forged.structure(body, BLOCK, |block| {
            set(block, ENTRIES.0, ENTRIES.1, entries);
            set(block, NEXT_BLOCK.0, NEXT_BLOCK.1, table.into());
        });
        let device = Faulty::holding(forged.image);
        for key in [&b"other"[..], b"another"] {
            let store = Store::open_with(device.backend(), &without_thread()).unwrap();
            assert!(payload(&store, b"key").unwrap() == value);
            store.put(key, b"value").unwrap();
            store.close().unwrap();
        }
        let store = Store::open_with(device.backend(), &without_thread()).unwrap();
        assert_eq!(payload(&store, b"other").unwrap(), b"value");
        assert!(payload(&store, b"key").unwrap() == value);
    }
}

#[test]
fn a_superblock_that_lies_is_refused_or_shows_what_was_put() {
    let mut fields: Vec<Field> =
        vec![(32, 8), (40, 8), (48, 8), (56, 8), (64, 4), (68, 4), (72, 8)];
    fields.extend((120..168).step_by(8).map(|at| (at, 8)));
    fields.extend([(168, 4), (172, 4), (176, 8), (248, 8), (256 + 16, 2), (256 + 18, 2)]);
    fields.extend([(256 + 20, 4), (1024, 1), (2048, 8)]);
    each_lie(&CLOSED, &fields, |forged, change| forged.superblocks(change), |_| Fate::MayBeLost);
}

//! `rawblock check` finds what is damaged, and names the place.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::fs;
use std::path::Path;

use common::{bytes, newest, put_all};
use raw_block_core::Direct;
use raw_block_fixtures::{TempFile, zeroed_file};
use raw_block_store::format::{CheckpointHeader, Layout, Superblock};
use raw_block_store::{Engine, FormatOptions, OpenOptions, Put, Store, open_backend};
use serde_json::Value;
use tool::{done, run};

const BLOCK: usize = 4096;
const SEGMENT: usize = 16 * BLOCK;
const PAYLOAD: usize = 9000;

/// A file of 1 MiB with an empty store, in segments of 16 blocks.
fn formatted() -> Option<TempFile> {
    let file = zeroed_file(1 << 20);
    let file = file.inspect_err(raw_block_core::conformance::Skipped::report).ok()?;
    let device = open_backend(file.path(), Engine::Posix, Direct::Preferred).unwrap();
    let segment_size = Some(SEGMENT as u64);
    Store::format(device, &FormatOptions::default().segment_size(segment_size)).unwrap();
    Some(file)
}

fn open(path: &Path) -> Store {
    let device = open_backend(path, Engine::Posix, Direct::Preferred).unwrap();
    let options = OpenOptions::default().background(false);
    Store::open_with(device, &options).unwrap()
}

/// The keys that [`fill`] puts.
fn keys() -> impl Iterator<Item = [u8; 2]> {
    (0..12).map(|number| [b'k', number])
}

/// Puts objects whose values differ with the seed, each with its own slot.
fn fill(store: &Store, seed: u64) {
    for key in keys() {
        store.put(&key, &bytes(seed << 8 | u64::from(key[1]), PAYLOAD)).unwrap();
    }
}

fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// The containers, that of the newest checkpoint first.
fn containers(image: &[u8], layout: &Layout) -> Vec<usize> {
    let number = |at: &usize| {
        let header = CheckpointHeader::read(&image[*at..at + BLOCK], layout);
        header.map_or(0, |header| header.number.get())
    };
    let mut containers: Vec<_> = layout.container_offset.map(offset).into();
    containers.sort_by_key(|at| std::cmp::Reverse(number(at)));
    containers
}

/// What a device may hold in place of a block that was written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Corruption {
    FlippedBit,
    Zeroes,
    OldVersion,
    OtherBlock,
}

/// Where the structures of a store lie.
struct Places {
    checkpoint: usize,
    older_checkpoint: usize,
    last_superblock: usize,
    segment: usize,
    /// The last block of the segment.
    table: usize,
    slot: usize,
    payload: usize,
}

impl Places {
    fn of(path: &Path, image: &[u8]) -> Self {
        let layout = Layout::of(Superblock::read(&image[..BLOCK]).unwrap());
        let containers = containers(image, &layout);
        let device = open_backend(path, Engine::Posix, Direct::Preferred).unwrap();
        let object = newest(&device, &[b'k', 5]);
        let segment = offset(layout.segment_offset(object.segment));
        Self {
            checkpoint: containers[0],
            older_checkpoint: containers[1],
            last_superblock: offset(layout.last_superblock_offset),
            segment,
            table: segment + SEGMENT - BLOCK,
            slot: offset(object.slot),
            payload: offset(object.payload),
        }
    }
}

#[test]
fn every_damage_is_found_and_its_place_is_named() {
    let Some(file) = formatted() else { return };
    let path = file.path();
    let store = open(path);
    fill(&store, 1);
    store.close().unwrap();
    drop(store);
    let old = fs::read(path).unwrap();
    let store = open(path);
    // All segments are used, so those of the first objects are used again.
    for seed in 2..10 {
        fill(&store, seed);
    }
    store.delete(&[b'k', 0]).unwrap();
    store.close().unwrap();
    drop(store);
    let image = fs::read(path).unwrap();
    assert!(done("check", path, [""; 0]).text().starts_with("healthy "));

    let places = Places::of(path, &image);
    use Corruption::{FlippedBit, OldVersion, OtherBlock, Zeroes};
    let all = &[FlippedBit, Zeroes, OldVersion, OtherBlock][..];
    let (superblock, checkpoint) = ("a copy of the superblock", "the header of a checkpoint");
    let body = "a block of a checkpoint";
    // What is damaged; the block that is; how.
    let cases = [
        // An older copy of the superblock is a valid one.
        (superblock, 0, &[FlippedBit, Zeroes, OtherBlock][..]),
        (superblock, BLOCK, &[FlippedBit, Zeroes, OtherBlock]),
        (superblock, places.last_superblock, &[FlippedBit, Zeroes, OtherBlock]),
        (checkpoint, places.checkpoint, &[FlippedBit]),
        (body, places.checkpoint + BLOCK, all),
        // A container without a checkpoint is in order.
        (checkpoint, places.older_checkpoint, &[FlippedBit]),
        (body, places.older_checkpoint + BLOCK, all),
        ("the header of a segment", places.segment, all),
        ("a block of a table", places.table, all),
        ("a slot header", places.slot, all),
        ("the payload of an object", places.payload, all),
        ("the payload of an object", places.payload + BLOCK, all),
    ];
    let other = places.payload + 2 * BLOCK;
    for (structure, at, corruptions) in cases {
        let named = if structure.contains("payload") { places.payload } else { at };
        for &corruption in corruptions {
            let mut damaged = image.clone();
            match corruption {
                FlippedBit => damaged[at + 100] ^= 0x10,
                Zeroes => damaged[at..at + BLOCK].fill(0),
                OldVersion => damaged[at..at + BLOCK].copy_from_slice(&old[at..at + BLOCK]),
                OtherBlock => damaged.copy_within(other..other + BLOCK, at),
            }
            assert!(damaged != image, "{structure} {corruption:?} changes something");
            check_finds(path, &damaged, structure, named, &format!("{corruption:?}"));
        }
    }
}

/// Checks that this structure is found to be damaged.
fn check_finds(path: &Path, damaged: &[u8], structure: &str, named: usize, how: &str) {
    fs::write(path, damaged).unwrap();
    let ran = run("check", path, [""; 0]);
    let text = ran.text();
    assert_eq!(ran.status, 1, "{structure} {how}: {text}{}", ran.stderr);
    let start = format!("{structure} at offset {named} ");
    assert!(text.lines().any(|line| line.starts_with(&start)), "{start} {how}: {text}");
    assert!(text.lines().last().unwrap().starts_with("damaged "), "{text}");
    assert!(fs::read(path).unwrap() == damaged, "it repairs nothing");
}

#[test]
fn damages_are_printed_as_json_with_their_places() {
    let Some(file) = formatted() else { return };
    let path = file.path();
    let store = open(path);
    fill(&store, 1);
    store.close().unwrap();
    drop(store);
    let mut image = fs::read(path).unwrap();
    let places = Places::of(path, &image);
    for at in [places.payload, places.table] {
        image[at + 100] ^= 1;
    }
    fs::write(path, image).unwrap();
    let ran = run("check", path, ["--json"]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let [payload, table, last] = &ran.json()[..] else { panic!("{}", ran.text()) };
    assert_eq!((&payload["offset"], &payload["key_hex"]), (&places.payload.into(), &"6b05".into()));
    assert_eq!((&table["offset"], &table["key"]), (&places.table.into(), &Value::Null));
    assert_eq!((&last["healthy"], &last["damages"]), (&false.into(), &2.into()));
    assert_eq!(last["objects"], 12);
}

#[test]
fn a_slot_that_is_lost_with_its_table_is_named() {
    let Some(file) = formatted() else { return };
    let path = file.path();
    let store = open(path);
    fill(&store, 1);
    store.close().unwrap();
    drop(store);
    let mut image = fs::read(path).unwrap();
    let places = Places::of(path, &image);
    for at in [places.slot, places.table] {
        image[at + 100] ^= 1;
    }
    fs::write(path, image).unwrap();
    let text = run("check", path, [""; 0]).text();
    let slot = format!("a slot header at offset {} is damaged: checksum mismatch", places.slot);
    assert!(text.contains(&slot), "{text}");
    assert!(text.contains("2 places; 11 objects"), "{text}");
}

#[test]
fn a_store_that_cannot_be_opened_is_checked_all_the_same() {
    let Some(file) = formatted() else { return };
    let path = file.path();
    let store = open(path);
    fill(&store, 1);
    store.close().unwrap();
    drop(store);
    let store = open(path);
    store.checkpoint().unwrap();
    store.close().unwrap();
    drop(store);
    let mut image = fs::read(path).unwrap();
    let layout = Layout::of(Superblock::read(&image[..BLOCK]).unwrap());
    for container in layout.container_offset {
        image[offset(container) + BLOCK + 100] ^= 1;
    }
    image[BLOCK + 100] ^= 1;
    fs::write(path, image).unwrap();
    let ran = run("check", path, [""; 0]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    let text = ran.text();
    for container in layout.container_offset {
        let body = container + BLOCK as u64;
        let line = format!("a block of a checkpoint at offset {body} is damaged");
        assert_eq!(text.lines().filter(|of| of.starts_with(&line)).count(), 1, "{line}: {text}");
    }
    assert!(text.contains("a copy of the superblock at offset 4096 is damaged"), "{text}");
    assert!(text.contains("4 places; 0 objects"), "{text}");
}

#[test]
fn a_store_that_was_not_closed_is_healthy() {
    let Some(file) = formatted() else { return };
    let path = file.path();
    let store = open(path);
    fill(&store, 1);
    for _ in 0..2 {
        store.checkpoint().unwrap();
    }
    fill(&store, 2);
    store.delete(&[b'k', 0]).unwrap();
    drop(store);
    let image = fs::read(path).unwrap();
    let checked = done("check", path, [""; 0]).text();
    assert!(checked.starts_with("healthy ") && checked.contains(" 11 objects"), "{checked}");
    // The power failed while the next checkpoint was being written over the oldest.
    let layout = Layout::of(Superblock::read(&image[..BLOCK]).unwrap());
    let oldest = *containers(&image, &layout).last().unwrap();
    let mut torn = image.clone();
    torn[oldest + BLOCK..oldest + 2 * BLOCK].fill(0);
    fs::write(path, torn).unwrap();
    assert!(done("check", path, [""; 0]).text().starts_with("healthy "));
    // A block of the newest checkpoint is another matter.
    let mut damaged = image.clone();
    let places = Places::of(path, &image);
    damaged[places.checkpoint + BLOCK + 100] ^= 1;
    fs::write(path, damaged).unwrap();
    assert_eq!(run("check", path, [""; 0]).status, 1);
}

#[test]
fn a_damaged_payload_is_named_by_its_key() {
    let Some(file) = formatted() else { return };
    let path = file.path();
    let store = open(path);
    put_all(
        &store,
        &[Put::new(b"well", &bytes(1, PAYLOAD)), Put::new(b"ill\xff", &bytes(2, PAYLOAD))],
    );
    store.close().unwrap();
    drop(store);
    let mut image = fs::read(path).unwrap();
    let device = open_backend(path, Engine::Posix, Direct::Preferred).unwrap();
    image[offset(newest(&device, b"ill\xff").payload)] ^= 1;
    drop(device);
    fs::write(path, &image).unwrap();

    let text = run("check", path, [""; 0]).text();
    assert!(text.contains("(key ill\\xff)"), "{text}");
    let json = run("check", path, ["--json"]).json();
    assert_eq!(json[0]["key_hex"], "696c6cff");
    assert_eq!(json[0]["segment"], 0);
    let got = run("get", path, ["well", "-"]);
    assert!(got.status == 0 && got.stdout == bytes(1, PAYLOAD));
    let ill = run("get", path, ["--hex", "696c6cff", "-"]);
    assert_eq!((ill.status, &*ill.stdout), (2, &b""[..]));
    assert!(ill.stderr.contains("is damaged"), "{}", ill.stderr);
}

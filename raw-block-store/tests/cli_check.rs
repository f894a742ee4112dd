//! `rawblock check` finds what is damaged, and names the place.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::fs;
use std::path::Path;

use common::{bytes, put_all};
use raw_block_core::Direct;
use raw_block_core::conformance::fixture;
use raw_block_store::format::{CheckpointHeader, Superblock};
use raw_block_store::{Engine, FormatOptions, Put, Store, open_device};
use tool::{done, run};

const BLOCK: usize = 4096;
const SLOTS: u64 = 8;
const PAYLOAD: usize = 9000;

fn open(path: &Path) -> Store {
    Store::open(open_device(path, Engine::Posix, Direct::Preferred).unwrap()).unwrap()
}

/// Puts an object in every slot, deletes half of them, and closes.
fn fill(path: &Path, seed: u8) {
    let store = open(path);
    let keys: Vec<_> = (0..8).map(|number| [seed, number]).collect();
    let values: Vec<_> =
        keys.iter().map(|key| bytes(u64::from(key[0]) << 8 | u64::from(key[1]), PAYLOAD)).collect();
    let puts: Vec<_> = keys.iter().zip(&values).map(|(key, value)| Put::new(key, value)).collect();
    put_all(&store, &puts);
    store.close().unwrap();
}

/// Deletes all of `seed` in batches that fill two blocks of the log, and closes.
fn empty(path: &Path, seed: u8) {
    let store = open(path);
    for half in 0..2 {
        let keys: Vec<_> = (0..4).map(|number| [seed, half * 4 + number]).collect();
        let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
        assert!(store.delete_many(&keys).into_iter().all(Result::unwrap));
    }
    store.checkpoint().unwrap();
    store.close().unwrap();
}

/// Which of the two checkpoints counts.
fn newest_checkpoint(image: &[u8], store: &Superblock) -> usize {
    let number = |container: &usize| {
        let at = offset(store.checkpoint_offset[*container].get());
        CheckpointHeader::read(&image[at..at + BLOCK], store)
            .map_or(0, |header| header.number.get())
    };
    (0..2).max_by_key(number).unwrap()
}

fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// What a device may hold in place of a block that was written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decay {
    FlippedBit,
    Zeroes,
    OldVersion,
    OtherBlock,
}

#[test]
fn every_damage_is_found_and_its_place_is_named() {
    let file = match fixture::zeroed_file(1 << 20) {
        Ok(file) => file,
        Err(skipped) => return skipped.tell(),
    };
    let path = file.path();
    let device = open_device(path, Engine::Posix, Direct::Preferred).unwrap();
    let format =
        FormatOptions { slot_count: Some(SLOTS), ..FormatOptions::for_payloads(PAYLOAD as u64) };
    Store::format(device, &format).unwrap();
    fill(path, 1);
    empty(path, 1);
    let old = fs::read(path).unwrap();
    fill(path, 2);
    let image = fs::read(path).unwrap();
    assert!(done("check", path, [""; 0]).text().starts_with("healthy "));

    let store = *Superblock::read(&image).unwrap();
    let checkpoint = offset(store.checkpoint_offset[newest_checkpoint(&image, &store)].get());
    let slot = |slot| offset(store.slot_offset(slot).unwrap());
    let log = offset(store.delete_log_offset.get());
    let last = offset(store.last_superblock_offset.get());
    use Decay::{FlippedBit, OldVersion, OtherBlock, Zeroes};
    let all = [FlippedBit, Zeroes, OldVersion, OtherBlock];
    // What is damaged; the block that is; the offset that is named; where another block comes from; how.
    let cases: [(&str, usize, usize, usize, &[Decay]); 9] = [
        // An older copy of the superblock is a valid one.
        ("superblock", 0, 0, slot(1), &[FlippedBit, Zeroes, OtherBlock]),
        ("superblock", 4096, 4096, slot(1), &[FlippedBit, Zeroes, OtherBlock]),
        ("superblock", last, last, slot(1), &[FlippedBit, Zeroes, OtherBlock]),
        ("header of a checkpoint", checkpoint, checkpoint, slot(1), &all),
        ("block of a checkpoint", checkpoint + BLOCK, checkpoint + BLOCK, slot(1), &all),
        // One that reads as if it had never been written, or as it was before, costs nothing: the checkpoint
        // speaks for every deletion in it.
        ("delete log", log, log, log + BLOCK, &[FlippedBit, OtherBlock]),
        ("delete log", log + BLOCK, log + BLOCK, slot(1), &[FlippedBit, OtherBlock]),
        ("header of an object", slot(3), slot(3), slot(4), &all),
        ("payload of an object", slot(5) + BLOCK, slot(5), slot(6) + BLOCK, &all),
    ];
    for (structure, at, named, elsewhere, decays) in cases {
        for &decay in decays {
            let mut damaged = image.clone();
            match decay {
                FlippedBit => damaged[at + 100] ^= 0x10,
                Zeroes => damaged[at..at + BLOCK].fill(0),
                OldVersion => damaged[at..at + BLOCK].copy_from_slice(&old[at..at + BLOCK]),
                OtherBlock => damaged.copy_within(elsewhere..elsewhere + BLOCK, at),
            }
            assert!(damaged != image, "{structure} {decay:?} changes something");
            fs::write(path, &damaged).unwrap();
            let ran = run("check", path, [""; 0]);
            let text = ran.text();
            assert_eq!(ran.status, 1, "{structure} {decay:?}: {text}{}", ran.stderr);
            let line = |line: &str| {
                line.contains(structure) && line.contains(&format!("at offset {named} "))
            };
            assert!(text.lines().any(line), "{structure} at {named}, {decay:?}: {text}");
            assert!(text.lines().last().unwrap().starts_with("damaged "), "{text}");
            let json = run("check", path, ["--json"]).json();
            assert!(json.iter().any(|line| line["offset"] == named), "{decay:?}: {json:?}");
            assert_eq!(json.last().unwrap()["healthy"], false);
            assert!(fs::read(path).unwrap() == damaged, "it repairs nothing");
        }
    }
}

#[test]
fn a_damaged_payload_is_named_by_its_key() {
    let file = match fixture::zeroed_file(1 << 20) {
        Ok(file) => file,
        Err(skipped) => return skipped.tell(),
    };
    let path = file.path();
    let device = open_device(path, Engine::Posix, Direct::Preferred).unwrap();
    Store::format(device, &FormatOptions::for_payloads(PAYLOAD as u64)).unwrap();
    let store = open(path);
    put_all(
        &store,
        &[Put::new(b"well", &bytes(1, PAYLOAD)), Put::new(b"ill\xff", &bytes(2, PAYLOAD))],
    );
    store.close().unwrap();
    let mut image = fs::read(path).unwrap();
    let superblock = *Superblock::read(&image).unwrap();
    image[offset(superblock.slot_offset(1).unwrap()) + BLOCK] ^= 1;
    fs::write(path, &image).unwrap();

    let text = run("check", path, [""; 0]).text();
    assert!(text.contains("(key ill\\xff)"), "{text}");
    let json = run("check", path, ["--json"]).json();
    assert_eq!(json[0]["key_hex"], "696c6cff");
    let got = run("get", path, ["well", "-"]);
    assert!(got.status == 0 && got.stdout == bytes(1, PAYLOAD));
    let ill = run("get", path, ["--hex", "696c6cff", "-"]);
    assert_eq!((ill.status, &*ill.stdout), (2, &b""[..]));
    assert!(ill.stderr.contains("is damaged"), "{}", ill.stderr);
}

//! `rawblock info` and `rawblock dump` show a store as it is.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::fs;
use std::path::Path;

use common::bytes;
use raw_block_store::format::{
    BodyBlock, CheckpointHeader, EncodeError, Layout, RecordReader, RecordWriter, SegmentRecord,
    Superblock,
};
use serde_json::{Value, json};
use tool::{done, put, run, store_in_a_file};

const NONE: [&str; 0] = [];

#[test]
fn info_shows_what_the_store_is_and_how_full_it_is() {
    let Some(device) = store_in_a_file() else { return };
    put(device.path(), "key", &bytes(1, 10_000));
    let text = done("info", device.path(), NONE).text();
    for part in [
        "\"for a test\"",
        "state        clean\n",
        "508 segments of 32 KiB, in blocks of 4 KiB\n",
        "values       up to 20 KiB\n",
        "objects      1 with 9.77 KiB of values\n",
        " MiB more can be put\n",
        "507 free, 1 open, 0 full, 0 draining, 0 bad\n",
        "checkpoint   2\n",
        "health       healthy\n",
        "3 of 3 copies are valid\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = &done("info", device.path(), ["--json"]).json()[0];
    assert_eq!((&json["label"], &json["state"]), (&"for a test".into(), &"clean".into()));
    assert_eq!((&json["objects"], &json["payload_bytes"]), (&1.into(), &10_000.into()));
    assert_eq!((&json["health"], &json["bad_segments"]), (&"healthy".into(), &json!([])));
    assert_eq!(json["device"]["capacity_bytes"], 16 << 20);

    let left = json["bytes_left"].as_u64().unwrap();
    put(device.path(), "other", &bytes(2, 20_000));
    let json = &done("info", device.path(), ["--json"]).json()[0];
    let now = json["bytes_left"].as_u64().unwrap();
    assert!((left - 32_000..=left - 20_000).contains(&now), "{left} {now}");
}

#[test]
fn info_shows_the_superblock_of_a_store_that_cannot_be_opened() {
    let Some(device) = store_in_a_file() else { return };
    let mut image = fs::read(device.path()).unwrap();
    let layout = Layout::of(Superblock::read(&image[..4096]).unwrap());
    for offset in layout.container_offset {
        image[usize::try_from(offset).unwrap()] ^= 1;
    }
    fs::write(device.path(), image).unwrap();
    let info = run("info", device.path(), NONE);
    assert_eq!(info.status, 0, "{}", info.stderr);
    for part in ["\"for a test\"", "health       failed: the header of a checkpoint at offset"] {
        assert!(info.text().contains(part), "{part}: {}", info.text());
    }
    let json = &run("info", device.path(), ["--json"]).json()[0];
    assert_eq!((&json["health"], &json["objects"]), (&"failed".into(), &Value::Null));
}

#[test]
fn info_names_the_segments_in_quarantine() {
    let Some(device) = store_in_a_file() else { return };
    put(device.path(), "key", b"value");
    quarantine(device.path(), &[3, 200]);
    let info = run("info", device.path(), NONE);
    assert_eq!(info.status, 0, "{}", info.stderr);
    let text = info.text();
    for part in
        ["0 draining, 2 bad\n", "in quarantine, because writes failed: 3, 200\n", "degraded: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = &run("info", device.path(), ["--json"]).json()[0];
    assert_eq!(json["bad_segments"], json!([3, 200]));
    assert_eq!(json["health"], "degraded");
    assert!(json["health_reason"].as_str().unwrap().contains("quarantine"), "{json}");
    let dumped = run("dump", device.path(), ["checkpoint", "--json"]).json();
    assert_eq!(dumped.iter().filter(|line| line["bad"] == true).count(), 2);
}

#[test]
fn the_quarantine_of_segments_is_lifted_for_good() {
    let Some(device) = store_in_a_file() else { return };
    quarantine(device.path(), &[3, 200]);
    for lifted in ["2 segments used again\n", "0 segments used again\n"] {
        let ran = run("lift", device.path(), NONE);
        assert!(ran.text().ends_with(lifted), "{} {}", ran.text(), ran.stderr);
    }
    let json = &run("info", device.path(), ["--json"]).json()[0];
    assert_eq!((&json["health"], &json["bad_segments"]), (&"healthy".into(), &json!([])));
}

/// Puts segments that are not used into quarantine, in the newest checkpoint of a store.
fn quarantine(path: &Path, segments: &[u32]) {
    let mut image = fs::read(path).unwrap();
    let layout = Layout::of(Superblock::read(&image[..4096]).unwrap());
    let block_size = layout.block_size as usize;
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let header = |offset: &u64| {
        let block = &image[at(*offset)..][..block_size];
        Some((*CheckpointHeader::read(block, &layout).ok()?, at(*offset) + block_size))
    };
    let headers = layout.container_offset.iter().filter_map(header);
    let (header, start) = headers.max_by_key(|(header, _)| header.number.get()).unwrap();
    let mut reader = RecordReader::new(&layout, &header);
    let mut writer = RecordWriter::new(&layout);
    let body = start..start + at(header.body_blocks(&layout)) * block_size;
    for block in image[body.clone()].chunks_exact(block_size) {
        let each = |segment, record: &SegmentRecord, live: &[u64]| {
            let mut record = *record;
            record.bad = segments.contains(&segment);
            writer.add(&record, live, || Ok::<_, EncodeError>(vec![0; block_size])).unwrap();
        };
        reader.take(block, each).unwrap();
    }
    let pieces = writer.finish().unwrap().pieces;
    for (index, (mut piece, block)) in
        (0..).zip(pieces.into_iter().zip(image[body].chunks_exact_mut(block_size)))
    {
        BodyBlock::seal(&mut piece, &layout, header.number.get(), index).unwrap();
        block.copy_from_slice(&piece);
    }
    fs::write(path, image).unwrap();
}

#[test]
fn every_structure_is_dumped_as_text_and_as_json() {
    let Some(device) = store_in_a_file() else { return };
    let device = device.path();
    put(device, "key", &bytes(1, 9000));
    put(device, "gone", b"value");
    done("rm", device, ["gone"]);
    for (arguments, lines, part) in [
        (&["superblock"][..], 3, "label=for a test"),
        (&["superblock", "1"], 1, "segments=508"),
        // Each checkpoint has a header, and a record of each segment.
        (&["checkpoint"], 3 * 509, "table=4"),
        (&["segment"], 1, "segment 0 at "),
        // The header of the segment; three slots; two objects and the tombstone of one.
        (&["segment", "0"], 7, "key=gone"),
        (&["table"], 4, "kind=tombstones"),
    ] {
        let text = done("dump", device, arguments).text();
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.contains(part), "{part}: {text}");
        let json = done("dump", device, arguments.iter().chain(&["--json"])).json();
        assert_eq!(json.len(), lines);
        assert!(json.iter().all(|line| line["offset"].is_u64() && line["valid"] == true));
    }
    let objects = done("dump", device, ["segment", "0", "--json"]).json();
    let object = |key: &str| objects.iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(
        (&object("key")["value_bytes"], &object("key")["named"]),
        (&9000.into(), &true.into())
    );
    assert_eq!(
        (&object("gone")["value_bytes"], &object("gone")["named"]),
        (&5.into(), &false.into())
    );
    for structure in ["segment", "table"] {
        let unwritten = done("dump", device, [structure, "9"]).text();
        assert!(unwritten.contains("not valid"), "{unwritten}");
    }
    for (structure, last) in
        [("superblock", 2), ("checkpoint", 2), ("segment", 507), ("table", 507)]
    {
        let beyond = run("dump", device, [structure, &(last + 1).to_string()]);
        assert_eq!(beyond.status, 2);
        assert!(beyond.stderr.contains(&format!("the last one is {last}")), "{}", beyond.stderr);
    }
}

#[test]
fn damaged_structures_are_dumped_with_what_is_wrong() {
    let Some(device) = store_in_a_file() else { return };
    put(device.path(), "key", &bytes(1, 9000));
    let mut image = fs::read(device.path()).unwrap();
    let layout = Layout::of(Superblock::read(&image[..4096]).unwrap());
    let at = |segment, block| usize::try_from(layout.block_offset(segment, block)).unwrap();
    let body = usize::try_from(layout.container_offset[1]).unwrap() + 4096;
    for offset in [4096, body, at(0, 0), at(0, 1), at(0, layout.segment_blocks - 1)] {
        image[offset + 40] ^= 1;
    }
    fs::write(device.path(), image).unwrap();
    for (arguments, damaged) in [
        (&["superblock"][..], "superblock 1 at 4096: not valid: checksum mismatch"),
        (&["checkpoint", "1"], "checkpoint-block 0 at "),
        (&["segment"], "segment 0 at "),
        (&["segment", "0"], "slot 1 at "),
        (&["table"], "table 0 at "),
    ] {
        let text = done("dump", device.path(), arguments).text();
        let is_damaged = |line: &&str| line.starts_with(damaged) && line.contains("not valid: ");
        assert_eq!(text.lines().filter(is_damaged).count(), 1, "{damaged}: {text}");
        let json = done("dump", device.path(), arguments.iter().chain(&["--json"])).json();
        let damage = json.iter().find(|line| line["valid"] == false).unwrap();
        assert!(damage["damage"].as_str().unwrap().contains("checksum mismatch"), "{damage}");
    }
}

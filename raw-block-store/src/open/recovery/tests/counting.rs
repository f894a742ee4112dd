//! Which entries count.

use super::*;

/// A store with two objects in segment 0, which the checkpoint names by a table.
fn settled() -> Image {
    let mut image = Image::new();
    image.open(0, 1, 1);
    let mut entries = image.slot((0, 1), 1, 0, &[("a", 2, ONE), ("b", 3, TWO)]);
    entries.extend(image.slot((0, 1), 5, 2, &[("c", 4, ONE)]));
    image.record(0, 1, 3, &[0, 1]);
    image.table(0, 2, &entries);
    image.checkpoint(0, 2, 4, 5);
    image
}

#[test]
fn named_objects_of_a_table_are_found() {
    let image = settled();
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "a"), Some(2));
    assert_eq!(image.found(&recovered, "b"), Some(3));
    assert_eq!(image.found(&recovered, "c"), None, "it is not named");
    assert!(!recovered.index.is_unverified(Place { segment: 0, number: 0 }));
    assert_eq!(recovered.space.next_sequence, 5 + image.layout.max_sequences());
    let segment = recovered.space.segments[0];
    assert!(segment.used && !segment.open);
    assert_eq!((segment.generation, segment.entries, segment.table), (1, 3, 2));
}

#[test]
fn a_table_of_another_checkpoint_is_not_used() {
    let mut image = settled();
    let other = image.slot((0, 1), 1, 0, &[("x", 2, ONE), ("y", 3, TWO)]);
    image.table(0, 9, &other);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "x"), Some(2), "the segment was scanned");
    assert_eq!(recovered.space.segments[0].table, 0);
}

#[test]
fn a_clean_store_goes_on_filling_its_open_segments() {
    let mut image = settled();
    image.records[0].0.settled = 3;
    image.records[0].0.next_block = 7;
    image.checkpoint(0, 2, 4, 5);
    let recovered = image.recover_as(ShutdownState { clean: Some(2), oldest: 2 }, false).unwrap();
    assert!(recovered.clean);
    assert_eq!(recovered.space.next_sequence, 5);
    let segment = recovered.space.segments[0];
    assert!(segment.open);
    assert_eq!((segment.next_block, segment.entries, segment.table), (7, 3, 2));
    assert!(!image.recover().unwrap().space.segments[0].open, "not after a crash");
}

#[test]
fn a_segment_that_was_opened_later_is_scanned() {
    let image = settled();
    image.open(1, 5, 2);
    image.slot((1, 5), 1, 0, &[("a", 6, ONE)]);
    image.slot((1, 5), 3, 1, &[("d", 7, TWO), ("e", 8, ONE)]);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "a"), Some(6), "the newest counts");
    assert_eq!(image.found(&recovered, "d"), Some(7));
    assert_eq!(image.found(&recovered, "e"), Some(8));
    assert!(recovered.index.is_unverified(Place { segment: 1, number: 2 }));
    assert!(!recovered.index.is_unverified(Place { segment: 1, number: 0 }), "it was contested");
    let segment = recovered.space.segments[1];
    assert_eq!((segment.generation, segment.entries, segment.next_block), (5, 3, 7));
    assert_eq!(recovered.index.live_count(0), 1);
}

#[test]
fn past_the_settled_prefix_only_newer_entries_count() {
    let mut image = Image::new();
    image.open(0, 1, 1);
    image.slot((0, 1), 1, 0, &[("a", 2, ONE), ("b", 9, ONE), ("c", 3, ONE)]);
    image.slot((0, 1), 5, 3, &[("d", 4, ONE), ("e", 10, ONE)]);
    image.record(0, 1, 4, &[0, 3]);
    image.records[0].0.settled = 1;
    image.checkpoint(0, 1, 5, 9);
    let recovered = image.recover().unwrap();
    let found = ["a", "b", "c", "d", "e"].map(|key| image.found(&recovered, key));
    assert_eq!(found, [Some(2), Some(9), None, Some(4), Some(10)]);
}

#[test]
fn slots_of_an_older_generation_do_not_count() {
    let image = settled();
    image.open(1, 5, 2);
    image.slot((1, 5), 1, 0, &[("d", 6, ONE)]);
    image.slot((1, 4), 3, 1, &[("e", 7, ONE)]);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "d"), Some(6));
    assert_eq!(image.found(&recovered, "e"), None);
}

#[test]
fn where_a_header_is_missing_the_next_one_is_found() {
    let image = settled();
    image.open(1, 5, 2);
    image.slot((1, 5), 1, 0, &[("d", 6, ONE)]);
    image.slot((1, 5), 3, 1, &[("torn", 7, TWO)]);
    image.poke(1, 3, &[0xEE; BLOCK]);
    image.slot((1, 5), 6, 2, &[("f", 8, ONE)]);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "torn"), None);
    assert_eq!(image.found(&recovered, "f"), Some(8));
}

#[test]
fn a_payload_with_headers_in_it_adds_nothing() {
    let image = settled();
    image.open(1, 5, 2);
    image.slot((1, 5), 1, 0, &[("inner", 6, ONE)]);
    let start = image.layout.block_offset(1, 1);
    let copy = image.device.peek(start, 2 * BLOCK);
    image.slot((1, 5), 1, 0, &[("outer", 7, &copy)]);
    // Its own header is torn, so that the search looks at its payload.
    image.poke(1, 1, &[0; BLOCK]);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "inner"), None);
}

#[test]
fn a_tombstone_deletes_what_is_older() {
    let image = settled();
    image.open(1, 5, 2);
    image.tombstone((1, 5), 1, 0, 6, &["a", "z"]);
    image.slot((1, 5), 2, 1, &[("z", 7, ONE)]);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "a"), None);
    assert_eq!(image.found(&recovered, "z"), Some(7), "it is newer");
    assert_eq!(recovered.space.tombstones, [(6, Place { segment: 1, number: 0 })]);
    assert!(recovered.index.live(Place { segment: 1, number: 0 }).unwrap().is_tombstone());
}

#[test]
fn a_tombstone_that_a_table_names_counts() {
    let mut image = Image::new();
    image.open(0, 1, 1);
    let mut entries = image.slot((0, 1), 1, 0, &[("a", 2, ONE), ("b", 4, ONE)]);
    entries.push(image.tombstone((0, 1), 4, 2, 6, &["a"]));
    image.record(0, 1, 3, &[0, 1, 2]);
    image.table(0, 1, &entries);
    image.checkpoint(0, 1, 5, 7);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "a"), None);
    assert_eq!(image.found(&recovered, "b"), Some(4));
}

#[test]
fn a_torn_object_is_replaced_by_the_one_before() {
    let image = settled();
    image.open(1, 5, 2);
    image.slot((1, 5), 1, 0, &[("a", 6, ONE), ("a", 7, TWO), ("b", 8, ONE)]);
    image.poke(1, 4, &[0xEE; BLOCK]);
    image.poke(1, 5, &[0xEE; BLOCK]);
    let recovered = image.recover().unwrap();
    assert_eq!(image.found(&recovered, "a"), Some(6));
    assert_eq!(image.found(&recovered, "b"), Some(3));
    assert_eq!(recovered.index.len(), 2);
    let live = [0, 1].map(|segment| recovered.index.live_count(segment));
    assert_eq!(live, [1, 1]);
}

#[test]
fn of_equal_sequences_the_named_one_counts() {
    let image = settled();
    image.open(1, 5, 2);
    image.slot((1, 5), 1, 0, &[("d", 6, ONE)]);
    let mut image = image;
    let copy = image.slot((2, 6), 1, 0, &[("d", 6, ONE)]);
    image.open(2, 6, 2);
    image.record(2, 6, 1, &[0]);
    image.table(2, 3, &copy);
    image.checkpoint(1, 3, 5, 7);
    let recovered = image.recover().unwrap();
    let found = recovered.index.find(&image.hash("d")).unwrap();
    assert_eq!(found.place, Place { segment: 2, number: 0 });
    assert_eq!(recovered.index.live_count(1), 0);
}

#[test]
fn unverified_objects_stay_so_at_the_next_opening() {
    let mut image = settled();
    image.records[0].0.unverified = true;
    image.checkpoint(0, 2, 4, 5);
    let recovered = image.recover_as(ShutdownState { clean: Some(2), oldest: 2 }, false).unwrap();
    assert!(recovered.index.is_unverified(Place { segment: 0, number: 0 }));
}

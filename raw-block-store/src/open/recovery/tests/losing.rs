//! What is damaged or cannot be read.

use super::*;
use crate::Error;

/// A store with a checkpoint that names objects in two segments: 0, which is settled, and 1, which
/// is not.
fn image() -> Image {
    let mut image = Image::new();
    image.open(0, 1, 1);
    let entries = image.slot((0, 1), 1, 0, &[("a", 2, ONE), ("b", 3, TWO)]);
    image.record(0, 1, 2, &[0, 1]);
    image.table(0, 2, &entries);
    image.open(1, 4, 1);
    image.slot((1, 4), 1, 0, &[("c", 5, ONE)]);
    image.slot((1, 4), 3, 1, &[("a", 8, ONE)]);
    image.slot((1, 4), 5, 2, &[("d", 9, ONE)]);
    image.record(1, 4, 1, &[0]);
    image.records[1].0.settled = 1;
    image.checkpoint(0, 2, 6, 7);
    image
}

fn found(image: &Image, accept: bool) -> [Option<u64>; 4] {
    let recovered = image.recover_as(ShutdownState { clean: None, oldest: 0 }, accept).unwrap();
    ["a", "b", "c", "d"].map(|key| image.found(&recovered, key))
}

#[test]
fn an_unreadable_table_is_replaced_by_a_scan() {
    let image = image();
    image.break_block(0, image.layout.table_block(2));
    assert_eq!(found(&image, false), [Some(8), Some(3), Some(5), Some(9)]);
}

#[test]
fn an_unreadable_slot_header_of_a_filled_segment_refuses() {
    let image = image();
    image.break_block(1, 3);
    let error = image.recover().map(drop).unwrap_err();
    let offset = image.layout.block_offset(1, 3);
    assert!(matches!(error, Error::NewestLost { offset: at, .. } if at == offset), "{error}");
    assert_eq!(found(&image, true), [Some(2), Some(3), Some(5), Some(9)]);
}

#[test]
fn an_unreadable_slot_header_of_dead_objects_refuses_nothing() {
    let mut image = image();
    // The object of the second slot was deleted before the checkpoint.
    image.record(1, 4, 2, &[0]);
    image.records[1].0.settled = 2;
    image.checkpoint(0, 2, 8, 9);
    image.break_block(1, 3);
    assert_eq!(found(&image, false), [Some(2), Some(3), Some(5), Some(9)]);
    // If it is live, it is lost.
    image.record(1, 4, 2, &[0, 1]);
    image.records[1].0.settled = 2;
    image.checkpoint(0, 2, 8, 9);
    assert!(matches!(image.recover(), Err(Error::NewestLost { .. })));
}

#[test]
fn an_unreadable_payload_block_refuses_nothing() {
    let image = image();
    image.break_block(1, 6);
    image.break_block(0, 2);
    image.break_block(0, 60);
    assert_eq!(found(&image, false), [Some(8), Some(3), Some(5), Some(9)]);
}

#[test]
fn an_unreadable_block_where_the_next_slot_would_be_refuses() {
    let image = image();
    image.break_block(1, 7);
    assert!(matches!(image.recover(), Err(Error::NewestLost { .. })));
}

#[test]
fn without_a_gap_in_the_numbers_no_slot_is_missing() {
    let image = image();
    // A slot whose header failed would have sealed the segment, so this gap is no slot.
    image.slot((1, 4), 9, 3, &[("e", 10, ONE)]);
    image.break_block(1, 7);
    assert_eq!(found(&image, false), [Some(8), Some(3), Some(5), Some(9)]);
}

#[test]
fn an_unreadable_segment_header_hides_no_readable_slots() {
    let image = image();
    for segment in [0, 1, 2] {
        image.break_block(segment, 0);
    }
    assert_eq!(found(&image, false), [Some(8), Some(3), Some(5), Some(9)]);
}

#[test]
fn slots_show_that_a_segment_was_opened_again() {
    let image = image();
    image.slot((2, 7), 1, 0, &[("d", 11, ONE)]);
    image.break_block(2, 0);
    assert_eq!(found(&image, false)[3], Some(11));
    let recovered = image.recover().unwrap();
    assert_eq!(recovered.space.segments[2].generation, 7);
}

#[test]
fn of_two_lost_generations_the_newest_is_adopted() {
    let image = image();
    // The header of generation 7 is lost, and that of generation 10, which did not fill as much.
    image.slot((2, 7), 1, 0, &[("b", 11, ONE)]);
    image.slot((2, 10), 3, 0, &[("d", 12, ONE)]);
    image.slot((2, 7), 5, 2, &[("c", 13, ONE)]);
    image.break_block(2, 0);
    let recovered = image.recover().unwrap();
    assert_eq!(recovered.space.segments[2].generation, 10);
    assert_eq!(found(&image, false), [Some(8), Some(3), Some(5), Some(12)]);
}

#[test]
fn headers_that_a_power_cut_tore_or_lost_are_written_again() {
    let image = image();
    let without_header = || image.recover().unwrap().without_header;
    assert_eq!(without_header(), [0_u32; 0]);
    image.slot((2, 7), 1, 0, &[("d", 11, ONE)]);
    image.break_block(2, 0);
    assert_eq!(without_header(), [2], "only slots show that it was opened");
    image.open(1, 3, 1);
    assert_eq!(without_header(), [1, 2], "the checkpoint was chosen before the header was written");
    image.break_block(1, 0);
    assert_eq!(without_header(), [1, 2]);
    image.break_block(0, 0);
    assert_eq!(without_header(), [1, 2], "that of a settled segment was durable");
}

#[test]
fn a_damaged_segment_header_is_searched_for_too() {
    let image = image();
    image.open(2, 7, 2);
    image.slot((2, 7), 1, 0, &[("d", 11, ONE)]);
    let start = image.layout.block_offset(2, 0);
    let mut header = image.device.peek(start, BLOCK);
    header[50] ^= 1;
    image.device.poke(start, &header);
    assert_eq!(found(&image, false)[3], Some(11));
}

#[test]
fn an_unreadable_named_tombstone_refuses() {
    let mut image = image();
    let entries = [image.tombstone((3, 10), 1, 0, 8, &["c"])];
    image.open(3, 10, 2);
    image.record(3, 10, 1, &[0]);
    image.table(3, 3, &entries);
    image.checkpoint(1, 3, 6, 11);
    assert_eq!(found(&image, false)[2], None);
    image.break_block(3, 1);
    assert!(matches!(image.recover(), Err(Error::NewestLost { .. })));
    assert_eq!(found(&image, true)[2], Some(5));
}

#[test]
fn a_lost_checkpoint_is_noticed_by_segment_headers() {
    let image = image();
    image.open(2, 7, 3);
    let error = image.recover().map(drop).unwrap_err();
    assert!(matches!(error, Error::CheckpointLost { number: 3, .. }), "{error}");
    let mut recovered = image.recover_as(ShutdownState { clean: None, oldest: 0 }, true).unwrap();
    assert_eq!(recovered.containers.begin().number, 4, "the number is not used again");
}

#[test]
fn a_lost_checkpoint_is_noticed_by_a_newer_generation() {
    let image = image();
    image.slot((1, 11), 3, 1, &[("a", 12, ONE)]);
    assert!(matches!(image.recover(), Err(Error::CheckpointLost { .. })));
}

#[test]
fn a_lost_checkpoint_is_noticed_by_the_superblock() {
    let image = image();
    for left in
        [ShutdownState { clean: Some(3), oldest: 3 }, ShutdownState { clean: None, oldest: 3 }]
    {
        let error = image.recover_as(left, false).map(drop).unwrap_err();
        assert!(matches!(error, Error::CheckpointLost { number: 3, .. }), "{error}");
        assert!(!image.recover_as(left, true).unwrap().clean);
    }
}

#[test]
fn a_checkpoint_with_a_damaged_body_is_lost() {
    let image = image();
    image.checkpoint(2, 3, 6, 7);
    let body = image.layout.container_offset[2] + BLOCK as u64;
    image.device.poke(body + 100, &[0xEE]);
    let error = image.recover().map(drop).unwrap_err();
    assert!(matches!(error, Error::CheckpointLost { number: 3, .. }), "{error}");
    assert_eq!(found(&image, true), [Some(8), Some(3), Some(5), Some(9)]);
}

#[test]
fn without_a_checkpoint_there_is_an_error() {
    let image = Image::new();
    assert!(matches!(image.recover(), Err(Error::Damaged { .. })));
}

#[test]
fn a_named_object_that_is_not_found_is_counted() {
    let mut image = image();
    image.records[0].0.table = 0;
    image.checkpoint(0, 2, 6, 7);
    image.poke(0, 1, &[0xEE; BLOCK]);
    let recovered = image.recover().unwrap();
    assert_eq!(recovered.damaged, 2);
    assert_eq!(image.found(&recovered, "b"), None);
}

#[test]
fn an_unreadable_header_of_a_settled_segment_is_reported() {
    let mut image = image();
    image.records[0].0.table = 0;
    image.checkpoint(0, 2, 6, 7);
    image.break_block(0, 1);
    let error = image.recover().map(drop).unwrap_err();
    assert!(matches!(error, Error::NewestLost { .. }), "{error}");
}

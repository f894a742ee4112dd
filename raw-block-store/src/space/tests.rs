use super::*;

fn place(slot: u64, sequence: u64) -> Place {
    Place { slot, sequence }
}

/// A space of four slots, of which slots 0 and 1 hold objects that the checkpoint covers.
fn space() -> Space {
    Space::new(4, [0, 1], 2, 1, 10)
}

fn flush(space: &mut Space) {
    let began = space.begin_flush();
    space.end_flush(began);
}

#[test]
fn a_put_takes_slots_and_growing_sequences_together() {
    let mut space = space();
    let mut places = Vec::new();
    space.begin_put(3, &mut places);
    assert_eq!(places, [place(2, 10), place(3, 11)], "no more than there are");
    assert_eq!(space.next_sequence(), 12);
    space.begin_put(1, &mut places);
    assert_eq!(space.next_sequence(), 12, "no slot, no sequence");
    assert_eq!(space.coverable(), 9);
    space.end_change(10);
    assert_eq!(space.coverable(), 11);
}

#[test]
fn it_is_idle_when_no_change_and_no_get_is_under_way() {
    let mut space = space();
    assert!(space.is_idle());
    space.begin_put(1, &mut Vec::new());
    assert!(!space.is_idle());
    let get = space.begin_get();
    space.end_change(10);
    assert!(!space.is_idle());
    space.end_get(get);
    assert!(space.is_idle());
}

#[test]
fn a_checkpoint_can_speak_only_for_what_is_below_the_oldest_change_under_way() {
    let mut space = space();
    let mut places = Vec::new();
    space.begin_put(1, &mut places);
    let deletions = space.begin_delete(5, 100).unwrap();
    assert_eq!(deletions, LogPlace { first_sequence: 11, blocks: 0..1, oldest: 10 });
    space.end_change(10);
    assert_eq!(space.coverable(), 10);
    space.end_change(11);
    assert_eq!(space.coverable(), 15);
}

#[test]
fn a_replaced_slot_that_is_covered_is_free_after_a_flush_that_began_later() {
    let mut space = space();
    let too_early = space.begin_flush();
    space.retire([place(0, 5)], Because::Replaced);
    space.end_flush(too_early);
    assert_eq!((space.free_slots(), space.waiting_slots()), (2, 1));
    flush(&mut space);
    assert_eq!((space.free_slots(), space.waiting_slots()), (3, 0));
}

#[test]
fn a_slot_with_a_sequence_above_the_covered_one_waits_for_a_commit_and_a_flush() {
    let mut space = space();
    space.retire([place(2, 12), place(3, 10)], Because::Replaced);
    flush(&mut space);
    assert_eq!(space.free_slots(), 2, "a flush does not cover it");
    space.commit(2, 11);
    assert_eq!(space.free_slots(), 3, "slot 3, which was flushed before");
    space.retire([place(0, 11)], Because::Replaced);
    space.commit(3, 12);
    assert_eq!(space.free_slots(), 4, "a commit is no flush for slot 0");
    flush(&mut space);
    assert_eq!(space.free_slots(), 5);
}

#[test]
fn an_evicted_slot_needs_no_flush() {
    let mut space = space();
    space.retire([place(0, 5)], Because::Evicted);
    assert_eq!(space.free_slots(), 3);
    space.retire([place(1, 10)], Because::Evicted);
    assert_eq!(space.free_slots(), 3);
    space.commit(2, 10);
    assert_eq!(space.free_slots(), 4);
}

#[test]
fn a_slot_is_not_free_while_a_get_may_read_it() {
    let mut space = space();
    let before = space.begin_get();
    let also = space.begin_get();
    space.retire([place(0, 5)], Because::Evicted);
    let after = space.begin_get();
    assert!(!space.end_get(before));
    assert_eq!((space.free_slots(), space.waiting_slots()), (2, 1));
    assert!(space.end_get(also));
    assert_eq!(space.free_slots(), 3, "the later get cannot have been told of it");
    space.end_get(after);
}

#[test]
fn a_pinned_slot_is_not_free_until_the_last_pin_is_gone() {
    let mut space = space();
    space.pin(0);
    space.pin(0);
    space.retire([place(0, 5)], Because::Evicted);
    space.unpin(0);
    assert_eq!((space.free_slots(), space.waiting_slots(), space.pinned_slots()), (2, 1, 1));
    space.unpin(0);
    assert_eq!((space.free_slots(), space.waiting_slots(), space.pinned_slots()), (3, 0, 0));
    space.pin(1);
    space.unpin(1);
    assert_eq!(space.free_slots(), 3, "it was never given up");
}

#[test]
fn there_is_a_remedy_for_each_cause_of_want() {
    let mut space = Space::new(1, [0], 1, 1, 10);
    assert_eq!(space.remedy(), Remedy::Hopeless);
    space.retire([place(0, 5)], Because::Replaced);
    assert_eq!(space.remedy(), Remedy::Flush);
    let get = space.begin_get();
    space.retire([place(0, 5)], Because::Replaced);
    flush(&mut space);
    assert_eq!(space.remedy(), Remedy::None);

    let mut places = Vec::new();
    space.begin_put(1, &mut places);
    assert_eq!(space.remedy(), Remedy::Wait, "a get, and a put that may fail");
    space.end_get(get);
    space.free.take(1, |_| ());
    space.retire(places, Because::Replaced);
    assert_eq!(space.remedy(), Remedy::Wait, "its change is under way");
    space.end_change(10);
    assert_eq!(space.remedy(), Remedy::Checkpoint);

    assert_eq!(space.log_remedy(), Remedy::None);
    let first = space.begin_delete(1, 1).unwrap().first_sequence;
    assert_eq!(space.begin_delete(1, 1), None);
    assert_eq!(space.log_remedy(), Remedy::Wait);
    space.end_change(first);
    assert_eq!(space.log_remedy(), Remedy::Checkpoint);
    let covered = space.coverable();
    space.commit(2, covered);
    assert_eq!(space.log_remedy(), Remedy::None);
}

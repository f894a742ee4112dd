//! What keeps a released segment: gets, pins, and checkpoints that a discard waits for.

use super::*;

const NONE: EvictionPolicy = EvictionPolicy::None;

/// A space in which segment 0 is full, covered, and released by the next checkpoint.
fn one_dead() -> (Space, Located) {
    let mut space = space(8, 64, NONE);
    let object = put(&mut space, &[demand(62, 1)]).unwrap()[0];
    checkpoint(&mut space, CheckpointPurpose::Whole);
    (space, object)
}

#[test]
fn a_get_in_progress_keeps_its_segment() {
    let (mut space, object) = one_dead();
    let readers = Arc::clone(space.readers());
    let (early, late) = (readers.begin(), readers.begin());
    assert_eq!(readers.enter(0, early), Ok(space.segments[0].generation));
    space.drop_objects(&[object]);
    checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(space.segments[0].state, SegmentState::Draining);
    assert_eq!(readers.enter(0, late), Err(false), "it is closed, and another reads it");
    assert!(readers.leave(0), "it can be freed now");
    assert_eq!(free(&mut space), [0]);
    assert_eq!(readers.enter(0, readers.begin()), Err(true), "nothing is there to be read");
}

/// A store that evicts, in which all segments but the reserve are full, and one drains that a get
/// reads.
fn one_read() -> Space {
    let mut space = space(8, 64, EvictionPolicy::Fifo);
    while space.free.len() > 2 {
        put(&mut space, &[demand(62, 1)]).unwrap();
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    let readers = Arc::clone(space.readers());
    readers.enter(0, readers.begin()).unwrap();
    assert_eq!(space.take_victim().map(|victim| victim.segment), Some(0));
    checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(space.segments[0].state, SegmentState::Draining);
    space
}

#[test]
fn others_are_reclaimed_in_place_of_what_a_get_reads_for_long() {
    let mut space = one_read();
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Wait));
    let supply = space.supply();
    assert!(space.stop_waiting_for_gets());
    assert!(!space.stop_waiting_for_gets(), "it is no news");
    assert_eq!(space.supply(), supply, "reclaims have added as much as before");
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Reclaim));
    assert_eq!(space.take_victim().map(|victim| victim.segment), Some(1));
    checkpoint(&mut space, CheckpointPurpose::Space);
    put(&mut space, &[demand(62, 1)]).unwrap();
    assert!(space.readers().leave(0));
    assert_eq!(free(&mut space), [0]);
    put(&mut space, &[demand(62, 1)]).unwrap();
    check(&space);
}

#[test]
fn a_put_waits_for_gets_when_nothing_else_can_be_reclaimed() {
    let mut space = one_read();
    assert!(space.stop_waiting_for_gets());
    space.segments.iter_mut().for_each(|segment| segment.stuck = true);
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Reclaim));
    assert_eq!(space.take_victim(), None);
    space.end_reclaim(false, space.version());
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Wait), "the store is not full");
    space.readers().leave(0);
    free(&mut space);
    put(&mut space, &[demand(62, 1)]).unwrap();
    checkpoint(&mut space, CheckpointPurpose::Whole);
    space.segments.iter_mut().for_each(|segment| segment.stuck = true);
    space.end_reclaim(false, space.version());
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Full));
}

#[test]
fn a_look_up_from_before_a_segment_was_reused_does_not_count() {
    let (mut space, object) = one_dead();
    let readers = Arc::clone(space.readers());
    let before = readers.begin();
    space.drop_objects(&[object]);
    checkpoint(&mut space, CheckpointPurpose::Space);
    space.free.rotate_right(1);
    let reused = put(&mut space, &[demand(62, 1)]).unwrap()[0];
    assert_eq!(reused.place.segment, 0);
    assert!(readers.enter(0, before).is_err());
    assert_eq!(readers.enter(0, readers.begin()), Ok(space.segments[0].generation));
}

#[test]
fn a_pinned_version_that_was_replaced_keeps_its_segment() {
    let (mut space, object) = one_dead();
    let (pin, also) = (space.pin(&object), space.pin(&object));
    assert!(space.is_pinned(object.place));
    space.drop_objects(&[object]);
    assert_eq!(space.take_victim(), None, "an old version in it is pinned");
    checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(space.pinned(pin), Some((object, space.segments[0].generation)));
    assert!(!space.unpin(pin));
    assert_eq!(free(&mut space), []);
    assert!(space.unpin(also));
    assert_eq!(free(&mut space), [0]);
    assert!(!space.is_pinned(object.place));
}

#[test]
fn pins_follow_a_move() {
    let mut space = space(8, 64, NONE);
    let objects = put(&mut space, &vec![demand(2, 36); 54]).unwrap();
    space.seal(0);
    checkpoint(&mut space, CheckpointPurpose::Whole);
    space.drop_objects(&objects[1..]);
    let object = objects[0];
    let pin = space.pin(&object);
    let demand = MoveDemand { demand: Demand::of(&object.entry), sequence: object.sequence() };
    let plan = space.plan_moves(0, &[demand]).unwrap();
    write_headers(&mut space, &plan.allocation);
    let to = located(plan.allocation.slots[0].segment, &plan.allocation.objects[0], 0);
    space.end_moves(plan, &[Outcome::Shown], &[(object, to)]);
    assert_eq!(space.pinned(pin).map(|(object, _)| object), Some(to));
    assert!(!space.is_pinned(object.place));
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Space).released, [0]);
    assert_eq!(space.segments[0].state, SegmentState::Free);
    check(&space);
}

#[test]
fn a_pinned_object_keeps_its_released_segment_until_a_move() {
    let mut space = space(8, 64, EvictionPolicy::Fifo);
    let object = put(&mut space, &[demand(62, 1)]).unwrap()[0];
    checkpoint(&mut space, CheckpointPurpose::Whole);
    space.take_victim().unwrap();
    let chosen = space.plan_checkpoint(CheckpointPurpose::Space).unwrap();
    space.end_copy();
    let pin = space.pin(&object);
    space.commit_checkpoint(&chosen, 3);
    space.left_pinned(0);
    assert_eq!(space.take_to_empty(), None);
    assert!(free(&mut space).is_empty());
    space.unpin(pin);
    assert_eq!(space.take_to_empty(), Some(0));
    space.drop_objects(&[object]);
    space.emptied(0);
    assert_eq!(free(&mut space), [0]);
    check(&space);
}

#[test]
fn a_segment_is_discarded_when_every_checkpoint_calls_it_free() {
    let (mut space, object) = one_dead();
    space.drop_objects(&[object]);
    checkpoint(&mut space, CheckpointPurpose::Space);
    let released_by = space.committed().number;
    assert_eq!(space.begin_discard(released_by - 1), None);
    assert_eq!(space.begin_discard(released_by), Some(0));
    assert_eq!(space.usage().free, 8);
    while put(&mut space, &[demand(62, 1)]).is_ok() {}
    assert_eq!(space.segments[0].state, SegmentState::Discarding, "it is not opened");
    space.end_discard(0);
    check(&space);
    put(&mut space, &[demand(62, 1)]).unwrap();
    assert_ne!(space.segments[0].generation, 0);
}

#[test]
fn a_restored_space_counts_what_was_found() {
    let shape = shape(8, 64);
    let of = |generation, open| SegmentImage {
        generation,
        used: true,
        open,
        entries: 10,
        next_block: 20,
        highest: 40,
        ..SegmentImage::default()
    };
    let mut segments = vec![SegmentImage::default(); 8];
    (segments[1], segments[2]) = (of(30, false), of(20, true));
    segments[5] = SegmentImage { generation: 7, bad: true, ..SegmentImage::default() };
    let object = AllocatedObject {
        demand: demand(2, 36),
        index: 0,
        number: 3,
        sequence: 35,
        block: 4,
        blocks_back: 1,
        inline: false,
    };
    let object = located(1, &object, 9);
    segments[1].count_live(&object, &shape);
    let place = Place { segment: 1, number: 4 };
    let found = SpaceImage {
        segments,
        tombstones: vec![(38, place)],
        committed: CommittedCheckpoint { number: 6, covered: 33 },
        next_sequence: 100,
    };
    let mut space = Space::restore(shape, NONE, found);
    check(&space);
    recount(&space, [(1, &demand(2, 36))]);
    assert!(space.oldest(2).opened_at < space.oldest(1).opened_at, "by generation");
    let usage = space.usage();
    assert_eq!((usage.free, usage.open, usage.full, usage.bad), (5, 1, 1, 1));
    assert_eq!(space.readers().generation(1), 30);
    assert_eq!(space.readers().generation(5), 0);
    let put = put(&mut space, &[demand(2, 36)]).unwrap()[0];
    assert_eq!((put.place.segment, put.place.number, put.sequence()), (2, 10, 100));
    let chosen = space.plan_checkpoint(CheckpointPurpose::Whole).unwrap();
    assert!(chosen.segments[5].bad);
    assert_eq!(space.commit_checkpoint(&chosen, 7), [place]);
}

//! What checkpoints choose, release and forget; which victims there are, and how they are moved.

use super::*;

const NONE: EvictionPolicy = EvictionPolicy::None;

/// A space in which segment 0 is full with objects of 2 blocks that share slots, and the committed
/// checkpoint covers them. The rest of them lie in segment 1.
fn one_full(eviction: EvictionPolicy, segments: u32) -> (Space, Vec<Located>) {
    let mut space = space(segments, 64, eviction);
    let mut objects = Vec::new();
    while space.segments[0].state != SegmentState::Full {
        objects.extend(put(&mut space, &[demand(2, 36); 36]).unwrap());
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    (space, objects)
}

fn in_first(objects: &[Located]) -> Vec<Located> {
    objects.iter().filter(|object| object.place.segment == 0).copied().collect()
}

fn demands(objects: &[Located]) -> Vec<MoveDemand> {
    let of = |object: &Located| MoveDemand {
        demand: Demand::of(&object.entry),
        sequence: object.sequence(),
    };
    objects.iter().map(of).collect()
}

/// Publishes all copies of a plan.
fn end_moves(space: &mut Space, plan: MovePlan, objects: &[Located]) {
    write_headers(space, &plan.allocation);
    let mut moved = Vec::new();
    for slot in &plan.allocation.slots {
        for copy in plan.allocation.objects_of(slot) {
            moved.push((objects[copy.index as usize], located(slot.segment, copy, 0)));
        }
    }
    space.end_moves(plan, &vec![Outcome::Shown; objects.len()], &moved);
}

#[test]
fn the_settled_prefix_ends_at_the_first_entry_in_flight() {
    let mut space = space(8, 64, NONE);
    put(&mut space, &[demand(2, 36); 3]).unwrap();
    let second = allocate(&mut space, &[demand(2, 36); 4]).unwrap();
    let third = allocate(&mut space, &[demand(2, 36); 5]).unwrap();
    publish(&mut space, &third, &[]);
    let chosen = checkpoint(&mut space, CheckpointPurpose::Period);
    let of = chosen.segments[0];
    assert_eq!((of.settled, of.entries, of.open, of.used), (3, 12, true, true));
    assert_eq!(of.next_block, 16);
    publish(&mut space, &second, &[]);
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Period).segments[0].settled, 12);
    while space.segments[0].state == SegmentState::Open {
        put(&mut space, &[demand(8, 1)]).unwrap();
    }
    let chosen = checkpoint(&mut space, CheckpointPurpose::Period);
    assert_eq!((chosen.segments[0].settled, chosen.segments[0].open), (SETTLED_ALL, false));
}

#[test]
fn a_table_counts_until_its_segment_is_filled_further() {
    let mut space = space(8, 64, NONE);
    put(&mut space, &[demand(8, 1)]).unwrap();
    let chosen = checkpoint(&mut space, CheckpointPurpose::Whole);
    assert!(!chosen.segments[0].wants_table, "it is open");
    let generation = chosen.segments[0].generation;
    space.table_written(0, generation + 1, 5);
    assert_eq!(space.segments[0].table, 0, "of another generation");
    space.table_written(0, generation, 5);
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Whole).segments[0].table, 5);
    put(&mut space, &[demand(8, 1)]).unwrap();
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Whole).segments[0].table, 0);
    space.seal(0);
    assert!(checkpoint(&mut space, CheckpointPurpose::Whole).segments[0].wants_table);
}

#[test]
fn a_segment_is_released_when_it_is_dead_covered_and_settled() {
    let mut space = space(8, 64, NONE);
    let old = put(&mut space, &[demand(62, 1)]).unwrap();
    let held = allocate(&mut space, &[demand(2, 1)]).unwrap();
    let newer = put(&mut space, &[demand(60, 1)]).unwrap();
    assert_eq!(newer[0].place.segment, 1);
    space.seal(1);
    assert!(!space.may_release(0, u64::MAX), "it is live");
    space.drop_objects(&old);
    assert!(space.may_release(0, old[0].sequence()));
    assert!(!space.may_release(0, old[0].sequence() - 1), "something in it is not covered");
    space.drop_objects(&newer);
    assert!(!space.may_release(1, u64::MAX), "a slot in it is in flight");
    let chosen = checkpoint(&mut space, CheckpointPurpose::Period);
    assert_eq!(chosen.released, [0], "dead ones are released by every checkpoint");
    assert!(!chosen.segments[0].used);
    publish(&mut space, &held, &[]);
    check(&space);
}

#[test]
fn a_failed_checkpoint_releases_nothing() {
    let mut space = space(8, 64, NONE);
    let old = put(&mut space, &[demand(62, 1)]).unwrap();
    space.drop_objects(&old);
    let chosen = space.plan_checkpoint(CheckpointPurpose::Space).unwrap();
    assert_eq!(chosen.released, [0]);
    space.abandon_checkpoint(&chosen);
    assert_eq!(space.segments[0].state, SegmentState::Full);
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Space).released, [0]);
}

#[test]
fn tombstones_count_until_a_commit_covers_them() {
    let mut space = space(8, 64, NONE);
    let mut out = Allocation::default();
    let held = allocate(&mut space, &[demand(2, 1)]).unwrap();
    space.allocate_tombstones(&mut out).unwrap();
    write_headers(&mut space, &out);
    let place = Place { segment: out.slots[0].segment, number: out.slots[0].first_number };
    publish(&mut space, &out, &[]);
    assert_eq!(space.segments[0].tombstones, 1);
    let chosen = space.plan_checkpoint(CheckpointPurpose::Space).unwrap();
    space.end_copy();
    assert_eq!(space.commit_checkpoint(&chosen, 2), [], "the put before it is in flight");
    publish(&mut space, &held, &[]);
    let chosen = space.plan_checkpoint(CheckpointPurpose::Space).unwrap();
    space.end_copy();
    assert_eq!(space.commit_checkpoint(&chosen, 3), [place]);
    assert_eq!(space.segments[0].tombstones, 0);
}

#[test]
fn a_delete_finds_space_in_a_full_store_and_returns_it() {
    let mut space = space(8, 16, NONE);
    while put(&mut space, &[demand(14, 1)]).is_ok() {}
    assert_eq!(space.usage().free, 2);
    let mut out = Allocation::default();
    while out.slots.len() < 20 && space.allocate_tombstones(&mut out).is_ok() {
        write_headers(&mut space, &out);
    }
    assert_eq!(out.slots.len(), 14, "one segment, and the last one is for moves");
    out.slots.iter().zip(&out.objects).for_each(|(slot, object)| {
        space.published(slot, std::slice::from_ref(object), [Outcome::Shown], &[]);
    });
    let delete = space.ask_for_tombstones();
    assert_eq!(space.take_granted(delete), None);
    checkpoint(&mut space, CheckpointPurpose::Space);
    space.end_reclaim(true, space.version());
    let granted = space.take_granted(delete).unwrap();
    assert_eq!(granted.objects.len(), 1);
    assert_eq!(space.take_granted(delete), None);
    check(&space);
}

#[test]
fn no_move_begins_during_a_copy_and_no_copy_during_moves() {
    let (mut space, objects) = one_full(NONE, 8);
    let first = in_first(&objects);
    space.drop_objects(&first[5..]);
    let demands = demands(&first[..5]);
    let plan = space.plan_moves(0, &demands).unwrap();
    assert_eq!(space.plan_checkpoint(CheckpointPurpose::Space), None);
    end_moves(&mut space, plan, &first[..5]);
    let chosen = space.plan_checkpoint(CheckpointPurpose::Space).unwrap();
    assert_eq!(space.plan_moves(1, &demands).unwrap_err(), NoPlan::Copying);
    space.end_copy();
    assert!(chosen.released.contains(&0));
}

#[test]
fn moves_keep_sequences_share_slots_and_carry_what_is_live() {
    let (mut space, objects) = one_full(NONE, 8);
    let (kept, dropped) = (in_first(&objects)[..20].to_vec(), in_first(&objects)[20..].to_vec());
    space.drop_objects(&dropped);
    assert_eq!(space.take_victim(), Some(Victim { segment: 0, kind: VictimKind::Compact }));
    let next = space.next_sequence();
    let plan = space.plan_moves(0, &demands(&kept)).unwrap();
    let [slot] = &plan.allocation.slots[..] else { panic!("they share a slot") };
    assert_eq!((slot.blocks, slot.opened.unwrap().stream), (21, Stream::Kept));
    let target = slot.segment;
    let sequences: Vec<u64> = plan.allocation.objects.iter().map(|of| of.sequence).collect();
    assert!(kept.iter().map(Located::sequence).eq(sequences));
    assert_eq!(space.next_sequence(), next + 1, "that of the segment");
    end_moves(&mut space, plan, &kept);
    assert!(space.segments[0].is_dead());
    assert_eq!(space.segments[target as usize].live.objects, 20);
    check(&space);
}

#[test]
fn a_plan_for_which_there_is_no_space_changes_nothing() {
    let (mut space, objects) = one_full(NONE, 8);
    while space.free.len() > 2 {
        put(&mut space, &[demand(62, 1)]).unwrap();
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    let first = in_first(&objects);
    // Some fill an open segment of moves, so that the plan begins there.
    let plan = space.plan_moves(0, &demands(&first[..20])).unwrap();
    end_moves(&mut space, plan, &first[..20]);
    let before = format!("{:?}{:?}{:?}", space.segments, space.free, space.open);
    let next = space.next_sequence();
    let many = demands(&first[20..]).repeat(4);
    assert_eq!(space.plan_moves(0, &many).unwrap_err(), NoPlan::NoSpace);
    assert_eq!(space.next_sequence(), next);
    let strip = |text: String| text.replace("front: 1", "front: 0");
    let after = format!("{:?}{:?}{:?}", space.segments, space.free, space.open);
    assert_eq!(strip(after), strip(before));
    check(&space);
}

#[test]
fn moves_that_free_too_little_are_not_tried_again() {
    let (mut space, objects) = one_full(NONE, 8);
    let first = in_first(&objects);
    assert_eq!(space.take_victim(), None);
    assert_eq!(space.plan_moves(0, &demands(&first)).unwrap_err(), NoPlan::TooLittle);
    space.drop_objects(&first[..3]);
    assert_eq!(space.take_victim().map(|victim| victim.segment), None, "3 blocks are too few");
    space.drop_objects(&first[3..6]);
    assert_eq!(space.take_victim().map(|victim| victim.segment), Some(0));
}

#[test]
fn an_aborted_move_leaves_everything_where_it_was() {
    let (mut space, objects) = one_full(NONE, 8);
    let first = in_first(&objects);
    space.drop_objects(&first[20..]);
    let plan = space.plan_moves(0, &demands(&first[..20])).unwrap();
    let target = plan.allocation.slots[0].segment;
    write_headers(&mut space, &plan.allocation);
    space.end_moves(plan, &[Outcome::Failed; 20], &[]);
    assert_eq!(space.segments[0].live.objects, 20);
    assert!(space.segments[target as usize].is_dead());
    assert_eq!(space.segments[target as usize].state, SegmentState::Full, "sealed");
    assert!(checkpoint(&mut space, CheckpointPurpose::Space).released.contains(&target));
}

#[test]
fn an_empty_target_of_moves_is_sealed_when_space_is_needed() {
    let (mut space, objects) = one_full(NONE, 8);
    let first = in_first(&objects);
    space.drop_objects(&first[20..]);
    let plan = space.plan_moves(0, &demands(&first[..20])).unwrap();
    let target = plan.allocation.slots[0].segment;
    write_headers(&mut space, &plan.allocation);
    space.end_moves(plan, &[Outcome::Superseded; 20], &[]);
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Period).released, []);
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Space).released, [target]);
}

#[test]
fn a_victim_is_covered_by_the_committed_checkpoint() {
    let mut space = space(8, 64, NONE);
    let objects = put(&mut space, &[demand(2, 36); 54]).unwrap();
    space.seal(0);
    space.drop_objects(&objects[10..]);
    assert_eq!(space.take_victim(), None);
    assert!(space.is_anything_uncovered());
    checkpoint(&mut space, CheckpointPurpose::Whole);
    assert!(!space.is_anything_uncovered());
    assert_eq!(space.take_victim().map(|victim| victim.segment), Some(0));
    space.end_reclaim(true, space.version());
    let plan = space.plan_moves(0, &demands(&objects[..10])).unwrap();
    let target = plan.allocation.slots[0].segment;
    end_moves(&mut space, plan, &objects[..10]);
    space.seal(target);
    space.drop_objects(&objects[..0]);
    assert!(space.is_anything_uncovered(), "its copies have old sequences, but no bits");
}

#[test]
fn a_checkpoint_that_failed_is_wanted_as_much_as_before() {
    let mut space = space(8, 64, NONE);
    space.entries_since_choice = 1 << 17;
    assert!(space.needs_checkpoint(0));
    let chosen = space.plan_checkpoint(CheckpointPurpose::Period).unwrap();
    assert!(!space.needs_checkpoint(0));
    space.end_copy();
    space.abandon_checkpoint(&chosen);
    assert!(space.needs_checkpoint(0));
    checkpoint(&mut space, CheckpointPurpose::Period);
    assert!(!space.needs_checkpoint(0));
}

#[test]
fn draining_segments_count_as_about_to_be_free() {
    let (mut space, _) = one_full(EvictionPolicy::Fifo, 8);
    while space.free.len() > 2 {
        put(&mut space, &[demand(62, 1)]).unwrap();
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    assert!(space.needs_reclaim());
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Reclaim));
    let victim = space.take_victim().unwrap();
    let chosen = space.plan_checkpoint(CheckpointPurpose::Space).unwrap();
    space.end_copy();
    space.commit_checkpoint(&chosen, 9);
    assert!(!space.needs_reclaim(), "it drains");
    assert_eq!(put(&mut space, &[demand(62, 1)]), Err(Shortage::Wait));
    space.left_pinned(victim.segment);
    assert!(space.needs_reclaim(), "a reclaim has to empty it");
    assert_eq!(space.take_to_empty(), Some(victim.segment));
    space.emptied(victim.segment);
    assert_eq!(free(&mut space), [victim.segment]);
    put(&mut space, &[demand(62, 1)]).unwrap();
}

#[test]
fn deletes_without_tombstones_use_the_expected_sequences() {
    let mut space = space(8, 64, NONE);
    for _ in 0..2 {
        let first = space.next_sequence();
        for sequence in first..first + 8 {
            assert_eq!(space.take_sequence_of_delete(), Some(sequence));
        }
        assert_eq!(space.take_sequence_of_delete(), None);
        checkpoint(&mut space, CheckpointPurpose::Period);
    }
    // Those after the choice of a checkpoint count for the next one.
    assert!((0..4).all(|_| space.take_sequence_of_delete().is_some()));
    let chosen = space.plan_checkpoint(CheckpointPurpose::Period).unwrap();
    assert!((0..4).all(|_| space.take_sequence_of_delete().is_some()));
    space.end_copy();
    space.commit_checkpoint(&chosen, space.committed().number + 1);
    assert!((0..4).all(|_| space.take_sequence_of_delete().is_some()));
    assert_eq!(space.take_sequence_of_delete(), None);
}

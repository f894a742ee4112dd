//! Allocation, in-flight changes and failed writes, one rule each.

use super::*;

const NONE: EvictionPolicy = EvictionPolicy::None;

fn many(count: usize, demand: Demand) -> Vec<Demand> {
    vec![demand; count]
}

#[test]
fn objects_share_a_slot_as_far_as_a_header_names_them() {
    let mut space = space(8, 1024, NONE);
    let out = allocate(&mut space, &many(80, demand(2, 36))).unwrap();
    let objects: Vec<usize> = out.slots.iter().map(|slot| slot.objects.len()).collect();
    assert_eq!(objects, [36, 36, 8]);
    let blocks: Vec<(u32, u32)> = out.slots.iter().map(|slot| (slot.block, slot.blocks)).collect();
    assert_eq!(blocks, [(1, 37), (38, 37), (75, 9)]);
    let second = &out.objects_of(&out.slots[1])[0];
    assert_eq!((second.number, second.block, second.blocks_back), (36, 39, 1));
    assert!(out.objects.iter().map(|object| object.sequence).is_sorted_by(|a, b| a < b));
}

#[test]
fn long_metadata_leaves_space_for_fewer_objects_in_a_header() {
    let mut space = space(8, 1024, NONE);
    let long = Demand { names: 1500, payload_len: BLOCK };
    let out = allocate(&mut space, &many(5, long)).unwrap();
    assert_eq!(out.slots.iter().map(|slot| slot.objects.len()).collect::<Vec<_>>(), [2, 2, 1]);
}

#[test]
fn payloads_in_a_shared_slot_have_at_most_4_mib() {
    let mut space = space(8, 4096, NONE);
    let mib = Demand { names: 10, payload_len: 1 << 20 };
    let larger = Demand { names: 10, payload_len: (4 << 20) + 1 };
    let mut demands = vec![larger];
    demands.extend(many(6, mib));
    let out = allocate(&mut space, &demands).unwrap();
    let slots: Vec<Vec<u32>> = out
        .slots
        .iter()
        .map(|slot| out.objects_of(slot).iter().map(|object| object.index).collect())
        .collect();
    assert_eq!(slots, [vec![1, 2, 3, 4], vec![5, 6], vec![0]], "the small ones first");
    assert_eq!(out.slots[2].blocks, 1026);
}

#[test]
fn small_payloads_are_inline_and_empty_ones_use_no_block() {
    let mut space = space(8, 64, NONE);
    let (inline, empty) =
        (Demand { names: 10, payload_len: 4016 - 58 }, Demand { names: 10, payload_len: 0 });
    let larger = Demand { payload_len: inline.payload_len + 1, ..inline };
    let out = allocate(&mut space, &[inline, empty, larger, empty, inline]).unwrap();
    assert_eq!(out.slots.iter().map(|slot| slot.blocks).collect::<Vec<_>>(), [2, 1, 1]);
    let places: Vec<(u32, u32, u32, bool)> = out
        .objects
        .iter()
        .map(|object| (object.index, object.block, object.blocks_back, object.inline))
        .collect();
    let expected = [(1, 1, 0, false), (2, 2, 1, false), (3, 1, 0, false)];
    assert_eq!(places[..3], expected);
    assert_eq!(places[3..], [(0, 3, 0, true), (4, 4, 0, true)]);
}

#[test]
fn a_segment_never_has_more_entries_than_blocks() {
    let mut space = space(8, 64, NONE);
    let empty = Demand { names: 1, payload_len: 0 };
    let out = allocate(&mut space, &many(200, empty)).unwrap();
    assert!(out.slots.len() > 3);
    check(&space);
    let entries = space.segments[0].fill.entries;
    assert!((62..=64).contains(&entries), "{entries}");
}

#[test]
fn slot_and_table_fill_a_segment_to_its_end() {
    let mut space = space(8, 64, NONE);
    let largest = Demand { names: 1, payload_len: 61 * BLOCK };
    let out = allocate(&mut space, &[largest]).unwrap();
    assert_eq!(out.slots[0].blocks, space.shape.largest_slot());
    assert_eq!(space.segments[0].state, SegmentState::Full);
    let too_large = Demand { names: 1, payload_len: 61 * BLOCK + 1 };
    assert_eq!(allocate(&mut space, &[too_large]), Err(Shortage::Full));
    check(&space);
}

#[test]
fn puts_leave_two_segments_and_fail_when_reclaim_finds_nothing() {
    let mut space = space(8, 64, NONE);
    let mut objects = 0;
    let shortage = loop {
        match put(&mut space, &[demand(31, 1)]) {
            Ok(located) => objects += located.len(),
            Err(shortage) => break shortage,
        }
    };
    assert_eq!(shortage, Shortage::Reclaim);
    assert_eq!(space.usage().free, 2);
    assert_eq!(objects, 12);
    checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(space.take_victim(), None, "nothing in it is garbage");
    space.end_reclaim(false, space.version());
    assert_eq!(put(&mut space, &[demand(31, 1)]), Err(Shortage::Full));
    assert!(!space.needs_reclaim());
    check(&space);
}

#[test]
fn a_reclaim_during_which_something_changed_is_not_the_last() {
    let mut space = space(8, 64, NONE);
    while put(&mut space, &[demand(31, 1)]).is_ok() {}
    checkpoint(&mut space, CheckpointPurpose::Space);
    let since = space.version();
    assert_eq!(space.take_victim(), None);
    space.changed();
    space.end_reclaim(false, since);
    assert_eq!(put(&mut space, &[demand(31, 1)]), Err(Shortage::Reclaim));
}

#[test]
fn a_reclaim_that_needs_no_victim_does_not_make_the_store_full() {
    let mut space = space(8, 64, NONE);
    while space.free.len() > space.wanted_free() as usize {
        put(&mut space, &[demand(61, 1)]).unwrap();
    }
    checkpoint(&mut space, CheckpointPurpose::Space);
    space.end_reclaim(false, space.version());
    put(&mut space, &[demand(61, 1)]).unwrap();
    assert_eq!(put(&mut space, &[demand(61, 1)]), Err(Shortage::Reclaim));
}

#[test]
fn a_reclaim_counts_segments_that_puts_took_concurrently() {
    let mut space = space(8, 64, NONE);
    let mut objects = Vec::new();
    while let Ok(located) = put(&mut space, &[demand(61, 1)]) {
        objects.extend(located);
    }
    checkpoint(&mut space, CheckpointPurpose::Space);
    space.drop_objects(&objects[..1]);
    assert!(space.take_victim().is_some());
    checkpoint(&mut space, CheckpointPurpose::Space);
    put(&mut space, &[demand(61, 1)]).unwrap();
    space.end_reclaim(true, space.version());
    assert_eq!((space.usage().free, space.reclaims_without_gain), (2, 0));
}

#[test]
fn a_slot_goes_to_the_fullest_segment_that_fits() {
    let mut space = space(128, 64, NONE);
    put(&mut space, &[demand(40, 1)]).unwrap();
    let second = put(&mut space, &[demand(30, 1)]).unwrap()[0].place.segment;
    let third = put(&mut space, &[demand(50, 1)]).unwrap()[0].place.segment;
    assert_eq!(put(&mut space, &[demand(20, 1)]).unwrap()[0].place.segment, 0);
    assert_eq!(put(&mut space, &[demand(20, 1)]).unwrap()[0].place.segment, second);
    assert_eq!(put(&mut space, &[demand(5, 1)]).unwrap()[0].place.segment, second, "full by one");
    put(&mut space, &[demand(60, 1)]).unwrap();
    assert_eq!(space.open_in(Stream::New).len(), 4);
    put(&mut space, &[demand(60, 1)]).unwrap();
    assert_eq!(space.open_in(Stream::New).len(), 4);
    assert!(space.open_in(Stream::New).contains(&third), "not the fullest");
    check(&space);
}

#[test]
fn nothing_is_allocated_far_past_an_incomplete_slot() {
    let mut space = space(8, 1024, NONE);
    space.shape.window = 10;
    let first = allocate(&mut space, &[demand(5, 1)]).unwrap();
    let second = allocate(&mut space, &[demand(8, 1)]).unwrap();
    assert_eq!(allocate(&mut space, &[demand(2, 1)]), Err(Shortage::Wait), "13 blocks past it");
    publish(&mut space, &second, &[]);
    assert_eq!(allocate(&mut space, &[demand(2, 1)]), Err(Shortage::Wait), "the first is lowest");
    publish(&mut space, &first, &[]);
    let third = allocate(&mut space, &[demand(2, 1)]).unwrap();
    assert_eq!(third.slots[0].block, 14);
    assert_eq!(allocate(&mut space, &[demand(11, 1)]), Err(Shortage::Wait), "larger than that");
    publish(&mut space, &third, &[]);
    allocate(&mut space, &[demand(11, 1)]).unwrap();
}

#[test]
fn a_checkpoint_covers_all_below_the_oldest_change_in_flight() {
    let mut space = space(8, 1024, NONE);
    let first = allocate(&mut space, &many(3, demand(2, 36))).unwrap();
    let second = allocate(&mut space, &many(2, demand(2, 36))).unwrap();
    let oldest = first.objects[0].sequence;
    assert_eq!(space.coverable(), oldest - 1);
    publish(&mut space, &second, &[]);
    assert_eq!(space.coverable(), oldest - 1);
    publish(&mut space, &first, &[]);
    assert_eq!(space.coverable(), space.next_sequence() - 1);
    assert!(space.is_idle());
}

#[test]
fn what_failed_is_written_elsewhere_with_its_old_sequence() {
    let mut space = space(8, 1024, NONE);
    let out = allocate(&mut space, &many(3, demand(2, 36))).unwrap();
    let (slot, failed) = (&out.slots[0], out.objects[1]);
    let outcomes = [Outcome::Shown, Outcome::Failed, Outcome::Superseded];
    space.published(slot, &out.objects, outcomes, &[]);
    assert_eq!(space.segments[0].state, SegmentState::Full, "sealed");
    assert_eq!(space.segments[0].live.objects, 1);
    assert_eq!(space.coverable(), out.objects[0].sequence - 1, "still in flight");

    let AllocatedObject { index, demand: of, sequence, .. } = failed;
    let mut retries = vec![Retry { index, demand: of, sequence }];
    let mut again = Allocation::default();
    space.allocate_again(slot, &mut retries, &mut again).unwrap();
    write_headers(&mut space, &again);
    assert!(retries.is_empty());
    assert_ne!(again.slots[0].segment, slot.segment);
    assert_eq!((again.objects[0].index, again.objects[0].sequence), (1, sequence));
    assert_eq!(space.coverable(), out.objects[0].sequence - 1);
    publish(&mut space, &again, &[]);
    assert!(space.is_idle());
    assert_eq!(space.coverable(), space.next_sequence() - 1);
}

#[test]
fn objects_that_fail_for_good_are_no_longer_in_flight() {
    let mut space = space(8, 1024, NONE);
    let out = allocate(&mut space, &many(2, demand(2, 36))).unwrap();
    space.published(&out.slots[0], &out.objects, [Outcome::Failed, Outcome::Failed], &[]);
    space.give_up(&out.slots[0], 1);
    assert!(!space.is_idle());
    space.give_up(&out.slots[0], 1);
    assert!(space.is_idle());
    assert_eq!(space.usage().payload_bytes, 0);
}

#[test]
fn the_second_confirmed_error_puts_a_segment_into_quarantine() {
    let mut space = space(8, 64, NONE);
    let out = allocate(&mut space, &many(2, demand(2, 1))).unwrap();
    let [first, second] = &out.slots[..] else { unreachable!() };
    for slot in [first, second] {
        space.published(slot, out.objects_of(slot), [Outcome::Failed], &[]);
        space.give_up(slot, 1);
    }
    assert!(!space.confirm_error(0, first.generation));
    assert!(space.confirm_error(0, second.generation));
    let chosen = checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(chosen.released, [0]);
    assert!(chosen.segments[0].bad && !chosen.segments[0].used);
    assert_eq!(space.segments[0].state, SegmentState::Bad);
    assert_eq!((space.usage().bad, space.usage().free), (1, 7));
    check(&space);
}

/// Opens segment 0 once more, fails a slot in it, and releases it. Returns its generation.
fn fail_and_release(space: &mut Space) -> u64 {
    space.free.retain(|&number| number != 0);
    space.free.push_front(0);
    let out = allocate(space, &[demand(2, 1)]).unwrap();
    let slot = &out.slots[0];
    assert_eq!(slot.segment, 0);
    space.published(slot, &out.objects, [Outcome::Failed], &[]);
    space.give_up(slot, 1);
    slot.generation
}

#[test]
fn errors_of_two_generations_in_a_row_count_together() {
    let mut space = space(8, 64, NONE);
    let first = fail_and_release(&mut space);
    assert!(!space.confirm_error(0, first));
    checkpoint(&mut space, CheckpointPurpose::Space);
    let second = fail_and_release(&mut space);
    assert!(space.confirm_error(0, second));
    checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(space.segments[0].state, SegmentState::Bad);
    check(&space);
}

#[test]
fn an_error_before_a_generation_without_one_does_not_count() {
    let mut space = space(8, 64, NONE);
    for _ in 0..4 {
        let generation = fail_and_release(&mut space);
        checkpoint(&mut space, CheckpointPurpose::Space);
        // It is confirmed after the segment was released.
        assert!(!space.confirm_error(0, generation));
        fail_and_release(&mut space);
        checkpoint(&mut space, CheckpointPurpose::Space);
    }
    assert_eq!(space.usage().bad, 0);
}

#[test]
fn nothing_counts_in_a_segment_whose_header_failed() {
    let mut space = space(8, 64, NONE);
    let (mut batch, mut out) = (Batch::default(), Allocation::default());
    batch.fill(&space.shape, [demand(2, 1)]);
    space.allocate(&mut batch, &mut out).unwrap();
    let (slot, opened) = (&out.slots[0], out.slots[0].opened.unwrap());
    assert_eq!((slot.header, opened.checkpoint), (HeaderState::Writing, 1));
    let other = allocate(&mut space, &[demand(2, 1)]).unwrap();
    assert_eq!(other.slots[0].opened, None, "another caller writes it");
    space.header_written(&opened, false);
    assert_eq!(space.header_of(slot), HeaderState::Failed);
    for out in [&out, &other] {
        space.published(&out.slots[0], &out.objects, [Outcome::Failed], &[]);
        space.give_up(&out.slots[0], 1);
    }
    assert_eq!(space.segments[0].state, SegmentState::Full);
    assert_eq!(checkpoint(&mut space, CheckpointPurpose::Space).released, [0]);
}

#[test]
fn a_large_store_keeps_a_segment_open_ahead() {
    let mut space = space(64, 64, NONE);
    let ahead = space.open_ahead().unwrap();
    assert_eq!(space.open_ahead(), None, "one is enough");
    space.header_written(&ahead, true);
    let out = allocate(&mut space, &[demand(2, 1)]).unwrap();
    assert_eq!((out.slots[0].segment, out.slots[0].opened), (ahead.segment, None));
    assert_eq!(out.slots[0].header, HeaderState::Written);
    let failed = space.open_ahead().unwrap();
    space.header_written(&failed, false);
    check(&space);
    assert!(space.open_ahead().is_some(), "the one that failed is none");
}

#[test]
fn a_late_report_is_not_counted_in_a_new_generation() {
    let mut space = space(8, 64, EvictionPolicy::Fifo);
    let old = put(&mut space, &[demand(62, 1)]).unwrap();
    // It has replaced the object in the index, and has not reported that.
    let late = allocate(&mut space, &[demand(2, 1)]).unwrap();
    checkpoint(&mut space, CheckpointPurpose::Whole);
    let covered = space.committed().covered;
    assert!(covered >= old[0].sequence());
    let victim = Victim { segment: 0, kind: VictimKind::Evict };
    assert_eq!(space.take_victim(), Some(victim));
    checkpoint(&mut space, CheckpointPurpose::Space);
    assert_eq!(space.segments[0].state, SegmentState::Draining);
    assert_eq!(free(&mut space), []);
    publish(&mut space, &late, &old);
    assert_eq!(free(&mut space), [0]);
}

#[test]
fn objects_without_payload_count_as_a_block_each() {
    let mut space = space(8, 64, NONE);
    let demand = Demand { names: 8, payload_len: 0 };
    put(&mut space, &vec![demand; 60]).unwrap();
    // A segment has no more entries than blocks, so moving them together frees nothing.
    assert_eq!(space.segments[0].live.blocks_together(&space.shape), 60);
}

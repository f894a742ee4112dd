//! What a clear waits for, and what it releases.

use super::*;

const NONE: EvictionPolicy = EvictionPolicy::None;

#[test]
fn a_clear_releases_what_is_live_and_keeps_what_is_newer() {
    let mut space = space(8, 64, NONE);
    let older = put(&mut space, &[demand(20, 1); 5]).unwrap();
    let in_flight = allocate(&mut space, &[demand(2, 1)]).unwrap();
    let before = space.seal_all().unwrap();
    assert!(!space.is_settled_before(before));
    let newer = put(&mut space, &[demand(20, 1)]).unwrap();
    publish(&mut space, &in_flight, &[]);
    assert!(space.is_settled_before(before));
    check(&space);
    let chosen = space.plan_checkpoint(CheckpointPurpose::Clear { before }).unwrap();
    space.end_copy();
    let mut cleared: Vec<u32> = older.iter().map(|object| object.place.segment).collect();
    cleared.extend(in_flight.slots.iter().map(|slot| slot.segment));
    cleared.sort_unstable();
    cleared.dedup();
    assert_eq!(chosen.released, cleared);
    assert!(!cleared.contains(&newer[0].place.segment));
    space.commit_checkpoint(&chosen, 2);
    assert_eq!(space.take_all_to_empty(before), (Vec::new(), cleared), "the commit empties them");
}

#[test]
fn a_clear_begins_when_no_delete_has_space_that_it_was_granted() {
    let mut space = space(8, 64, NONE);
    let delete = space.ask_for_tombstones();
    space.end_reclaim(true, space.version());
    assert!(space.is_anything_granted());
    assert_eq!(space.seal_all(), None, "its thread may wait for a reclaim");
    let granted = space.take_granted(delete).unwrap();
    write_headers(&mut space, &granted);
    let before = space.seal_all().unwrap();
    assert!(!space.is_settled_before(before));
    publish(&mut space, &granted, &[]);
    assert!(space.is_settled_before(before));
}

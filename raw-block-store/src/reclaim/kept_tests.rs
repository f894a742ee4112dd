//! What a store that evicts keeps.

use crate::options::EvictionPolicy;
use crate::reclaim::fixture::{Fixture, SEGMENT};
use crate::state::index::Place;

/// Bytes of a payload that lies in its header: copies of such objects take as many blocks as
/// before.
const LEN: usize = 300;
/// Objects in a segment: its header and its table take the other blocks.
const OBJECTS: u64 = SEGMENT - 8;

fn put(fixture: &Fixture, key: u64) {
    fixture.put(key, LEN, 1).unwrap();
}

fn place(fixture: &Fixture, key: u64) -> Option<Place> {
    fixture.locate(key).map(|object| object.place)
}

fn note_use(fixture: &Fixture, key: u64) {
    let now = fixture.state.policy.now();
    fixture.state.index.note_use(place(fixture, key).unwrap(), now);
}

#[test]
fn what_is_moved_to_compact_keeps_when_it_was_used() {
    let fixture = Fixture::new(32, EvictionPolicy::Lru);
    let keys = 20 * OBJECTS;
    (0..keys).for_each(|key| put(&fixture, key));
    note_use(&fixture, 1);
    note_use(&fixture, 1);
    let before = place(&fixture, 1).unwrap();
    let stamp = fixture.state.index.stamp(before);
    assert!(stamp.used && stamp.uses == 2);
    let mut rounds = 0;
    while place(&fixture, 1) == Some(before) {
        (0..keys).filter(|key| key % 3 != 1).for_each(|key| put(&fixture, key));
        rounds += 1;
        assert!(rounds < 10, "it is not moved");
    }
    assert_eq!(fixture.state.index.stamp(place(&fixture, 1).unwrap()), stamp);
    assert_eq!(fixture.state.counters.evictions.get(), 0);
}

#[test]
fn a_segment_whose_objects_are_all_used_stays_where_it_is() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
        let fixture = Fixture::new(32, policy);
        (0..4 * 32 * OBJECTS).for_each(|key| {
            if key >= OBJECTS && key.is_multiple_of(8) {
                (0..OBJECTS).for_each(|used| note_use(&fixture, used));
            }
            put(&fixture, key);
        });
        assert!((0..OBJECTS).all(|key| place(&fixture, key).is_some()), "{policy:?}");
        assert_eq!(fixture.state.counters.moves.get(), 0, "{policy:?}");
        if policy == EvictionPolicy::Lru {
            // It is evicted like all others when it is not used any more.
            (0..2 * 32 * OBJECTS).for_each(|key| put(&fixture, 100_000 + key));
            assert_eq!(place(&fixture, 0), None);
        }
    }
}

#[test]
fn a_store_whose_objects_are_all_used_evicts_nevertheless() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
        let fixture = Fixture::new(16, policy);
        for key in 0..3 * 16 * OBJECTS {
            put(&fixture, key);
            if key.is_multiple_of(16) {
                let live = (0..=key).filter(|&key| place(&fixture, key).is_some());
                live.for_each(|key| note_use(&fixture, key));
            }
        }
        assert!(fixture.state.counters.evictions.get() > 16 * OBJECTS, "{policy:?}");
    }
}

#[test]
fn moves_of_what_is_used_are_paid_for_by_puts() {
    let fixture = Fixture::new(64, EvictionPolicy::Lru);
    let mut next = 0;
    let mut turn = |fixture: &Fixture| {
        for _ in 0..64 * OBJECTS {
            put(fixture, next);
            // One of two is used, as soon as it is there and again later.
            for key in [next, next.saturating_sub(30 * OBJECTS)] {
                if key % 2 == 0 && place(fixture, key).is_some() {
                    note_use(fixture, key);
                }
            }
            next += 1;
        }
    };
    (0..3).for_each(|_| turn(&fixture));
    let before = fixture.state.counters.moves.get();
    (0..4).for_each(|_| turn(&fixture));
    let moves = fixture.state.counters.moves.get() - before;
    let puts = 4 * 64 * OBJECTS;
    assert!((puts / 8..=puts * 27 / 100).contains(&moves), "{moves} for {puts} puts");
}

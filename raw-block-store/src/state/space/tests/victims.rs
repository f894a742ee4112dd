//! Which segments are reclaimed, and what is done with them.

use super::*;

#[test]
fn a_crowded_store_prefers_dead_then_garbage_then_the_oldest() {
    let mut space = space(64, 64, EvictionPolicy::Lru);
    let segments: Vec<Vec<Located>> = (0..58)
        .map(|_| {
            let objects = put(&mut space, &[demand(2, 36); 54]).unwrap();
            space.seal(objects[0].place.segment);
            objects
        })
        .collect();
    checkpoint(&mut space, CheckpointPurpose::Whole);
    space.drop_objects(&segments[1][..20]);
    space.drop_objects(&segments[2][..30]);
    space.drop_objects(&segments[3][..40]);
    space.drop_objects(&segments[4]);
    let victims: Vec<_> = std::iter::from_fn(|| space.take_victim())
        .map(|of| (of.segment, of.kind))
        .take(5)
        .collect();
    use VictimKind::{Compact, Dead, Evict};
    assert_eq!(victims, [(4, Dead), (3, Compact), (2, Compact), (0, Evict), (1, Evict)]);
}

#[test]
fn an_uncrowded_store_compacts_segments_with_a_sixth_of_garbage() {
    let mut space = space(64, 64, EvictionPolicy::Lru);
    for _ in 0..10 {
        let objects = put(&mut space, &[demand(2, 36); 54]).unwrap();
        space.seal(objects[0].place.segment);
        let dropped = if objects[0].place.segment == 7 { 20 } else { 11 };
        space.drop_objects(&objects[..dropped]);
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    let compacted = Victim { segment: 7, kind: VictimKind::Compact };
    assert_eq!(space.take_victim(), Some(compacted));
}

/// A store with 54 full segments of 64, half of each garbage.
fn half_garbage() -> (Space, Vec<Located>) {
    let mut space = space(64, 64, EvictionPolicy::Lru);
    let mut objects = Vec::new();
    for _ in 0..54 {
        objects.extend(put(&mut space, &[demand(2, 36); 54]).unwrap());
        space.seal(objects[objects.len() - 1].place.segment);
    }
    assert!(space.is_crowded());
    let (dropped, left) = objects.chunks(27).partition::<Vec<_>, _>(|of| of[0].place.number == 0);
    dropped.into_iter().for_each(|objects| space.drop_objects(objects));
    let left = left.concat();
    checkpoint(&mut space, CheckpointPurpose::Whole);
    (space, left)
}

#[test]
fn a_crowded_store_compacts_only_what_is_paid_for() {
    let (mut space, left) = half_garbage();
    for segment in [5, 6, 7] {
        let of_segment = left.iter().filter(|object| object.place.segment == segment);
        space.drop_objects(&of_segment.take(9).copied().collect::<Vec<_>>());
    }
    assert_eq!(space.take_victim(), Some(Victim { segment: 5, kind: VictimKind::Compact }));
    space.budget.spend(100_000);
    assert_eq!(space.take_victim(), Some(Victim { segment: 0, kind: VictimKind::Evict }));
    put(&mut space, &[demand(60, 1)]).unwrap();
    assert_eq!(space.take_victim(), Some(Victim { segment: 1, kind: VictimKind::Evict }));
    (0..400).for_each(|_| space.budget.earn(60));
    assert_eq!(space.take_victim(), Some(Victim { segment: 6, kind: VictimKind::Compact }));
    (2..5).for_each(|segment| space.segments[segment].victim = true);
    // It is the oldest now: what is in it is evicted.
    (5..7).for_each(|segment| space.spare_victim(segment));
    assert_eq!(space.take_victim(), Some(Victim { segment: 5, kind: VictimKind::Evict }));
}

#[test]
fn deletes_make_a_store_crowded_no_more() {
    let (mut space, left) = half_garbage();
    assert!(space.is_crowded(), "what was replaced or evicted may be put again");
    space.note_deleted(&left[..left.len() / 2]);
    assert!(!space.is_crowded());
}

#[test]
fn a_segment_that_is_kept_as_it_is_is_the_youngest() {
    let mut space = space(64, 64, EvictionPolicy::Lru);
    for _ in 0..54 {
        let objects = put(&mut space, &[demand(2, 36); 54]).unwrap();
        space.seal(objects[0].place.segment);
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    assert_eq!(space.take_victim(), Some(Victim { segment: 0, kind: VictimKind::Evict }));
    space.keep_whole(0);
    space.spare_victim(0);
    let victims: Vec<u32> =
        std::iter::from_fn(|| space.take_victim()).map(|of| of.segment).collect();
    assert!(victims.iter().copied().eq((1..54).chain([0])), "{victims:?}");
}

#[test]
fn an_open_segment_that_is_the_oldest_is_sealed() {
    let mut space = space(128, 64, EvictionPolicy::Fifo);
    let old = put(&mut space, &[demand(40, 1)]).unwrap()[0].place.segment;
    for _ in 0..110 {
        let full = put(&mut space, &[demand(60, 1)]).unwrap()[0].place.segment;
        space.seal(full);
    }
    checkpoint(&mut space, CheckpointPurpose::Whole);
    assert_eq!(space.segments[old as usize].state, SegmentState::Open);
    let victim = space.take_victim().unwrap();
    assert_eq!((victim.segment, victim.kind), (old, VictimKind::Evict));
}

#[test]
fn kept_segments_may_grow_to_nine_tenths_with_s3_fifo() {
    let mut space = space(32, 64, EvictionPolicy::S3Fifo);
    let fill = |space: &mut Space, stream: Stream| {
        let objects = put(space, &[demand(2, 36); 54]).unwrap();
        let segment = objects[0].place.segment;
        space.seal(segment);
        space.segments[segment as usize].stream = stream;
        segment
    };
    let kept: Vec<u32> = (0..18).map(|_| fill(&mut space, Stream::Kept)).collect();
    let new: Vec<u32> = (0..3).map(|_| fill(&mut space, Stream::New)).collect();
    checkpoint(&mut space, CheckpointPurpose::Whole);
    let mut victim = || space.take_victim().unwrap().segment;
    assert_eq!([victim(), victim()], [new[0], kept[0]]);
}

#[test]
fn overwriting_a_store_that_is_70_percent_full_evicts_nothing() {
    use EvictionPolicy::{Fifo, Lru, S3Fifo};
    for (segments, eviction) in [(32, Fifo), (64, Lru), (32, S3Fifo)] {
        let mut store = simulation::Simulation::new(1, (segments, 64), eviction, 36);
        let keys = u64::from(segments) * 62 * 7 / 10;
        for key in (0..keys).step_by(30) {
            let batch: Vec<(u64, u32)> = (key..keys.min(key + 30)).map(|key| (key, 2)).collect();
            assert!(store.put(&batch));
        }
        let batches = 4 * u64::from(segments);
        for _ in 0..batches {
            let mut batch: Vec<(u64, u32)> = (0..30).map(|_| (store.rng.u64(..keys), 2)).collect();
            batch.sort_unstable();
            batch.dedup();
            assert!(store.put(&batch));
        }
        store.check();
        assert_eq!((store.evicted, store.index.len() as u64), (0, keys), "{segments} segments");
        assert!(store.moved < batches * 30 * 2, "{segments} segments: {} moved", store.moved);
    }
}

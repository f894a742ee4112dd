use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;

use super::run::*;
use super::*;
use crate::checkpoint;
use crate::options::{EvictionPolicy, OpenOptions};
use crate::reclaim::fixture::{BLOCK, Fixture, SEGMENT};
use crate::state::index::Located;
use crate::state::space::CheckpointPurpose;
use crate::stats::health::HealthState;

/// Bytes of a payload that takes three blocks of a slot of four.
const LEN: usize = 3 * BLOCK - 36;

/// Bytes of a payload that lies in its header: moving such objects gains nothing.
const INLINE: usize = 300;

fn fill(key: u64) -> u8 {
    (key % 251) as u8 + 1
}

fn put(fixture: &Fixture, key: u64) {
    fixture.put(key, LEN, fill(key)).unwrap();
}

/// Puts keys from `first` on until the store is full, and returns the next key.
fn fill_up(fixture: &Fixture, first: u64) -> u64 {
    for key in first.. {
        if fixture.put(key, LEN, fill(key)).is_err() {
            return key;
        }
    }
    unreachable!("the store is never full")
}

fn full_checks(fixture: &Fixture, keys: impl IntoIterator<Item = u64>) {
    for key in keys {
        assert_eq!(fixture.get(key), Some(fill(key)), "key {key}");
    }
}

fn free(fixture: &Fixture) -> u64 {
    fixture.state.with_space(|space| space.usage().free)
}

#[test]
fn a_store_that_does_not_evict_is_full_and_keeps_everything() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0);
    full_checks(&fixture, 0..end);
    assert_eq!(fixture.state.counters.evictions.get(), 0);
    let live = end * 4 * BLOCK as u64;
    let all = 16 * SEGMENT * BLOCK as u64;
    assert!(live * 2 > all, "only {live} of {all} bytes");
}

#[test]
fn deleted_and_overwritten_space_is_put_again_by_compaction() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0) * 9 / 10;
    (end..end * 2).for_each(|key| fixture.delete(key));
    for round in 0..4 {
        for key in (0..end).filter(|key| key % 3 == 0) {
            fixture.put(key, LEN, fill(key)).unwrap_or_else(|error| panic!("{round}: {error}"));
        }
    }
    full_checks(&fixture, 0..end);
    assert!(fixture.state.counters.moves.get() > 0);
    assert_eq!(fixture.state.counters.evictions.get(), 0);
}

#[test]
fn copies_share_slots_and_keep_their_sequences() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0);
    let before: Vec<Located> = (0..end).map(|key| fixture.locate(key).unwrap()).collect();
    for key in (0..end).filter(|key| key % 2 == 0) {
        fixture.delete(key);
        make_space(&fixture.state).unwrap();
    }
    let after: Vec<Located> =
        (0..end).filter(|key| key % 2 == 1).map(|key| fixture.locate(key).unwrap()).collect();
    let before = before.into_iter().skip(1).step_by(2);
    let mut moved = 0;
    for (before, after) in before.zip(&after) {
        assert_eq!(before.sequence(), after.sequence());
        moved += u32::from(before.place != after.place);
    }
    assert!(moved > 0);
    assert!(
        after.iter().any(|object| object.entry.blocks_back.get() > 1),
        "no copies share a slot"
    );
    full_checks(&fixture, (0..end).filter(|key| key % 2 == 1));
}

#[test]
fn a_full_cache_evicts_the_oldest_and_no_more_than_it_needs() {
    let fixture = Fixture::new(16, EvictionPolicy::Fifo);
    let puts = 3 * 16 * SEGMENT;
    (0..puts).for_each(|key| fixture.put(key, INLINE, fill(key)).unwrap());
    let kept = (0..puts).filter(|&key| fixture.get(key).is_some()).count() as u64;
    assert_eq!(kept, fixture.state.index.len());
    full_checks(&fixture, puts - kept..puts);
    assert_eq!(fixture.state.counters.evictions.get(), puts - kept);
    // All but the reserve, one segment that is free besides, and one that is open.
    assert!(kept >= 11 * (SEGMENT - 8), "{kept} objects are kept");
}

#[test]
fn overwrites_evict_nothing_while_superseded_space_suffices() {
    let fixture = Fixture::new(32, EvictionPolicy::Lru);
    let keys = 32 * SEGMENT / 4 * 7 / 10;
    for _ in 0..6 {
        (0..keys).for_each(|key| put(&fixture, key));
    }
    assert_eq!(fixture.state.counters.evictions.get(), 0);
    full_checks(&fixture, 0..keys);
}

#[test]
fn what_was_used_is_moved_before_its_segment_is_evicted() {
    let fixture = Fixture::new(16, EvictionPolicy::Lru);
    let used = |key: u64| key.is_multiple_of(8);
    let mut key = 0;
    while fixture.state.counters.evictions.get() < 100 {
        put(&fixture, key);
        let now = fixture.state.policy.now();
        for key in (key.saturating_sub(150)..=key).filter(|&key| used(key)) {
            if let Some(object) = fixture.locate(key) {
                fixture.state.index.note_use(object.place, now);
            }
        }
        key += 1;
    }
    assert!(fixture.state.counters.moves.get() > 0);
    let there = |wanted: bool| {
        let keys = (0..key).filter(|&key| used(key) == wanted);
        let (mut there, mut all) = (0_u32, 0_u32);
        for key in keys {
            all += 1;
            there += u32::from(fixture.get(key) == Some(fill(key)));
        }
        f64::from(there) / f64::from(all)
    };
    assert!(
        there(true) > there(false),
        "{} of the used, {} of the others",
        there(true),
        there(false)
    );
}

#[test]
fn a_pinned_object_is_moved_and_never_evicted() {
    let fixture = Fixture::new(16, EvictionPolicy::Fifo);
    put(&fixture, 0);
    let object = fixture.locate(0).unwrap();
    let pin = fixture.state.with_space(|space| space.pin(&object));
    (1..1000).for_each(|key| put(&fixture, key));
    let now = fixture.locate(0).unwrap();
    assert_ne!(now.place, object.place);
    let (pinned, guard) = fixture.state.read_pinned(pin).unwrap();
    assert_eq!(pinned.place, now.place);
    drop(guard);
    assert_eq!(fixture.get(0), Some(fill(0)));
    fixture.state.unpin(pin);
    (1000..2000).for_each(|key| put(&fixture, key));
    assert_eq!(fixture.get(0), None);
}

#[test]
fn a_segment_is_not_reused_while_it_is_read() {
    let fixture = Fixture::new(16, EvictionPolicy::Fifo);
    let since = fixture.state.readers.begin();
    fixture.put(0, INLINE, fill(0)).unwrap();
    let object = fixture.locate(0).unwrap();
    let guard = fixture.state.read_segment(object.place.segment, since).unwrap();
    let generation = guard.generation;
    let offset = fixture.state.layout.block_offset(object.place.segment, object.entry.block.get());
    let before = fixture.device.peek(offset, BLOCK);
    let waits = (1..3000).find(|&key| fixture.put(key, INLINE, fill(key)).is_err());
    assert!(waits.is_some(), "no put waits for the get");
    assert_eq!(fixture.locate(0), None);
    assert_eq!(fixture.device.peek(offset, BLOCK), before);
    drop(guard);
    (3000..6000).for_each(|key| fixture.put(key, INLINE, fill(key)).unwrap());
    assert!(fixture.state.readers.generation(object.place.segment) > generation);
}

#[test]
fn a_failed_copy_leaves_every_object_where_it_was() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0);
    let kept: Vec<u64> = (0..end).filter(|key| key % 2 == 1).collect();
    (0..end).step_by(2).for_each(|key| fixture.delete(key));
    let before: Vec<_> = kept.iter().map(|&key| fixture.locate(key).unwrap().place).collect();
    fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EIO));
    assert!(make_space(&fixture.state).is_err());
    let after: Vec<_> = kept.iter().map(|&key| fixture.locate(key).unwrap().place).collect();
    assert_eq!(before, after);
    assert_eq!(fixture.state.counters.evictions.get(), 0);
    fixture.device.clear_faults();
    make_space(&fixture.state).unwrap();
    put(&fixture, end);
    full_checks(&fixture, kept);
}

#[test]
fn copies_of_a_segment_are_published_all_or_none() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0);
    let mut kept: Vec<u64> = (0..end).collect();
    let (mut failed, mut moved) = (0, 0);
    for round in 0..end / 2 {
        fixture.delete(kept.remove(usize::try_from(round * 7).unwrap() % kept.len()));
        let before: Vec<_> = kept.iter().map(|&key| fixture.locate(key).unwrap().place).collect();
        let one_write = DeviceFault::fail(OpKind::Write, libc::EIO).nth(round % 5);
        fixture.device.inject(one_write);
        failed += u32::from(make_space(&fixture.state).is_err());
        fixture.device.clear_faults();
        let mut stayed = HashMap::new();
        for (&key, before) in kept.iter().zip(before) {
            let stays = fixture.locate(key).unwrap().place == before;
            moved += u32::from(!stays);
            let of_segment = *stayed.entry(before.segment).or_insert(stays);
            assert_eq!(of_segment, stays, "only some objects of segment {} moved", before.segment);
        }
    }
    assert!(moved > 0, "{failed} failures");
    full_checks(&fixture, kept);
}

#[test]
fn a_device_that_refuses_writes_makes_nothing_leave_the_store() {
    let fixture = Fixture::new(16, EvictionPolicy::Lru);
    (0..600).for_each(|key| put(&fixture, key));
    let (len, evicted) = (fixture.state.index.len(), fixture.state.counters.evictions.get());
    fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EPERM));
    for _ in 0..20 {
        assert!(make_space(&fixture.state).is_err());
    }
    assert_eq!(fixture.state.index.len(), len);
    assert_eq!(fixture.state.counters.evictions.get(), evicted);
    assert_ne!(fixture.state.health.get().state, HealthState::Healthy);
    fixture.device.clear_faults();
    (600..1200).for_each(|key| put(&fixture, key));
    assert_eq!(fixture.state.health.get().state, HealthState::Healthy);
}

/// Flips a bit of the payload of a key on the device.
fn damage(fixture: &Fixture, key: u64) {
    let object = fixture.locate(key).unwrap();
    let layout = &fixture.state.layout;
    let offset = layout.block_offset(object.place.segment, object.entry.block.get());
    let mut block = fixture.device.peek(offset, BLOCK);
    block[7] ^= 1;
    fixture.device.poke(offset, &block);
}

#[test]
fn a_damaged_object_stays_damaged_when_it_is_moved() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0);
    let key = 1;
    let before = fixture.locate(key).unwrap();
    damage(&fixture, key);
    (0..end).step_by(2).for_each(|key| {
        fixture.delete(key);
        make_space(&fixture.state).unwrap();
    });
    let after = fixture.locate(key).unwrap();
    assert_ne!(after.place, before.place);
    assert!(fixture.state.index.is_damaged(after.place));
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fixture.get(key)));
    assert!(read.is_err(), "its checksum matches");
    assert_eq!(fixture.state.counters.failed_checks.get(), 1);
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_segment_alone() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let end = fill_up(&fixture, 0);
    let object = fixture.locate(1).unwrap();
    let layout = &fixture.state.layout;
    let offset = layout.block_offset(object.place.segment, object.entry.block.get());
    let range = offset..offset + BLOCK as u64;
    fixture.device.inject(DeviceFault::fail(OpKind::Read, libc::EIO).within(range));
    for key in (0..end).step_by(2) {
        fixture.delete(key);
        make_space(&fixture.state).unwrap();
    }
    assert_eq!(fixture.locate(1), Some(object), "it stays");
    let mut next = end;
    while fixture.put(next, LEN, fill(next)).is_ok() {
        next += 1;
    }
    assert!(next - end > end / 4, "only {} of {end} could be put again", next - end);
    fixture.device.clear_faults();
    full_checks(&fixture, (1..end).step_by(2).chain(end..next));
}

#[test]
fn long_objects_are_moved_in_parts() {
    let fixture = Fixture::new(16, EvictionPolicy::None);
    let len = 20 * BLOCK - 5;
    let mut end = 0;
    while fixture.put(end, len, fill(end)).is_ok() {
        end += 1;
    }
    for key in (0..end).step_by(2) {
        fixture.delete(key);
        make_space(&fixture.state).unwrap();
    }
    full_checks(&fixture, (1..end).step_by(2));
    assert!(fixture.state.counters.moves.get() > 0);
}

#[test]
fn several_victims_share_one_checkpoint() {
    let fixture = Fixture::new(128, EvictionPolicy::Fifo);
    let puts = 3 * 128 * SEGMENT;
    (0..puts).for_each(|key| fixture.put(key, INLINE, fill(key)).unwrap());
    let committed = fixture.state.with_space(|space| space.committed()).number;
    let released = fixture.state.counters.evictions.get() / SEGMENT;
    assert!(committed * 2 < released, "{committed} checkpoints for {released} segments");
}

#[test]
fn the_worker_reclaims_before_a_put_has_to_wait() {
    let mut fixture = Fixture::new(128, EvictionPolicy::Fifo);
    fixture.waits = true;
    let worker = Worker::start(&fixture.state).unwrap();
    for key in 0..3 * 128 * SEGMENT / 8 {
        put(&fixture, key);
        fixture.state.worker.wake();
        // A device would take a while for each object, which the worker has.
        while fixture.state.with_space(|space| space.needs_reclaim()) {
            thread::yield_now();
        }
    }
    drop(worker);
    assert_eq!(fixture.state.counters.waits_for_space.get(), 0);
    assert!(fixture.state.counters.reclaims.get() > 0);
}

#[test]
fn segments_are_discarded_when_free_in_every_checkpoint() {
    let options = OpenOptions::default().discard(true).background(false);
    let fixture = Fixture::with(16, &options);
    for key in 0..60 {
        put(&fixture, key);
    }
    for key in 0..60 {
        fixture.delete(key);
    }
    let checkpoint = || checkpoint::take(&fixture.state, CheckpointPurpose::Space).unwrap();
    checkpoint();
    assert!(free(&fixture) > 10);
    assert!(!discard::discard_free(&fixture.state), "an older checkpoint names what is in it");
    for _ in 0..3 {
        put(&fixture, 100);
        checkpoint();
    }
    assert!(discard::discard_free(&fixture.state));
    while discard::discard_free(&fixture.state) {}
    assert!(free(&fixture) > 10, "they can be opened again");
}

#[test]
fn a_put_waits_for_the_change_in_flight_that_keeps_garbage() {
    let fixture = Fixture::new(12, EvictionPolicy::None);
    let begun = fixture.begin_put(1, 100, 1).unwrap();
    thread::scope(|scope| {
        let overwriting = scope.spawn(|| {
            for fill in 0..100 {
                fixture.put(2, 10_000, fill).unwrap();
            }
        });
        while fixture.state.counters.waits_for_space.get() == 0 {
            thread::yield_now();
        }
        // No checkpoint covers what was put after the change in flight: a put that does not wait
        // fails by now.
        thread::sleep(Duration::from_millis(50));
        let reclaims = fixture.state.counters.reclaims.get();
        assert!(reclaims <= 2, "{reclaims} reclaims, which gain nothing");
        fixture.publish(&begun);
        overwriting.join().unwrap();
    });
    assert_eq!((fixture.get(1), fixture.get(2)), (Some(1), Some(99)));
}

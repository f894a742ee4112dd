use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;

use super::*;
use crate::format::{CheckpointHeader, TableBlock, TableId};
use crate::options::EvictionPolicy;
use crate::reclaim::fixture::{BLOCK, Fixture};
use crate::state::space::SETTLED_ALL;
use crate::stats::health::HealthState;

fn fixture() -> Fixture {
    Fixture::new(16, EvictionPolicy::None)
}

fn checkpoint(fixture: &Fixture) {
    take(&fixture.state, CheckpointPurpose::Period).unwrap();
}

fn container(fixture: &Fixture, at: usize) -> std::ops::Range<u64> {
    let start = fixture.state.layout.container_offset[at];
    start..start + fixture.state.layout.container_len
}

#[test]
fn a_checkpoint_names_exactly_what_is_live() {
    let fixture = fixture();
    for key in 0..20 {
        fixture.put(key, 700, 1).unwrap();
    }
    let old = fixture.locate(3).unwrap();
    fixture.put(3, 700, 2).unwrap();
    fixture.delete(4);
    checkpoint(&fixture);
    let found = fixture.checkpoint();
    assert_eq!(found.header.number.get(), 2);
    assert_eq!(found.records.len(), fixture.state.layout.segment_count as usize);
    for key in (0..20).filter(|key| *key != 4) {
        assert!(found.names(fixture.locate(key).unwrap().place), "{key}");
    }
    assert!(!found.names(old.place));
    let next = fixture.state.with_space(|space| space.next_sequence());
    assert_eq!(found.header.next_sequence.get(), next);
    assert_eq!(found.header.covered_sequence.get(), next - 1);
    let ones: u32 =
        found.records.iter().flat_map(|(_, live)| live).map(|word| word.count_ones()).sum();
    // A tombstone that is covered may be named as well.
    assert!((19..=20).contains(&ones), "{ones}");
}

#[test]
fn changes_in_flight_bound_the_covered_sequence_and_the_prefix() {
    let fixture = fixture();
    fixture.put(0, 100, 1).unwrap();
    let flying = fixture.begin_put(1, 100, 1).unwrap();
    fixture.put(2, 100, 1).unwrap();
    checkpoint(&fixture);
    let found = fixture.checkpoint();
    let (flying_at, sequence) = (flying.located.place, flying.located.sequence());
    assert_eq!(found.header.covered_sequence.get(), sequence - 1);
    let record = found.record(flying_at.segment);
    assert_eq!((record.settled, record.entries), (flying_at.number, 3));
    assert!(!found.names(flying_at));
    let above = fixture.locate(2).unwrap();
    assert!(found.names(above.place), "what is past the prefix is named");
    fixture.publish(&flying);
    checkpoint(&fixture);
    assert!(fixture.checkpoint().names(flying_at));
}

#[test]
fn tombstones_are_named_until_a_commit_covers_them() {
    let fixture = fixture();
    fixture.put(0, 100, 1).unwrap();
    let flying = fixture.begin_put(9, 100, 1).unwrap();
    fixture.delete(0);
    let named = |fixture: &Fixture| {
        let found = fixture.checkpoint();
        let live: u32 =
            found.records.iter().flat_map(|(_, live)| live).map(|word| word.count_ones()).sum();
        live
    };
    checkpoint(&fixture);
    assert_eq!(named(&fixture), 1, "it is above the covered sequence");
    checkpoint(&fixture);
    assert_eq!(named(&fixture), 1);
    fixture.publish(&flying);
    checkpoint(&fixture);
    checkpoint(&fixture);
    assert_eq!(named(&fixture), 1, "the object that was put alone");
}

#[test]
fn full_segments_get_a_table_once_and_open_ones_at_closing() {
    let fixture = fixture();
    let mut key = 0;
    while fixture.locate(0).is_none_or(|first| {
        fixture.locate(key - 1).is_some_and(|last| last.place.segment == first.place.segment)
    }) {
        fixture.put(key, 700, 1).unwrap();
        key += 1;
    }
    checkpoint(&fixture);
    let found = fixture.checkpoint();
    let (first, last) = (fixture.locate(0).unwrap().place, fixture.locate(key - 1).unwrap().place);
    let record = *found.record(first.segment);
    assert_eq!((record.table, record.settled), (2, SETTLED_ALL));
    assert_eq!(found.record(last.segment).table, 0, "it is open");
    let layout = &fixture.state.layout;
    let id = TableId { generation: record.generation, checkpoint: 2, entries: record.entries };
    let offset = layout.block_offset(first.segment, layout.table_block(record.entries));
    let block = fixture.device.peek(offset, BLOCK);
    let entries = TableBlock::read(&block, layout, &id, 0).unwrap();
    assert_eq!(entries[0], fixture.locate(0).unwrap().entry);

    take(&fixture.state, CheckpointPurpose::Whole).unwrap();
    let found = fixture.checkpoint();
    assert_eq!(found.record(first.segment).table, 2, "it is not written again");
    assert_eq!(found.record(last.segment).table, 3);
    fixture.put(key, 700, 1).unwrap();
    checkpoint(&fixture);
    assert_eq!(fixture.checkpoint().record(last.segment).table, 0, "it was filled further");
}

#[test]
fn a_table_that_cannot_be_written_is_left_out() {
    let fixture = fixture();
    for key in 0..40 {
        fixture.put(key, 700, 1).unwrap();
    }
    let segment = fixture.locate(0).unwrap().place.segment;
    let layout = &fixture.state.layout;
    let end = layout.segment_offset(segment) + layout.segment_size();
    let last = end - BLOCK as u64..end;
    fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EIO).within(last));
    checkpoint(&fixture);
    assert_eq!(fixture.checkpoint().record(segment).table, 0);
    fixture.device.clear_faults();
    checkpoint(&fixture);
    assert_eq!(fixture.checkpoint().record(segment).table, 3);
}

#[test]
fn a_failed_attempt_changes_nothing_and_the_next_one_succeeds() {
    let fixture = fixture();
    fixture.put(0, 100, 1).unwrap();
    checkpoint(&fixture);
    let committed = fixture.state.with_space(|space| space.committed());
    for at in [1, 2] {
        let range = container(&fixture, at);
        fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EIO).within(range));
    }
    let range = container(&fixture, 0);
    fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EIO).within(range));
    assert!(take(&fixture.state, CheckpointPurpose::Period).is_err());
    assert_eq!(fixture.state.with_space(|space| space.committed()), committed);
    assert_eq!(fixture.state.counters.failed_checkpoints.get(), 1);
    assert_eq!(fixture.state.health.get().state, HealthState::Degraded);
    fixture.device.clear_faults();
    checkpoint(&fixture);
    assert!(
        fixture.checkpoint().header.number.get() > committed.number + 1,
        "numbers are not used again"
    );
    fixture.put(1, 100, 1).unwrap();
    checkpoint(&fixture);
    assert_eq!(fixture.get(0), Some(1));
}

#[test]
fn one_bad_container_does_not_stop_checkpoints() {
    for bad in 0..3 {
        for header_only in [false, true] {
            let fixture = fixture();
            let mut range = container(&fixture, bad);
            if header_only {
                range.end = range.start + BLOCK as u64;
            } else {
                range.start += BLOCK as u64;
            }
            fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EIO).within(range));
            let mut failures = 0;
            for key in 0..12 {
                fixture.put(key, 100, 1).unwrap();
                failures += u32::from(take(&fixture.state, CheckpointPurpose::Period).is_err());
            }
            assert!(failures <= 1, "{failures} failures with container {bad}");
            assert_eq!(fixture.state.health.get().state, HealthState::Degraded);
            let next = fixture.state.with_space(|space| space.next_sequence());
            assert_eq!(fixture.checkpoint().header.covered_sequence.get(), next - 1);
        }
    }
}

#[test]
fn a_failed_header_is_destroyed_before_its_body_is_overwritten() {
    let fixture = fixture();
    fixture.put(0, 100, 1).unwrap();
    checkpoint(&fixture);
    let committed = sync::lock(&fixture.state.checkpointing).committed_number();
    // The header of the next attempt is written, and reported as failed.
    for at in 0..3 {
        let start = container(&fixture, at).start;
        let header = start..start + BLOCK as u64;
        fixture.device.inject(DeviceFault::fail_after(OpKind::Write, libc::EIO).within(header));
    }
    assert!(take(&fixture.state, CheckpointPurpose::Period).is_err());
    assert_eq!(fixture.checkpoint().header.number.get(), committed + 1, "it is there all the same");
    fixture.device.clear_faults();
    let written = fixture.state.layout.container_offset.map(|offset| {
        let block = fixture.device.peek(offset, BLOCK);
        CheckpointHeader::read(&block, &fixture.state.layout)
            .map_or(0, |header| header.number.get())
    });
    assert!(written.contains(&(committed + 1)));
    // The next attempt fails in its body, so nothing but the destruction took place.
    for at in 0..3 {
        let range = container(&fixture, at);
        let body = range.start + BLOCK as u64..range.end;
        fixture.device.inject(DeviceFault::fail(OpKind::Write, libc::EIO).within(body));
    }
    assert!(take(&fixture.state, CheckpointPurpose::Period).is_err());
    assert_eq!(fixture.checkpoint().header.number.get(), committed);
}

#[test]
fn a_checkpoint_survives_a_power_cut_right_after_it() {
    for seed in 0..20 {
        let fixture = fixture();
        for key in 0..10 + seed {
            fixture.put(key, 300, 1).unwrap();
        }
        checkpoint(&fixture);
        fixture.device.power_cut();
        let after =
            Fixture { device: fixture.device.power_on(), state: fixture.state, waits: false };
        let found = after.checkpoint();
        assert_eq!(found.header.number.get(), 2);
        for key in 0..10 + seed {
            assert!(found.names(after.locate(key).unwrap().place));
        }
    }
}

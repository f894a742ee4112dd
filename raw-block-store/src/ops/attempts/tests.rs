use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};

use crate::ops::test_store::{BLOCK, locate, put, store};
use crate::{EvictionPolicy, HealthState, Store};

const EIO: i32 = 5;

/// Where segments lie.
fn segments(store: &Store) -> std::ops::Range<u64> {
    let layout = store.state.layout;
    let len = layout.segment_size() * u64::from(layout.segment_count);
    layout.segments_offset..layout.segments_offset + len
}

fn try_put(store: &Store, key: u32) -> bool {
    store.put(&key.to_le_bytes(), &[7; 700]).is_ok()
}

#[test]
fn a_full_cache_on_a_device_that_refuses_writes_evicts_nothing() {
    let (device, store) = store(16, EvictionPolicy::Lru);
    for first in (0..2000).step_by(20) {
        put(&store, first..first + 20, 700);
    }
    let before = store.stats();
    assert!(before.evictions > 0);
    device.inject(DeviceFault::fail(OpKind::Write, EIO));
    assert!((0..200).all(|key| !try_put(&store, key)));
    assert!(store.delete(&1999_u32.to_le_bytes()).is_err());
    let after = store.stats();
    assert_eq!((after.evictions, after.objects), (before.evictions, before.objects));
    assert_eq!(after.health.state, HealthState::ReadOnly);
    device.clear_faults();
    put(&store, 5000..5500, 700);
    assert_eq!(store.stats().bad_segments, 0);
}

#[test]
fn failures_of_several_calls_show_a_device_that_refuses_writes() {
    let (device, store) = store(32, EvictionPolicy::None);
    put(&store, 0..10, 700);
    device.inject(DeviceFault::fail(OpKind::Write, EIO));
    assert!(!try_put(&store, 1));
    let before = device.ops_so_far();
    assert!((0..10).all(|key| !try_put(&store, key)));
    // Each of them only looks whether a checkpoint can be written.
    assert_eq!(store.stats().health.state, HealthState::ReadOnly);
    assert!(store.stats().repeated_writes <= 2, "{:?}", store.stats());
    assert!(device.ops_so_far() - before <= 40);
}

#[test]
fn fewer_and_fewer_refused_calls_try_a_checkpoint() {
    let (device, store) = store(32, EvictionPolicy::None);
    put(&store, 0..10, 700);
    device.inject(DeviceFault::fail(OpKind::Write, EIO));
    assert!(!try_put(&store, 1));
    assert_eq!(store.stats().health.state, HealthState::ReadOnly);
    let before = store.stats().failed_checkpoints;
    assert!((0..20).all(|key| !try_put(&store, key)));
    assert_eq!(store.stats().failed_checkpoints - before, 5, "calls 1, 2, 4, 8 and 16");
    device.clear_faults();
    assert!((20..31).all(|key| !try_put(&store, key)), "none of them tries");
    assert!(try_put(&store, 31), "call 32 does");
    assert_ne!(store.stats().health.state, HealthState::ReadOnly);
}

#[test]
fn a_call_that_fails_for_good_does_not_stop_later_ones() {
    let (device, store) = store(32, EvictionPolicy::None);
    put(&store, 0..10, 700);
    device.inject(DeviceFault::fail(OpKind::Write, EIO).within(segments(&store)));
    assert!(!try_put(&store, 20));
    device.clear_faults();
    assert!(try_put(&store, 20));
    assert_eq!(store.stats().health.state, HealthState::Healthy);
}

#[test]
fn failures_with_a_success_in_between_are_those_of_segments() {
    let (device, store) = store(40, EvictionPolicy::None);
    put(&store, [0], 700);
    for key in 0..12 {
        // The open segment fails, the next one does not.
        let start = store.state.layout.segment_offset(locate(&store, key).place.segment);
        device.inject(DeviceFault::fail(OpKind::Write, EIO).within(start..start + 64 * BLOCK));
        assert!(try_put(&store, key + 1), "key {key}");
        assert_ne!(store.stats().health.state, HealthState::ReadOnly);
        device.clear_faults();
    }
    assert!(store.stats().repeated_writes >= 12);
}

#[test]
fn a_delete_whose_write_fails_is_written_elsewhere() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..10, 700);
    let writes = segments(&store);
    device.inject(DeviceFault::fail(OpKind::Write, EIO).within(writes).nth(1));
    assert!(store.delete(&3_u32.to_le_bytes()).unwrap());
    assert!(!store.delete(&3_u32.to_le_bytes()).unwrap());
    assert_eq!(store.stats().repeated_writes, 1);
    assert_eq!(store.stats().objects, 9);
}

/// Makes one block in the middle of the segment that is opened next unwritable.
fn bad_block(device: &SimulatedDevice, store: &Store) {
    let next = store.state.with_space(|space| space.next_free()).unwrap();
    let at = store.state.layout.segment_offset(next) + 30 * BLOCK;
    device.inject(DeviceFault::fail(OpKind::Write, EIO).within(at..at + BLOCK));
}

#[test]
fn a_bad_block_quarantines_its_segment_with_single_puts_too() {
    let (device, store) = store(16, EvictionPolicy::None);
    put(&store, 0..10, 700);
    bad_block(&device, &store);
    assert!((0..3000).all(|number| try_put(&store, number % 10)));
    let stats = store.stats();
    assert_eq!((stats.bad_segments, stats.repeated_writes), (1, 2), "it failed twice");
}

#[test]
fn what_fails_in_a_full_store_is_written_elsewhere() {
    for eviction in [EvictionPolicy::None, EvictionPolicy::Fifo] {
        let (device, store) = store(16, eviction);
        let full = (0..2000).find(|&key| !try_put(&store, key)).unwrap_or(2000);
        // What is overwritten without end keeps as little space free as possible.
        let keys = full * 3 / 4;
        (keys..full).for_each(|key| drop(store.delete(&key.to_le_bytes())));
        (0..keys).for_each(|key| assert!(try_put(&store, key)));
        bad_block(&device, &store);
        for number in 0..3000 {
            let key = (number % keys).to_le_bytes();
            store.put(&key, &[7; 700]).unwrap();
        }
        assert_eq!(store.stats().bad_segments, 1, "{eviction:?}");
    }
}

#[test]
fn segments_that_never_answer_cost_few_of_them() {
    let (device, store) = store(40, EvictionPolicy::None);
    device.inject(DeviceFault::late_write(u64::MAX).within(segments(&store)));
    assert!((0..60).all(|key| !try_put(&store, key)));
    let bad = store.stats().bad_segments;
    assert!(bad <= 3 + 6, "{bad} segments in quarantine, calls 1, 2, 4 to 32 try");
    device.clear_faults();
    assert!((60..200).any(|key| try_put(&store, key)));
    assert!(try_put(&store, 200));
}

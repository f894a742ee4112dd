use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};

use crate::ops::test_store::{open, store, without_newest_checkpoint};
use crate::{Error, EvictionPolicy, Store};

const EIO: i32 = 5;

/// A full store whose reserve is in quarantine: its deletes have no space for tombstones.
fn store_without_reserve() -> (SimulatedDevice, Store) {
    let (device, store) = store(12, EvictionPolicy::None);
    let put = |key: u32| store.put(&key.to_le_bytes(), &[7; 700]);
    let full = (0..).find(|&key| put(key).is_err()).unwrap();
    let layout = store.state.layout;
    let segments = layout.segments_offset..layout.last_superblock_offset;
    while store.stats().free_segments > 0 {
        device.inject(DeviceFault::late_write(u64::MAX).within(segments.clone()));
        assert!(store.delete(&full.to_le_bytes()).is_err());
        device.clear_faults();
        store.checkpoint().unwrap();
    }
    assert!(store.stats().bad_segments >= 2);
    (device, store)
}

#[test]
fn the_lost_checkpoint_of_a_delete_without_tombstone_is_noticed() {
    let (device, store) = store_without_reserve();
    assert!(store.delete(&0_u32.to_le_bytes()).unwrap());
    let layout = store.state.layout;
    drop(store);
    let device = without_newest_checkpoint(&device, &layout);
    let error = Store::open(device.backend()).unwrap_err();
    assert!(matches!(error, Error::CheckpointLost { .. }), "{error}");
}

#[test]
fn a_store_without_reserve_deletes_by_checkpoints() {
    let (device, store) = store_without_reserve();
    let delete = |key: u32| store.delete(&key.to_le_bytes());
    let (before, objects) = (store.stats().checkpoints, store.stats().objects);
    assert!(delete(0).unwrap());
    assert!(!delete(0).unwrap());
    assert_eq!(store.stats().checkpoints, before + 2);
    assert_eq!(store.stats().objects, objects - 1);

    device.inject(DeviceFault::fail(OpKind::Write, EIO));
    assert!((1..100).all(|key| delete(key).is_err()));
    device.clear_faults();
    store.checkpoint().unwrap();

    (200..300).for_each(|key| assert!(delete(key).unwrap()));
    store.flush().unwrap();
    let device = device.power_on();
    drop(store);
    let store = open(&device, EvictionPolicy::None);
    assert!(
        (0..300_u32)
            .filter(|key| *key == 0 || *key >= 200)
            .all(|key| !store.contains(&key.to_le_bytes()).unwrap())
    );
    assert!(store.contains(&301_u32.to_le_bytes()).unwrap());
    assert!(store.put(b"key", &[7; 700]).is_ok(), "what was deleted is space again");
}

#[test]
fn a_store_with_half_of_its_reserve_is_compacted() {
    let (device, store) = store(12, EvictionPolicy::None);
    let put = |key: u32| store.put(&key.to_le_bytes(), &[7; 700]);
    let full = (0..).find(|&key| put(key).is_err()).unwrap();
    let layout = store.state.layout;
    let segments = layout.segments_offset..layout.last_superblock_offset;
    // Deletes open a segment of the reserve at the latest when the open ones are full.
    while store.stats().free_segments > 1 {
        device.inject(DeviceFault::late_write(u64::MAX).within(segments.clone()).nth(1));
        store.delete(&full.to_le_bytes()).unwrap();
        device.clear_faults();
        store.checkpoint().unwrap();
    }
    assert!(store.stats().bad_segments > 0);
    (0..full).step_by(2).for_each(|key| assert!(store.delete(&key.to_le_bytes()).unwrap()));
    (full..full + full / 3).for_each(|key| put(key).unwrap());
}

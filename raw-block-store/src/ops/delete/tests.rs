use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;

use crate::EvictionPolicy;
use crate::ops::test_store::{open, store};

const EIO: i32 = 5;

/// Quarantine takes the reserve of a full store: its deletes have no space for tombstones.
#[test]
fn a_store_without_reserve_deletes_by_checkpoints() {
    let (device, store) = store(12, EvictionPolicy::None);
    let put = |key: u32| store.put(&key.to_le_bytes(), &[7; 700]);
    let delete = |key: u32| store.delete(&key.to_le_bytes());
    let full = (0..).find(|&key| put(key).is_err()).unwrap();
    let layout = store.state.layout;
    let segments = layout.segments_offset..layout.last_superblock_offset;
    while store.stats().free_segments > 0 {
        device.inject(DeviceFault::late_write(u64::MAX).within(segments.clone()));
        assert!(delete(full).is_err());
        device.clear_faults();
        store.checkpoint().unwrap();
    }
    assert!(store.stats().bad_segments >= 2);
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

use std::thread;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, run_interleaved};

use crate::EvictionPolicy;
use crate::ops::test_store::{BLOCK, locate, open, put, store};
use crate::state::space::{Allocation, Space};

const OLD: usize = 700;
const NEW: usize = 900;

/// A delete without a tombstone waits for an older put. A checkpoint that is committed in the
/// meantime does not cover the delete, and two versions of the key are newer than it covers.
#[test]
fn a_delete_without_tombstone_brings_no_older_version_back() {
    let (device, store) = store(12, EvictionPolicy::None);
    put(&store, [0], OLD);
    let object = locate(&store, 0);
    // The block at which the next slot begins.
    let end = object.entry.block.get() + object.entry.payload_blocks(512);
    let next = store.state.layout.block_offset(object.place.segment, end);
    thread::scope(|scope| {
        device.inject(DeviceFault::hold(OpKind::Write).within(next..next + BLOCK));
        let before = store.state.with_space(|space| space.next_sequence());
        let held = scope.spawn(|| store.put(&1_u32.to_le_bytes(), &[7; OLD]));
        while store.state.with_space(|space| space.next_sequence()) == before {
            thread::yield_now();
        }
        put(&store, [2], OLD);
        let first = locate(&store, 2).place.segment;
        assert_eq!(first, object.place.segment);
        let filler = (100..).find(|&key| {
            put(&store, [key], OLD);
            locate(&store, key).place.segment != first
        });
        put(&store, [2], NEW);
        assert_ne!(locate(&store, 2).place.segment, first, "{filler:?}");
        store.flush().unwrap();

        let sequence = store.state.with_space(Space::take_sequence_of_delete).unwrap();
        let (state, key) = (&store.state, [store.hash(&2_u32.to_le_bytes())]);
        let deleted =
            scope.spawn(move || state.delete_by_checkpoint(&key, sequence, &mut Vec::new()));
        while !store.state.is_waited_for() {
            thread::yield_now();
        }
        store.checkpoint().unwrap();
        device.power_cut();
        assert!(held.join().unwrap().is_err());
        assert!(deleted.join().unwrap().is_err());
    });
    let device = device.power_on();
    drop(store);
    let store = open(&device, EvictionPolicy::None);
    let found = store.get(&2_u32.to_le_bytes()).unwrap().map(|object| object.payload().len());
    assert_eq!(found, Some(NEW), "no checkpoint covers the delete");
}

/// The last older change ends while a checkpoint is in progress, which does not cover the delete.
#[test]
fn a_delete_without_tombstone_waits_for_the_running_checkpoint() {
    for seed in 0..24 {
        let (device, store) = store(12, EvictionPolicy::None);
        let state = &store.state;
        // The checkpoint writes the tables of full segments before it copies the index.
        let mut fillers = 100..;
        let mut fill = |segment| {
            let is_there = |key: &u32| {
                put(&store, [*key], OLD);
                locate(&store, *key).place.segment == segment
            };
            assert!(fillers.by_ref().any(|key| is_there(&key)));
        };
        fill(3);
        let mut older = Allocation::default();
        state.allocate_tombstones(&mut older).unwrap();
        put(&store, [2], OLD);
        assert_eq!((older.slots[0].segment, locate(&store, 2).place.segment), (3, 3));
        fill(4);
        put(&store, [2], NEW);
        store.flush().unwrap();

        let sequence = state.with_space(Space::take_sequence_of_delete).unwrap();
        let key = [store.hash(&2_u32.to_le_bytes())];
        let mut deleted = Ok(());
        let checkpoint = || {
            let _ = store.checkpoint();
            device.power_cut();
        };
        let end_older = || state.abandon(&older.slots[0], &older.objects);
        let delete = || deleted = state.delete_by_checkpoint(&key, sequence, &mut Vec::new());
        run_interleaved(seed, vec![Box::new(checkpoint), Box::new(end_older), Box::new(delete)]);
        let device = device.power_on();
        drop(store);
        let store = open(&device, EvictionPolicy::None);
        let found = store.get(&2_u32.to_le_bytes()).unwrap().map(|object| object.payload().len());
        assert_ne!(found, Some(OLD), "seed {seed}");
        assert!(deleted.is_err() || found.is_none(), "seed {seed}");
    }
}

//! What a checkpoint asks of the device.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::store_on;
use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_store::FormatOptions;

/// The ops of one checkpoint of a store with so many slots, of two blocks each.
fn ops(slots: u64) -> u64 {
    let simulated = SimulatedDevice::new(Geometry::new(256 << 20, 512).unwrap(), 1).unwrap();
    let options = FormatOptions {
        slot_count: Some(slots),
        block_size: Some(512),
        ..FormatOptions::for_payloads(512)
    };
    let store = store_on(&simulated.backend(), &options);
    let before = simulated.ops_so_far();
    store.checkpoint().unwrap();
    simulated.ops_so_far() - before
}

#[test]
fn a_short_checkpoint_is_a_body_and_a_header_with_a_flush_behind_each() {
    assert_eq!(ops(100), 4);
}

#[test]
fn a_long_checkpoint_is_flushed_in_between() {
    // Pieces of 512 blocks, with 14 entries in each block, and a flush behind 16 of them.
    let piece = 512 * 14;
    assert_eq!(ops(16 * piece), 16 + 3);
    assert_eq!(ops(16 * piece + 1), 17 + 1 + 3);
    assert_eq!(ops(28 * piece), 28 + 1 + 3);
}

//! What a checkpoint asks of the device.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::store_on;
use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_store::FormatOptions;

/// The ops of one checkpoint of a store with so many slots.
fn ops(slots: u64) -> u64 {
    let simulated = SimulatedDevice::new(Geometry::new(256 << 20, 512).unwrap(), 1).unwrap();
    let options = FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(4096) };
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
fn a_long_checkpoint_is_flushed_piece_by_piece() {
    // Three pieces of 64 blocks, with 127 entries in each block.
    let pieces = 20_000_u64.div_ceil(127).div_ceil(64);
    assert_eq!(ops(20_000), 2 * pieces + 2);
}

//! The simulated device keeps the contract while nothing goes wrong, in whatever order it does
//! things.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

use raw_block_core::conformance::{Skipped, Subject};
use raw_block_core::simulated::{SimulatedDevice, SimulatedOptions};
use raw_block_core::{Geometry, conformance_suite};

/// A device with blocks of `block` bytes and what `change` makes of its shape.
fn simulated(
    block: u32,
    seed: u64,
    change: impl FnOnce(&mut Geometry, &mut SimulatedOptions),
) -> Result<Subject, Skipped> {
    let mut geometry = Geometry::new(16 << 20, block).unwrap();
    (geometry.discard, geometry.write_zeroes) = (true, true);
    let mut options = SimulatedOptions::new().seed(seed);
    change(&mut geometry, &mut options);
    Ok(Subject::new(SimulatedDevice::with_options(geometry, options).unwrap().backend()))
}

conformance_suite!(blocks_of_512, || simulated(512, 1, |_, _| {}));
conformance_suite!(blocks_of_512_by_another_seed, || simulated(512, 2, |_, _| {}));
conformance_suite!(blocks_of_4096, || simulated(4096, 3, |_, _| {}));
conformance_suite!(blocks_of_4096_by_another_seed, || simulated(4096, 4, |_, _| {}));
conformance_suite!(in_the_order_of_submission, || {
    simulated(512, 5, |_, options| options.shuffle = false)
});
conformance_suite!(without_a_volatile_cache, || {
    simulated(4096, 6, |shape, _| shape.volatile_write_cache = false)
});
conformance_suite!(queues_of_eight, || {
    simulated(512, 7, |_, options| options.max_queue_depth = 8)
});
conformance_suite!(transfers_stricter_than_blocks, || {
    simulated(512, 8, |shape, _| shape.transfer_alignment = 4096)
});
conformance_suite!(memory_at_any_address, || {
    simulated(512, 9, |shape, _| shape.memory_alignment = 1)
});

//! The device in memory keeps the contract, whatever its shape; and so does one whose ops take
//! time.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod threaded;

use std::sync::Arc;

use raw_block_core::conformance::{Skipped, Subject};
use raw_block_core::{Geometry, MemoryBackend, conformance_suite};
use threaded::ThreadedBackend;

/// A device in memory with blocks of `block` bytes and what `change` makes of its shape.
fn memory(block: u32, change: impl FnOnce(&mut Geometry)) -> Result<Subject, Skipped> {
    let mut geometry = Geometry::new(16 << 20, block).unwrap();
    geometry.discard = true;
    geometry.write_zeroes = true;
    change(&mut geometry);
    Ok(Subject::new(Arc::new(MemoryBackend::with_geometry(geometry))))
}

conformance_suite!(blocks_of_512, || memory(512, |_| {}));
conformance_suite!(blocks_of_4096, || memory(4096, |_| {}));
conformance_suite!(memory_at_any_address, || memory(512, |shape| shape.memory_alignment = 1));
conformance_suite!(memory_at_multiples_of_4, || memory(512, |shape| shape.memory_alignment = 4));
conformance_suite!(memory_stricter_than_transfers, || {
    memory(512, |shape| shape.memory_alignment = 4096)
});
conformance_suite!(transfers_stricter_than_blocks, || {
    memory(512, |shape| shape.transfer_alignment = 4096)
});
conformance_suite!(any_byte_range, || {
    memory(512, |shape| (shape.transfer_alignment, shape.memory_alignment) = (1, 1))
});
conformance_suite!(one_block_per_command, || memory(512, |shape| shape.max_transfer = 512));
conformance_suite!(one_segment_per_command, || memory(4096, |shape| shape.max_segments = 1));
conformance_suite!(nothing_but_reads_and_writes, || {
    memory(512, |shape| (shape.discard, shape.write_zeroes) = (false, false))
});

conformance_suite!(ops_that_take_time, || {
    let mut geometry = Geometry::new(16 << 20, 512).unwrap();
    (geometry.discard, geometry.write_zeroes) = (true, true);
    Ok(Subject::new(Arc::new(ThreadedBackend::new(geometry))))
});

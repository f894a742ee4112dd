//! Whether there is memory for a store.

use std::hint::black_box;

use crate::Error;
use crate::state::index::Index;
use crate::state::space::Space;

/// Checks that there is memory for what a store with this many segments holds of each, and as much
/// again to open it or to take a checkpoint: the allocations themselves do not report a failure.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn check(segments: u32) -> Result<(), Error> {
    let each = Space::MEMORY_PER_SEGMENT + Index::MEMORY_PER_SEGMENT;
    let bytes = 2 * u64::from(segments) * each as u64;
    let mut probe: Vec<u8> = Vec::new();
    let reserved = usize::try_from(bytes).map(|bytes| probe.try_reserve_exact(bytes));
    black_box(&probe);
    match reserved {
        Ok(Ok(())) => Ok(()),
        _ => Err(Error::OutOfMemory { what: "the segments of the store", bytes }),
    }
}

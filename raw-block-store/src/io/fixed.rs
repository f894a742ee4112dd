//! Writing to places that a store writes again and again.

use raw_block_core::{BatchResult, Dispatcher, ErrorClass, WriteAt};

use crate::mutant::Mutant;

/// Writes superblocks, checkpoints or tables.
///
/// If the outcome of a write is unknown, the backend refuses writes from then on: the device may
/// still carry it out, over what the store would write there next.
pub(crate) fn write(dispatcher: &Dispatcher, writes: &[WriteAt<'_>]) -> BatchResult {
    let results = dispatcher.write_buffers(writes);
    let mut errors = results.iter().filter_map(|result| result.as_ref().err());
    if let Some(error) = errors.find(|error| error.class() == ErrorClass::Unknown)
        && !Mutant::UnknownOverwritten.is_on()
    {
        dispatcher.backend().flush_state().stop_writes(error);
    }
    results
}

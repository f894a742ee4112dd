//! What calls do for themselves in a store without a background worker.

use crate::checkpoint;
use crate::state::StoreState;
use crate::state::space::CheckpointPurpose;

/// Takes a checkpoint if much was written since the last one, in a store without a background
/// worker. After a failure further calls try again, with more and more calls between two attempts.
/// The failure is counted and logged, and is none of the call.
///
/// The caller has nothing in flight.
pub(crate) fn checkpoint_if_due(state: &StoreState) {
    if state.worker.is_present() {
        return;
    }
    let objects = state.index.len();
    let is_wanted = state.with_space(|space| space.needs_checkpoint(objects));
    if !is_wanted || !state.checkpoint_backoff.is_due() {
        return;
    }
    let _unthrottled = state.throttle.suspend();
    let taken = checkpoint::take_if(state, CheckpointPurpose::Period, |space| {
        space.needs_checkpoint(objects)
    });
    if taken.is_ok() {
        state.checkpoint_backoff.succeeded();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raw_block_core::Geometry;
    use raw_block_core::backend::OpKind;
    use raw_block_core::simulated::{DeviceFault, SimulatedDevice};

    use crate::options::{FormatOptions, OpenOptions};
    use crate::{Store, StoreStats};

    /// A store without a worker in which one entry less was written than is worth a checkpoint.
    fn store() -> (SimulatedDevice, Store) {
        let device = SimulatedDevice::new(Geometry::new(1 << 20, 512).unwrap(), 1).unwrap();
        let format = FormatOptions::default().segment_size(64 * 512).block_size(512);
        let backend = device.backend();
        Store::format(Arc::clone(&backend), &format).unwrap();
        let options = OpenOptions::default().background(false);
        let store = Store::open_with(backend, &options).unwrap();
        store.state.with_space(|space| space.set_entries_written((1 << 17) - 1));
        (device, store)
    }

    #[test]
    fn calls_take_a_checkpoint_when_much_was_written() {
        let (_device, store) = store();
        let checkpoints = || store.stats().checkpoints;
        let before = checkpoints();
        store.delete(b"absent").unwrap();
        assert_eq!(checkpoints(), before);
        store.put(b"key", b"payload").unwrap();
        assert_eq!(checkpoints(), before + 1);
        store.put(b"key", b"payload").unwrap();
        assert_eq!(checkpoints(), before + 1);
    }

    #[test]
    fn a_checkpoint_that_failed_is_tried_by_fewer_and_fewer_calls() {
        let (device, store) = store();
        let layout = &store.state.layout;
        let containers = layout.container_offset[0]..layout.segments_offset;
        device.inject(DeviceFault::fail(OpKind::Write, libc::EIO).within(containers));
        let put = |times| -> StoreStats {
            (0..times).for_each(|_| store.put(b"key", b"payload").unwrap());
            store.stats()
        };
        assert_eq!(put(20).failed_checkpoints, 5, "by calls 1, 2, 4, 8 and 16");
        device.clear_faults();
        let before = store.stats().checkpoints;
        assert_eq!(put(11).checkpoints, before);
        assert_eq!(put(1).checkpoints, before + 1, "by call 32");
    }
}

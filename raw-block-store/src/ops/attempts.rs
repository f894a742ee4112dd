//! Slots whose writes fail are written elsewhere, up to three times.

use std::collections::VecDeque;

use raw_block_core::ErrorKind;
use raw_block_core::backend::OpKind;

use crate::Error;
use crate::checkpoint;
use crate::error::Context;
use crate::state::space::{AllocatedObject, Allocation, CheckpointPurpose, Retry, Slot};
use crate::state::{CallGuard, StoreState};

/// How many times something is written before it fails, each time to another segment.
pub(super) const ATTEMPTS: usize = 3;

/// A slot with objects, or a tombstone, whose writes failed.
pub(super) struct FailedSlot {
    pub(super) slot: Slot,
    pub(super) objects: Vec<Retry>,
    pub(super) error: Error,
}

impl FailedSlot {
    pub(super) fn new<'a>(
        slot: &Slot,
        objects: impl IntoIterator<Item = &'a AllocatedObject>,
        error: Error,
    ) -> Self {
        let retry = |object: &AllocatedObject| Retry {
            index: object.index,
            demand: object.demand,
            sequence: object.sequence,
        };
        Self { slot: slot.clone(), objects: objects.into_iter().map(retry).collect(), error }
    }
}

/// Why an object was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUpReason {
    /// Its last attempt failed.
    Failed,
    /// An attempt failed, and there is no space for another one before a reclaim.
    NoSpace,
}

/// Slots whose objects are in flight until they are written elsewhere or fail for good.
struct FailedSlots<'a> {
    state: &'a StoreState,
    slots: VecDeque<FailedSlot>,
}

impl Drop for FailedSlots<'_> {
    /// Gives up what is left when the device panics.
    fn drop(&mut self) {
        for failed in &self.slots {
            let objects = u32::try_from(failed.objects.len()).unwrap_or(u32::MAX);
            self.state.give_up(&failed.slot, objects);
        }
    }
}

impl StoreState {
    /// Begins a call that changes something, unless it cannot succeed.
    ///
    /// Where no background thread takes checkpoints to see whether the device accepts writes again,
    /// some calls do: fewer and fewer, as long as it does not.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::Closed`].
    pub(super) fn begin_change(&self, context: &'static str) -> Result<CallGuard<'_>, Error> {
        let call = self.begin_call()?;
        self.dispatcher.check_accepted(OpKind::Write).context(context)?;
        if self.refuses_writes() && !self.worker.is_present() && self.refused_backoff.is_due() {
            // `check_writes` below reports the result.
            let _ = checkpoint::take_if(self, CheckpointPurpose::Period, |_| self.refuses_writes());
        }
        self.check_writes(context).map(|()| call)
    }

    /// Writes what failed elsewhere. `attempt` writes and publishes an allocation once, and returns
    /// what failed; `give_up` is called with each object that is not written, why, and the error of
    /// its write.
    pub(super) fn retry(
        &self,
        failed: Vec<FailedSlot>,
        mut attempt: impl FnMut(&Allocation) -> Vec<FailedSlot>,
        mut give_up: impl FnMut(u32, GiveUpReason, &Error),
    ) {
        let mut left = FailedSlots { state: self, slots: failed.into() };
        for number in 1..=ATTEMPTS {
            for _ in 0..left.slots.len() {
                let Some(failed) = left.slots.pop_front() else { break };
                let is_final = !self.note_failure(&failed);
                if number == ATTEMPTS || is_final || self.refuses_writes() {
                    self.end_failed(&failed, &failed.objects, GiveUpReason::Failed, &mut give_up);
                } else {
                    left.slots.extend(self.write_again(&failed, &mut attempt, &mut give_up));
                }
            }
        }
    }

    /// Counts a write that failed. Returns whether another one may succeed.
    fn note_failure(&self, failed: &FailedSlot) -> bool {
        use ErrorKind::{Forked, OutOfResources, WritesStopped};
        let Error::Device { error, .. } = &failed.error else { return false };
        if matches!(error.kind(), Forked | OutOfResources | WritesStopped) {
            return false;
        }
        self.write_failed(failed.slot.segment, failed.slot.generation, error);
        true
    }

    /// Writes objects elsewhere whose writes failed. Returns those whose writes failed again.
    fn write_again(
        &self,
        failed: &FailedSlot,
        attempt: &mut impl FnMut(&Allocation) -> Vec<FailedSlot>,
        give_up: &mut impl FnMut(u32, GiveUpReason, &Error),
    ) -> Vec<FailedSlot> {
        let mut left = failed.objects.clone();
        let mut allocation = Allocation::default();
        let extended = self.with_space(|space| {
            // Objects without space fail: while they are in flight, a reclaim may wait for them.
            let _ = space.allocate_again(&failed.slot, &mut left, &mut allocation);
            self.extend_index(space, 0, &mut allocation)
        });
        self.end_failed(failed, &left, GiveUpReason::NoSpace, give_up);
        if extended.is_err() {
            // They are in flight no more.
            let is_left = |of: &&Retry| left.iter().any(|left| left.index == of.index);
            let lost = failed.objects.iter().filter(|of| !is_left(of));
            lost.for_each(|of| give_up(of.index, GiveUpReason::Failed, &failed.error));
            return Vec::new();
        }
        if allocation.slots.is_empty() {
            return Vec::new();
        }
        self.counters.repeated_writes.add(allocation.slots.len() as u64);
        let failed_again = attempt(&allocation);
        tracing::debug!(device = self.device_name(), error = %failed.error, "a slot was written again");
        failed_again
    }

    /// The last attempt to write these objects of a slot has failed.
    fn end_failed(
        &self,
        failed: &FailedSlot,
        objects: &[Retry],
        why: GiveUpReason,
        give_up: &mut impl FnMut(u32, GiveUpReason, &Error),
    ) {
        if !objects.is_empty() {
            self.give_up(&failed.slot, u32::try_from(objects.len()).unwrap_or(u32::MAX));
            objects.iter().for_each(|of| give_up(of.index, why, &failed.error));
        }
    }
}

/// The error of a slot in a segment whose header another thread did not write.
pub(super) fn header_error(slot: &Slot, context: &'static str, device: &str) -> Error {
    let rule = format!("the header of segment {} could not be written", slot.segment);
    let error = raw_block_core::Error::new(ErrorKind::Io, "write", rule).on(device);
    Error::Device { context, error }
}

#[cfg(test)]
mod tests;

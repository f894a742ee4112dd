//! Slots of the store: their allocation, with memory in the index, and their end.

use super::index::Located;
use super::space::{
    AllocatedObject, Allocation, Batch, HeaderState, OpenedSegment, Outcome, Shortage, Slot, Space,
};
use super::store_state::StoreState;
use crate::Error;
use crate::mutant::Mutant;
use crate::stats::health::Concern;

/// Why nothing was allocated.
#[derive(Clone, Debug)]
pub(crate) enum NoSpace {
    /// There is no space on the device.
    Space(Shortage),
    /// There is no memory for the index.
    Memory(Error),
}

impl From<Shortage> for NoSpace {
    fn from(shortage: Shortage) -> Self {
        Self::Space(shortage)
    }
}

impl StoreState {
    /// Allocates space for the rest of a batch, like [`Space::allocate`], and the memory for it in
    /// the index.
    ///
    /// # Errors
    /// A part of the batch is not allocated. The allocated part is in `out`.
    pub(crate) fn allocate(&self, batch: &mut Batch, out: &mut Allocation) -> Result<(), NoSpace> {
        let mut guard = self.lock();
        let first = out.slots.len();
        let allocated = guard.space.allocate(batch, out);
        self.policy.set_clock(guard.space.clock());
        if self.worker.is_idle() && guard.space.wants_worker(self.index.len()) {
            self.worker.wake();
        }
        self.extend_index(&mut guard.space, first, out)?;
        Ok(allocated?)
    }

    /// Like [`Space::allocate_tombstones`], with the memory for it in the index.
    ///
    /// # Errors
    /// There is no space or no memory.
    pub(crate) fn allocate_tombstones(&self, out: &mut Allocation) -> Result<(), NoSpace> {
        let mut guard = self.lock();
        let first = out.slots.len();
        guard.space.allocate_tombstones(out)?;
        self.extend_index(&mut guard.space, first, out)
    }

    /// Makes the entries exist in the index of the slots from `first` on, for a caller that holds
    /// the lock of the space. If there is no memory for them, they fail and are removed.
    ///
    /// # Errors
    /// [`NoSpace::Memory`].
    pub(crate) fn extend_index(
        &self,
        space: &mut Space,
        first: usize,
        out: &mut Allocation,
    ) -> Result<(), NoSpace> {
        let extend = |slot: &Slot| {
            let entries = slot.first_number.saturating_add(slot.entries());
            self.index.extend(slot.segment, entries)
        };
        let Some(error) = out.slots[first..].iter().find_map(|slot| extend(slot).err()) else {
            return Ok(());
        };
        for slot in out.slots.drain(first..).collect::<Vec<_>>() {
            if let Some(opened) = slot.opened {
                space.header_written(&opened, false);
            }
            let objects = out.objects.get(slot.objects.clone()).unwrap_or(&[]);
            space.published(&slot, objects, objects.iter().map(|_| Outcome::Failed), &[]);
            space.give_up(&slot, slot.entries());
        }
        Err(NoSpace::Memory(error))
    }

    /// Reports the outcome of a slot, like [`Space::published`], and frees segments that waited for
    /// it.
    pub(crate) fn published(
        &self,
        slot: &Slot,
        objects: &[AllocatedObject],
        outcomes: impl IntoIterator<Item = Outcome>,
        dropped: &[Located],
    ) {
        let may_free = self.with_space(|space| {
            space.published(slot, objects, outcomes, dropped);
            space.may_have_drained()
        });
        if may_free {
            self.free_drained();
        }
    }

    /// Ends a slot that was being written when the device panicked: its objects fail.
    pub(crate) fn abandon(&self, slot: &Slot, objects: &[AllocatedObject]) {
        if let Some(opened) = &slot.opened {
            self.header_written(opened, false);
        }
        self.published(slot, objects, objects.iter().map(|_| Outcome::Failed), &[]);
        self.give_up(slot, slot.entries());
    }

    /// Ends the last attempt to write objects of a slot, as [`Space::give_up`].
    pub(crate) fn give_up(&self, failed: &Slot, objects: u32) {
        let may_free = self.with_space(|space| {
            space.give_up(failed, objects);
            space.may_have_drained()
        });
        if may_free {
            self.free_drained();
        }
    }

    /// Reports how the write of a segment's header ended.
    pub(crate) fn header_written(&self, opened: &OpenedSegment, written: bool) {
        self.with_space(|space| space.header_written(opened, written));
    }

    /// Waits until the header of a slot's segment is written, or not. Returns whether it is: only
    /// then the objects of the slot may be published.
    pub(crate) fn wait_for_header(&self, slot: &Slot) -> bool {
        if slot.header == HeaderState::Written || Mutant::PutBeforeSegmentHeader.is_on() {
            return true;
        }
        let ended = |space: &mut Space| {
            Some(space.header_of(slot)).filter(|of| *of != HeaderState::Writing)
        };
        let header = self.wait_for(ended);
        header == HeaderState::Written || Mutant::PutAlthoughSegmentHeaderFailed.is_on()
    }

    /// Puts a segment into quarantine, to which the device may still carry out a write that failed
    /// with this error.
    pub(crate) fn quarantine(&self, segment: u32, generation: u64, error: &raw_block_core::Error) {
        // The first one is as good as any.
        let _ = self.unknown.set(error.clone());
        if self.with_space(|space| space.quarantine(segment, generation)) {
            self.note_quarantine(segment);
        }
    }

    /// Reports in the health of the store which segments were in quarantine before.
    pub(crate) fn note_bad_segments(&self) {
        let bad = self.with_space(|space| space.usage()).bad;
        if bad > 0 {
            let reason = format!("{bad} segments are in quarantine: writes to them failed");
            self.health.raise(Concern::Quarantine, self.device_name(), reason);
        }
    }

    pub(super) fn note_quarantine(&self, segment: u32) {
        let reason = format!("segment {segment} is in quarantine: writes to it failed");
        self.health.raise(Concern::Quarantine, self.device_name(), reason);
    }
}

//! The segment that objects are moved out of.

use raw_block_core::ReadAt;

use crate::format::Entry;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::Located;

/// What is done with an object that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is moved.
    Move,
    /// Its payload is damaged. It is moved as it is, and stays damaged.
    MoveDamaged,
    /// It is not moved.
    Drop,
    /// It cannot be read, and may not be evicted: nothing is moved.
    Unreadable,
}

/// The segment that objects are moved out of. Nothing releases it while they are.
pub(super) struct Source<'a> {
    state: &'a StoreState,
    pub(super) segment: u32,
    generation: u64,
    evicts: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(state: &'a StoreState, segment: u32) -> Self {
        let generation = state.readers.generation(segment);
        let evicts = state.with_space(|space| space.evicts());
        Self { state, segment, generation, evicts }
    }

    /// A read from a block of the segment.
    pub(super) fn read_at<'b>(&self, block: u32, bytes: &'b mut [u8]) -> ReadAt<'b> {
        ReadAt::new(self.state.layout.block_offset(self.segment, block), bytes)
    }

    /// Reads once more what could not be read, or failed its check.
    pub(super) fn read_again(&self, block: u32, bytes: &mut [u8]) -> bool {
        self.state.dispatcher.read_buffers(&mut [self.read_at(block, bytes)]).all().is_ok()
    }

    /// The generation of the segment.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a payload that was read, with this hash, is what was written.
    pub(super) fn is_intact(&self, entry: &Entry, payload_hash: u64) -> bool {
        let place = entry.place(self.segment, self.generation);
        Mutant::TornObjectsMoved.is_on()
            || entry.checksum == place.checksum(&self.state.layout, payload_hash)
    }

    /// What is done with an object that cannot be read.
    pub(super) fn unreadable(&self) -> Fate {
        if self.evicts { Fate::Drop } else { Fate::Unreadable }
    }

    /// What is done with an object whose payload failed its check twice. It is counted and logged,
    /// unless it was before. One that a recovery found was torn by the power cut, and is gone. So
    /// is any in a store that evicts.
    pub(super) fn damaged(&self, object: &Located) -> Fate {
        let Self { state, segment, .. } = *self;
        let is_torn = state.index.is_unverified(object.place);
        if state.index.mark_damaged(object) {
            state.counters.failed_checks.add(1);
            let (device, block) = (state.device_name(), object.entry.block.get());
            tracing::error!(device, segment, block, is_torn, "an object is damaged");
        }
        if !is_torn && !self.evicts {
            return Fate::MoveDamaged;
        }
        state.with_space(|space| {
            // An older put in flight must not come back.
            let oldest = space.oldest_in_flight();
            if state.index.remove(object, Some(oldest)) {
                space.drop_objects(std::slice::from_ref(object));
            }
        });
        Fate::Drop
    }
}

//! Readers of segments, and the release of segments that nothing keeps.

use super::index::Located;
use super::pins::PinId;
use super::space::{LookupTime, Space};
use super::store_state::StoreState;

/// A reader of a segment, which is not freed until this is dropped.
pub(crate) struct ReadGuard<'a> {
    state: &'a StoreState,
    pub(crate) segment: u32,
    pub(crate) generation: u64,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        if self.state.readers.leave(self.segment) && !self.state.is_inherited() {
            self.state.free_drained();
        }
    }
}

impl StoreState {
    /// Begins to read a segment in which the index showed an object after `since`; `None` if the
    /// object has to be looked up again.
    pub(crate) fn read_segment(&self, segment: u32, since: LookupTime) -> Option<ReadGuard<'_>> {
        match self.readers.enter(segment, since) {
            Ok(generation) => Some(ReadGuard { state: self, segment, generation }),
            Err(was_last) => {
                if was_last {
                    self.free_drained();
                }
                None
            }
        }
    }

    /// Begins to read a pinned version: returns its place, and a reader of its segment.
    pub(crate) fn read_pinned(&self, pin: PinId) -> Option<(Located, ReadGuard<'_>)> {
        let guard = self.lock();
        let (object, generation) = guard.space.pinned(pin)?;
        let segment = object.place.segment;
        // The pin keeps the segment from being closed, as long as the lock keeps the object from
        // being moved.
        self.readers.enter_kept(segment);
        Some((object, ReadGuard { state: self, segment, generation }))
    }

    /// Removes a pin.
    pub(crate) fn unpin(&self, pin: PinId) {
        if self.with_space(|space| space.unpin(pin)) {
            self.free_drained();
        }
    }

    /// Frees the draining segments that nothing keeps.
    pub(crate) fn free_drained(&self) {
        let drained = self.with_space(Space::take_drained);
        for segment in drained {
            self.index.release(segment);
            self.with_space(|space| space.freed(segment));
        }
    }
}

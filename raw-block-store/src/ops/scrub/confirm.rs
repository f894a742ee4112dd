//! What failed its checks is read once more before it counts.

use raw_block_core::ReadAt;

use super::windows::Window;
use super::{Finding, SCRUB, Scrub, offset_of};
use crate::Error;
use crate::error::Context;
use crate::format::{Damage, SegmentHeader};
use crate::ops::header::slot_header;
use crate::ops::verify::VerifyFailure;
use crate::state::ReadGuard;
use crate::state::index::Located;

impl<'a> Scrub<'a> {
    /// Reads the header of a segment once more, which cannot be read or is damaged.
    pub(super) fn confirm_segment_header(&mut self, window: &Window) -> Result<(), Error> {
        let state = &*self.store.state;
        let segment = window.segment;
        let Some(_guard) = self.read_segment(window) else { return Ok(()) };
        let mut block = state.scratch.take(state.layout.block_size as usize)?;
        let offset = state.layout.segment_offset(segment);
        let read = state.dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut block)]).all();
        let checked = read.context(SCRUB).and_then(|()| {
            let structure = "the header of a segment";
            let damaged = |damage| Error::Damaged { structure, offset, damage };
            let header = SegmentHeader::read(&block, &state.layout, segment).map_err(damaged)?;
            let (found, expected) = (header.generation.get(), window.generation);
            if found == expected {
                return Ok(());
            }
            Err(damaged(Damage::WrongPlace { found, expected }))
        });
        if let Err(error) = checked {
            self.note(Finding { key: None, segment: Some(segment), offset, error });
        }
        Ok(())
    }

    /// Reads an object or a tombstone once more that failed its checks or could not be read. If it
    /// fails again, it is reported, and an object that is damaged is marked.
    pub(super) fn confirm(&mut self, window: &Window, located: &Located) -> Result<(), Error> {
        if self.found.contains(&located.place.number) {
            return Ok(());
        }
        let Some(guard) = self.read_shown(window, located) else {
            // It was replaced, deleted or moved in the meantime.
            self.report.objects -= u64::from(located.entry.is_object());
            return Ok(());
        };
        let checked = if located.entry.is_tombstone() {
            self.read_tombstone(window, located)?
        } else {
            self.store.verify(located, window.generation)?
        };
        let state = &*self.store.state;
        let Err(VerifyFailure { key, offset, error }) = checked else {
            if located.entry.is_object() {
                state.index.set_verified(located.place);
            }
            return Ok(());
        };
        if located.entry.is_object() && matches!(error, Error::Damaged { .. }) {
            state.mark_damaged(located);
        }
        drop(guard);
        self.found.insert(located.place.number);
        self.note(Finding { key, segment: Some(window.segment), offset, error });
        Ok(())
    }

    /// Begins to read the segment of a window, if it has the same generation.
    fn read_segment(&self, window: &Window) -> Option<ReadGuard<'a>> {
        let state = &*self.store.state;
        loop {
            let since = state.readers.begin();
            match state.read_segment(window.segment, since) {
                Some(guard) => return Some(guard).filter(|of| of.generation == window.generation),
                None if state.readers.generation(window.segment) != window.generation => {
                    return None;
                }
                // Another segment was closed.
                None => {}
            }
        }
    }

    /// Begins to read the segment of an entry, if the entry is still live in it.
    pub(super) fn read_shown(&self, window: &Window, located: &Located) -> Option<ReadGuard<'a>> {
        let guard = self.read_segment(window)?;
        let live = self.store.state.index.live(located.place);
        (live == Some(located.entry)).then_some(guard)
    }

    fn read_tombstone(
        &self,
        window: &Window,
        located: &Located,
    ) -> Result<Result<(), VerifyFailure>, Error> {
        let state = &*self.store.state;
        let number = located.entry.block.get();
        let offset = offset_of(self.store, located.place, number);
        let mut block = state.scratch.take(state.layout.block_size as usize)?;
        let read = state.dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut block)]).all();
        let checked = read.context(SCRUB).and_then(|()| {
            let view = slot_header(state, &block, (window.segment, number), window.generation)?;
            let is_it = view.tombstone_entry() == Some(located.entry);
            let damage = Damage::Inconsistent("it has other tombstones than the index");
            let structure = "a slot header";
            if is_it { Ok(()) } else { Err(Error::Damaged { structure, offset, damage }) }
        });
        Ok(checked.map_err(|error| VerifyFailure { key: None, offset, error }))
    }
}

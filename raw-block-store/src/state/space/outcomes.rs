//! Outcomes of allocated slots: written, published, or failed.

use super::Space;
use super::allocation::{AllocatedObject, OpenedSegment, Outcome, Slot};
use super::segment::{HeaderState, Live, SegmentState};
use super::shape::Demand;
use crate::mutant::Mutant;
use crate::state::index::Located;

/// Media errors in two generations of a segment in a row that put it into quarantine.
const QUARANTINE_ERRORS: u32 = 2;

impl Space {
    /// This number of objects of a slot are no longer in flight, because their last attempt failed.
    pub(crate) fn give_up(&mut self, failed: &Slot, objects: u32) {
        if let Some(change) = failed.change {
            self.changes.end(change, objects);
        }
        self.changed();
    }

    /// The write of a segment's header ended. If it failed, nothing in the segment counts: the
    /// slots in it fail.
    pub(crate) fn header_written(&mut self, opened: &OpenedSegment, written: bool) {
        let Some(segment) = self.segments.get_mut(opened.segment as usize) else { return };
        if segment.generation != opened.generation || segment.header != HeaderState::Writing {
            return;
        }
        segment.header = if written { HeaderState::Written } else { HeaderState::Failed };
        if !written {
            self.seal(opened.segment);
        }
        self.changed();
    }

    /// Whether the header of the segment of a slot is on the device.
    pub(crate) fn header_of(&self, slot: &Slot) -> HeaderState {
        let segment = self.segment(slot.segment).filter(|of| of.generation == slot.generation);
        segment.map_or(HeaderState::Failed, |segment| segment.header)
    }

    /// The objects of a slot are published, or failed. `objects` are those of the slot, `outcomes`
    /// the outcome of each, `dropped` the objects that the index no longer shows because of them.
    pub(crate) fn published(
        &mut self,
        slot: &Slot,
        objects: &[AllocatedObject],
        outcomes: impl IntoIterator<Item = Outcome>,
        dropped: &[Located],
    ) {
        let (mut ended, mut failed, mut dead) = (0, false, Live::default());
        for (object, outcome) in objects.iter().zip(outcomes) {
            ended += u32::from(outcome != Outcome::Failed);
            failed |= outcome == Outcome::Failed;
            if outcome != Outcome::Shown && !slot.tombstone {
                dead.add(&Live::of(object.demand, &self.shape));
            }
        }
        if let Some(segment) = self.segments.get_mut(slot.segment as usize)
            && segment.generation == slot.generation
        {
            segment.live.subtract(&dead);
            segment.slots.settle(slot.position);
        }
        if failed {
            self.slot_failed(slot, objects);
        }
        if let Some(change) = slot.change
            && ended > 0
        {
            self.changes.end(change, ended);
        }
        self.drop_objects(dropped);
        if slot.tombstone {
            self.note_deleted(dropped);
        }
        self.changed();
    }

    fn slot_failed(&mut self, slot: &Slot, objects: &[AllocatedObject]) {
        if !Mutant::FilledPastFailedSlot.is_on() {
            self.seal(slot.segment);
        }
        if slot.tombstone
            && let Some(object) = objects.first()
            && let Ok(at) = self.tombstones.binary_search_by_key(&object.sequence, |&(seq, _)| seq)
        {
            self.tombstones.remove(at);
            self.count_tombstones(slot.segment, -1);
        }
    }

    /// Objects were deleted without tombstones.
    pub(crate) fn removed(&mut self, dropped: &[Located]) {
        self.drop_objects(dropped);
        self.note_deleted(dropped);
        self.changed();
    }

    /// The index no longer shows these objects.
    pub(crate) fn drop_objects(&mut self, dropped: &[Located]) {
        for object in dropped {
            let live = Live::of(Demand::of(&object.entry), &self.shape);
            if let Some(segment) = self.segments.get_mut(object.place.segment as usize) {
                segment.live.subtract(&live);
                (segment.futile, segment.stuck) = (false, false);
            }
            self.replace_pinned(object.place);
        }
    }

    /// This number of objects of a slot no longer count as in flight for checkpoints: a mutation.
    pub(crate) fn end_early(&mut self, slot: &mut Slot, objects: u32) {
        if let Some(change) = slot.change.take() {
            self.changes.end(change, objects);
        }
    }

    /// A write to a generation of a segment failed with a media error, and a later write succeeded,
    /// so the fault is that of the segment. The second time in this generation and the one before
    /// puts the segment into quarantine; returns whether this did.
    pub(crate) fn confirm_error(&mut self, number: u32, generation: u64) -> bool {
        let Some(segment) = self.segments.get_mut(number as usize) else { return false };
        if segment.generation == generation {
            segment.errors += 1;
        } else if segment.previous_generation == generation {
            segment.earlier_errors += 1;
        }
        // While it is free, the next failure shows it.
        let is_used = matches!(
            segment.state,
            SegmentState::Open | SegmentState::Full | SegmentState::Draining
        );
        if !is_used || segment.bad || segment.errors + segment.earlier_errors < QUARANTINE_ERRORS {
            return false;
        }
        segment.bad = true;
        self.seal(number);
        true
    }

    /// The device may still carry out a write to a segment that failed, so the segment is in
    /// quarantine: what is written there next would not be safe. Returns whether it was not before.
    pub(crate) fn quarantine(&mut self, number: u32, generation: u64) -> bool {
        self.seal(number);
        let Some(segment) = self.segments.get_mut(number as usize) else { return false };
        segment.generation == generation && !std::mem::replace(&mut segment.bad, true)
    }
}

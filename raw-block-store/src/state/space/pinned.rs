//! Pins, and the segments that they keep.

use super::Space;
use crate::state::index::{Located, Place};
use crate::state::pins::{MovedPin, PinId};

impl Space {
    /// Pins the version of an object that the index shows. The caller has looked it up with the
    /// space locked.
    pub(crate) fn pin(&mut self, object: &Located) -> PinId {
        let (pin, is_first) = self.pins.add(object);
        if is_first && let Some(segment) = self.segment_mut(object.place.segment) {
            segment.pins += 1;
        }
        pin
    }

    /// The current place of a pinned version, and the generation of its segment.
    pub(crate) fn pinned(&self, pin: PinId) -> Option<(Located, u64)> {
        let object = self.pins.get(pin)?;
        Some((object, self.segment(object.place.segment)?.generation))
    }

    /// Whether the object at a place is pinned.
    pub(crate) fn is_pinned(&self, place: Place) -> bool {
        self.pins.holds(place)
    }

    /// The number of pinned versions.
    pub(crate) fn pinned_versions(&self) -> usize {
        self.pins.len()
    }

    /// Removes a pin. Returns whether it was the last one of its version: then draining segments
    /// may be free.
    pub(crate) fn unpin(&mut self, pin: PinId) -> bool {
        let Some((place, was_replaced)) = self.pins.remove(pin) else { return false };
        if let Some(segment) = self.segment_mut(place.segment) {
            segment.pins = segment.pins.saturating_sub(1);
            segment.old_pins = segment.old_pins.saturating_sub(was_replaced.into());
            (segment.futile, segment.stuck) = (false, false);
        }
        self.changed();
        true
    }

    /// The object at a place was overwritten, deleted or evicted. If it is pinned, it keeps its
    /// segment.
    pub(crate) fn replace_pinned(&mut self, place: Place) {
        if !self.pins.is_empty()
            && self.pins.replace(place)
            && let Some(segment) = self.segment_mut(place.segment)
        {
            segment.old_pins += 1;
        }
    }

    /// A copy took the place of an object. Its pins follow.
    pub(super) fn move_pin(&mut self, from: Place, to: &Located) {
        if self.pins.is_empty() {
            return;
        }
        let moved = self.pins.move_to(from, to);
        if moved != MovedPin::NotPinned
            && let Some(segment) = self.segment_mut(from.segment)
        {
            segment.pins = segment.pins.saturating_sub(1);
        }
        if moved == MovedPin::Moved
            && let Some(segment) = self.segment_mut(to.place.segment)
        {
            segment.pins += 1;
        }
    }
}

//! Which versions of objects are pinned, and where they are.

use std::collections::HashMap;

use super::index::{Located, Place};

/// The name of a pinned version of an object. Several pins may share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PinId(u64);

/// The pinned versions. They keep their name when they are moved.
#[derive(Debug, Default)]
pub(crate) struct PinTable {
    versions: HashMap<PinId, Version>,
    by_place: HashMap<Place, PinId>,
    next: u64,
}

#[derive(Debug)]
struct Version {
    object: Located,
    pins: u64,
    /// The index no longer shows it.
    replaced: bool,
    /// The name under which the version is kept, if another pin named its copy before the move of
    /// it had ended. That one counts the pins of this one too.
    same_as: Option<PinId>,
}

/// The effect of a move on the pins of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MovedPin {
    /// It is not pinned.
    NotPinned,
    /// It is pinned at its new place.
    Moved,
    /// It is pinned at its new place, as it was before the move had ended.
    Joined,
}

impl PinTable {
    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    pub(super) fn holds(&self, place: Place) -> bool {
        self.by_place.contains_key(&place)
    }

    pub(super) fn get(&self, pin: PinId) -> Option<Located> {
        let version = self.versions.get(&pin)?;
        version.same_as.map_or(Some(version.object), |same| self.get(same))
    }

    /// Adds a pin. Returns whether it is the first one of its version.
    pub(super) fn add(&mut self, object: &Located) -> (PinId, bool) {
        if let Some(&pin) = self.by_place.get(&object.place)
            && let Some(version) = self.versions.get_mut(&pin)
        {
            version.pins += 1;
            return (pin, false);
        }
        self.next += 1;
        let pin = PinId(self.next);
        self.versions
            .insert(pin, Version { object: *object, pins: 1, replaced: false, same_as: None });
        self.by_place.insert(object.place, pin);
        (pin, true)
    }

    /// Removes a pin. If it was the last one of its version, returns the place of the version, and
    /// whether it was replaced.
    pub(super) fn remove(&mut self, pin: PinId) -> Option<(Place, bool)> {
        let version = self.versions.get_mut(&pin)?;
        version.pins -= 1;
        let same_as = version.same_as;
        if version.pins > 0 {
            return same_as.and_then(|same| self.remove(same));
        }
        let Version { object, replaced, .. } = self.versions.remove(&pin)?;
        if let Some(same) = same_as {
            return self.remove(same);
        }
        self.by_place.remove(&object.place);
        Some((object.place, replaced))
    }

    /// The index no longer shows the object at this place. Returns whether it is pinned, and was
    /// shown before.
    pub(super) fn replace(&mut self, place: Place) -> bool {
        let version = self.by_place.get(&place).and_then(|pin| self.versions.get_mut(pin));
        version.is_some_and(|version| !std::mem::replace(&mut version.replaced, true))
    }

    /// The object at a place was moved.
    pub(super) fn move_to(&mut self, from: Place, to: &Located) -> MovedPin {
        let Some(pin) = self.by_place.remove(&from) else { return MovedPin::NotPinned };
        let same_as = self.by_place.get(&to.place).copied();
        let Some(version) = self.versions.get_mut(&pin) else { return MovedPin::NotPinned };
        version.object = *to;
        version.same_as = same_as;
        let pins = version.pins;
        match same_as.and_then(|same| self.versions.get_mut(&same)) {
            Some(same) => {
                same.pins += pins;
                MovedPin::Joined
            }
            None => {
                self.by_place.insert(to.place, pin);
                MovedPin::Moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Entry;

    fn at(number: u32) -> Located {
        Located { place: Place { segment: 0, number }, entry: Entry::EMPTY }
    }

    #[test]
    fn a_pin_of_a_copy_joins_those_of_the_object() {
        let mut pins = PinTable::default();
        let (first, _) = pins.add(&at(1));
        assert_eq!(pins.add(&at(1)), (first, false));
        let (second, is_first) = pins.add(&at(2));
        assert!(is_first);
        assert_eq!(pins.move_to(at(1).place, &at(2)), MovedPin::Joined);
        assert_eq!(pins.remove(second), None, "the others hold it");
        assert!(pins.holds(at(2).place) && !pins.holds(at(1).place));
        assert_eq!(pins.move_to(at(2).place, &at(3)), MovedPin::Moved);
        assert_eq!(pins.get(first), Some(at(3)));
        assert!(pins.replace(at(3).place));
        assert_eq!(pins.remove(first), None);
        assert_eq!(pins.remove(first), Some((at(3).place, true)));
        assert!(pins.is_empty() && !pins.holds(at(3).place));
    }
}

//! Which versions of objects are pinned, and where they are.

use std::collections::HashMap;

use super::index::{Located, Place};

/// Names a pinned version of an object. Several pins may have the same.
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
    /// The index does not show it any more.
    replaced: bool,
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
        self.versions.get(&pin).map(|version| version.object)
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
        self.versions.insert(pin, Version { object: *object, pins: 1, replaced: false });
        self.by_place.insert(object.place, pin);
        (pin, true)
    }

    /// Takes a pin back. If it was the last one of its version, returns where that is, and whether it was replaced.
    pub(super) fn remove(&mut self, pin: PinId) -> Option<(Place, bool)> {
        let version = self.versions.get_mut(&pin)?;
        version.pins -= 1;
        if version.pins > 0 {
            return None;
        }
        let Version { object, replaced, .. } = self.versions.remove(&pin)?;
        self.by_place.remove(&object.place);
        Some((object.place, replaced))
    }

    /// The index shows the object at this place no more. Returns whether it is pinned, and was shown before.
    pub(super) fn replace(&mut self, place: Place) -> bool {
        let version = self.by_place.get(&place).and_then(|pin| self.versions.get_mut(pin));
        version.is_some_and(|version| !std::mem::replace(&mut version.replaced, true))
    }

    /// The object at a place was moved. Returns whether it is pinned.
    pub(super) fn move_to(&mut self, from: Place, to: &Located) -> bool {
        let Some(pin) = self.by_place.remove(&from) else { return false };
        if let Some(version) = self.versions.get_mut(&pin) {
            version.object = *to;
        }
        self.by_place.insert(to.place, pin);
        true
    }
}

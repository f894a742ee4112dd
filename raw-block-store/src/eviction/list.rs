//! Lists of slots, linked through one table.

use crate::Error;

/// The end of a list; the slot of that number is in none.
const END: u32 = u32::MAX;

/// The neighbours of a slot in its list.
#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
}

/// A slot that is in no list points to itself, which none in a list does.
const fn alone(slot: u32) -> Link {
    Link { newer: slot, older: slot }
}

/// The links of all lists: 8 bytes a slot.
pub(super) struct Links(Box<[Link]>);

/// A list from the newest to the oldest slot. A slot is in one list of its table at a time.
#[derive(Debug)]
pub(super) struct List {
    newest: u32,
    oldest: u32,
    len: u64,
}

impl Links {
    pub(super) fn new(slots: u64) -> Result<Self, Error> {
        let bytes = slots.saturating_mul(size_of::<Link>() as u64);
        let no_memory = || Error::OutOfMemory { what: "the eviction policy", bytes };
        let len = usize::try_from(slots).map_err(|_| no_memory())?;
        let mut links = Vec::new();
        links.try_reserve_exact(len).map_err(|_| no_memory())?;
        links.extend((0..=END).take(len).map(alone));
        Ok(Self(links.into()))
    }

    /// Whether a slot is in a list.
    pub(super) fn holds(&self, slot: u32) -> bool {
        self.0.get(slot as usize).is_some_and(|link| link.newer != slot)
    }
}

impl List {
    pub(super) const EMPTY: Self = Self { newest: END, oldest: END, len: 0 };

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a slot, which is in no list, as the newest.
    pub(super) fn push(&mut self, slot: u32, links: &mut Links) {
        links.0[slot as usize] = Link { newer: END, older: self.newest };
        match self.newest {
            END => self.oldest = slot,
            newest => links.0[newest as usize].newer = slot,
        }
        self.newest = slot;
        self.len += 1;
    }

    /// Takes a slot out, which is in this list.
    pub(super) fn remove(&mut self, slot: u32, links: &mut Links) {
        let Link { newer, older } = links.0[slot as usize];
        match newer {
            END => self.newest = older,
            newer => links.0[newer as usize].older = older,
        }
        match older {
            END => self.oldest = newer,
            older => links.0[older as usize].newer = newer,
        }
        links.0[slot as usize] = alone(slot);
        self.len -= 1;
    }

    /// Takes the oldest slot.
    pub(super) fn pop(&mut self, links: &mut Links) -> Option<u32> {
        let oldest = Some(self.oldest).filter(|&slot| slot != END)?;
        self.remove(oldest, links);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_leave_in_the_order_in_which_they_came_unless_removed() {
        let mut links = Links::new(5).unwrap();
        let (mut list, mut other) = (List::EMPTY, List::EMPTY);
        for slot in 0..5 {
            assert!(!links.holds(slot));
            if slot == 3 { &mut other } else { &mut list }.push(slot, &mut links);
            assert!(links.holds(slot));
        }
        list.remove(1, &mut links);
        assert!(!links.holds(1));
        assert_eq!((list.len(), other.len()), (3, 1));
        let mut left = || list.pop(&mut links);
        assert_eq!([left(), left(), left(), left()], [Some(0), Some(2), Some(4), None]);
        assert_eq!(other.pop(&mut links), Some(3));
        list.push(1, &mut links);
        assert_eq!(list.pop(&mut links), Some(1));
    }
}

//! Least recently used.

use super::Policy;
use super::list::{Links, List};
use crate::Error;
use crate::index::KeyHash;

/// One list, in the order of last use: 8 bytes a slot.
pub(super) struct Lru {
    links: Links,
    list: List,
}

impl Lru {
    pub(super) fn new(slots: u64) -> Result<Self, Error> {
        Ok(Self { links: Links::new(slots)?, list: List::EMPTY })
    }
}

impl Policy for Lru {
    fn insert(&mut self, slot: u32, _: &KeyHash) {
        self.remove(slot);
        self.list.push(slot, &mut self.links);
    }

    fn touch(&mut self, slot: u32) {
        if self.links.holds(slot) {
            self.list.remove(slot, &mut self.links);
            self.list.push(slot, &mut self.links);
        }
    }

    fn remove(&mut self, slot: u32) {
        if self.links.holds(slot) {
            self.list.remove(slot, &mut self.links);
        }
    }

    fn victim(&mut self, _: &dyn Fn(u32) -> KeyHash) -> Option<u32> {
        self.list.pop(&mut self.links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut lru = Lru::new(4).unwrap();
        let hash = |_| [0; 16];
        (0..4).for_each(|slot| lru.insert(slot, &[0; 16]));
        lru.touch(0);
        lru.insert(1, &[0; 16]);
        lru.remove(2);
        lru.touch(2);
        let mut victim = || lru.victim(&hash);
        assert_eq!([victim(), victim(), victim(), victim()], [Some(3), Some(0), Some(1), None]);
    }
}

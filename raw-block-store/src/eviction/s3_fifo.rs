//! S3-FIFO: a small queue that most objects leave unused, a main queue for those that were used, and the
//! ghosts of those that left the small queue too early.

use super::Policy;
use super::list::{Links, List};
use crate::Error;
use crate::index::KeyHash;

/// The small queue has one of so many parts of the objects.
const SMALL_PART: u64 = 10;
/// How many uses are counted.
const MAX_USES: u8 = 3;
/// How many uses in the small queue it takes to get into the main queue.
const PROMOTING_USES: u8 = 2;
/// The bit of an object that is in the main queue, beside its uses.
const IN_MAIN: u8 = 1 << 7;

/// 13 bytes a slot.
pub(super) struct S3Fifo {
    links: Links,
    small: List,
    main: List,
    /// For each slot, the uses of its object, and in which queue it is.
    uses: Box<[u8]>,
    /// Parts of the hashes of keys that were evicted from the small queue, each in the place that another
    /// part of it says.
    ghosts: Box<[u32]>,
}

impl S3Fifo {
    pub(super) fn new(slots: u64) -> Result<Self, Error> {
        Ok(Self {
            links: Links::new(slots)?,
            small: List::EMPTY,
            main: List::EMPTY,
            uses: zeroes(slots)?,
            ghosts: zeroes(slots)?,
        })
    }

    /// Where the ghost of a key is, and what it looks like, never 0.
    fn ghost(&self, hash: &KeyHash) -> (usize, u32) {
        let [.., a, b, c, d, e, f, g, h] = *hash;
        let place = u32::from_le_bytes([a, b, c, d]) as usize % self.ghosts.len().max(1);
        (place, u32::from_le_bytes([e, f, g, h]) | 1)
    }

    fn list(&mut self, slot: u32) -> (&mut List, &mut Links) {
        let in_main = self.uses[slot as usize] & IN_MAIN != 0;
        (if in_main { &mut self.main } else { &mut self.small }, &mut self.links)
    }

    fn push(&mut self, slot: u32, uses: u8) {
        self.uses[slot as usize] = uses;
        let (list, links) = self.list(slot);
        list.push(slot, links);
    }
}

impl Policy for S3Fifo {
    fn insert(&mut self, slot: u32, hash: &KeyHash) {
        self.remove(slot);
        let (place, ghost) = self.ghost(hash);
        let comes_back = self.ghosts.get(place) == Some(&ghost);
        if comes_back {
            self.ghosts[place] = 0;
        }
        self.push(slot, if comes_back { IN_MAIN } else { 0 });
    }

    fn touch(&mut self, slot: u32) {
        if self.links.holds(slot) {
            let uses = &mut self.uses[slot as usize];
            if *uses & !IN_MAIN < MAX_USES {
                *uses += 1;
            }
        }
    }

    fn remove(&mut self, slot: u32) {
        if self.links.holds(slot) {
            let (list, links) = self.list(slot);
            list.remove(slot, links);
        }
    }

    fn victim(&mut self, hash: &dyn Fn(u32) -> KeyHash) -> Option<u32> {
        loop {
            let all = self.small.len() + self.main.len();
            if self.small.len() > all / SMALL_PART || self.main.len() == 0 {
                let slot = self.small.pop(&mut self.links)?;
                if self.uses[slot as usize] < PROMOTING_USES {
                    let (place, ghost) = self.ghost(&hash(slot));
                    self.ghosts[place] = ghost;
                    return Some(slot);
                }
                self.push(slot, IN_MAIN);
            } else {
                let slot = self.main.pop(&mut self.links)?;
                match self.uses[slot as usize] & !IN_MAIN {
                    0 => return Some(slot),
                    uses => self.push(slot, IN_MAIN | (uses - 1)),
                }
            }
        }
    }
}

fn zeroes<T: Clone + Default>(slots: u64) -> Result<Box<[T]>, Error> {
    let bytes = slots.saturating_mul(size_of::<T>() as u64);
    let no_memory = || Error::OutOfMemory { what: "the eviction policy", bytes };
    let len = usize::try_from(slots).map_err(|_| no_memory())?;
    let mut zeroes = Vec::new();
    zeroes.try_reserve_exact(len).map_err(|_| no_memory())?;
    zeroes.resize(len, T::default());
    Ok(zeroes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(slot: u32) -> KeyHash {
        let mut hash = [0; 16];
        hash[8..12].copy_from_slice(&slot.to_le_bytes());
        hash[12..].copy_from_slice(&(2 * slot + 1).to_le_bytes());
        hash
    }

    fn victims(policy: &mut S3Fifo, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| policy.victim(&hash)).collect()
    }

    #[test]
    fn what_was_not_used_goes_in_the_order_in_which_it_came() {
        let mut policy = S3Fifo::new(10).unwrap();
        (0..10).for_each(|slot| policy.insert(slot, &hash(slot)));
        policy.remove(1);
        assert_eq!(victims(&mut policy, 20), [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_scan_does_not_wash_out_what_is_used() {
        let mut policy = S3Fifo::new(200).unwrap();
        for slot in 0..50 {
            policy.insert(slot, &hash(slot));
            policy.touch(slot);
            policy.touch(slot);
        }
        (50..200).for_each(|slot| policy.insert(slot, &hash(slot)));
        assert!(victims(&mut policy, 140).iter().all(|&slot| slot >= 50));
    }

    #[test]
    fn a_key_that_comes_back_soon_stays_longer() {
        let mut policy = S3Fifo::new(100).unwrap();
        (0..20).for_each(|slot| policy.insert(slot, &hash(slot)));
        assert_eq!(victims(&mut policy, 1), [0]);
        // Back in another slot, with the same key.
        policy.insert(50, &hash(0));
        assert!(!victims(&mut policy, 17).contains(&50));
    }

    #[test]
    fn in_the_main_queue_the_used_ones_get_another_round() {
        let mut policy = S3Fifo::new(4).unwrap();
        for slot in 0..3 {
            policy.insert(slot, &hash(slot));
            policy.touch(slot);
            policy.touch(slot);
        }
        // All are promoted, their uses forgotten; then only slot 0 is used.
        assert_eq!(victims(&mut policy, 1), [0]);
        policy.touch(1);
        assert_eq!(victims(&mut policy, 2), [2, 1]);
    }
}

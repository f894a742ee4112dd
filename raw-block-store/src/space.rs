//! Which slots and delete log blocks can be written, and the sequences that go with them.

use std::collections::BTreeMap;
use std::ops::Range;

/// A slot to write an object to, and the sequence of that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u64,
    pub(crate) sequence: u64,
}

/// The free slots and log blocks of a store.
///
/// A slot that held an object, or may hold one that failed to be written, does not become free at once:
/// its header could bring an old state back. It waits for the next checkpoint, which speaks for all
/// sequences given out before it.
#[derive(Debug)]
pub(crate) struct Space {
    /// Free slots as runs: first slot, number of slots. Runs do not touch.
    free: BTreeMap<u64, u64>,
    free_slots: u64,
    /// Slots that wait for a checkpoint.
    waiting: Vec<u64>,
    next_sequence: u64,
    /// Delete log blocks that were not written since the last checkpoint.
    log: Range<u64>,
    log_blocks: u64,
}

impl Space {
    /// The space of a store that has objects in the slots of `live`, which come in order.
    pub(crate) fn new(
        slots: u64,
        live: impl IntoIterator<Item = u64>,
        next_sequence: u64,
        log_blocks: u64,
    ) -> Self {
        let mut space = Self {
            free: BTreeMap::new(),
            free_slots: 0,
            waiting: Vec::new(),
            next_sequence,
            log: 0..log_blocks,
            log_blocks,
        };
        let mut first = 0;
        for slot in live.into_iter().chain([slots]) {
            if slot > first {
                space.free.insert(first, slot - first);
                space.free_slots += slot - first;
            }
            first = slot + 1;
        }
        space
    }

    /// The sequence that the next change gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Whether there are delete log blocks to take.
    pub(crate) fn has_log_blocks(&self) -> bool {
        !self.log.is_empty()
    }

    /// How many slots can be taken now.
    pub(crate) fn free_slots(&self) -> u64 {
        self.free_slots
    }

    /// How many slots wait for a checkpoint.
    pub(crate) fn waiting_slots(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Takes up to `count` slots, neighbours as far as there are any, each with a sequence; appends
    /// them to `places`.
    pub(crate) fn take(&mut self, count: usize, places: &mut Vec<Place>) {
        let mut missing = count as u64;
        while missing > 0 {
            let Some((first, len)) = self.free.pop_first() else { return };
            let taken = len.min(missing);
            if taken < len {
                self.free.insert(first + taken, len - taken);
            }
            self.free_slots -= taken;
            missing -= taken;
            for slot in first..first + taken {
                places.push(Place { slot, sequence: self.take_sequences(1) });
            }
        }
    }

    /// Takes up to `blocks` blocks of the delete log that follow each other.
    pub(crate) fn take_log(&mut self, blocks: u64) -> Range<u64> {
        let first = self.log.start;
        self.log.start = (first + blocks).min(self.log.end);
        first..self.log.start
    }

    /// Takes sequences; returns the first.
    pub(crate) fn take_sequences(&mut self, count: u64) -> u64 {
        let first = self.next_sequence;
        self.next_sequence += count;
        first
    }

    /// Lets slots wait for the next checkpoint.
    pub(crate) fn retire(&mut self, slots: impl IntoIterator<Item = u64>) {
        self.waiting.extend(slots);
    }

    /// Frees what waited, after a checkpoint that covers every sequence given out was committed.
    pub(crate) fn release(&mut self) {
        self.log = 0..self.log_blocks;
        let waiting = std::mem::take(&mut self.waiting);
        for slot in waiting {
            self.free(slot);
        }
    }

    fn free(&mut self, slot: u64) {
        self.free_slots += 1;
        let mut run = (slot, 1);
        if let Some((&before, &len)) = self.free.range(..slot).next_back()
            && before + len == slot
        {
            self.free.remove(&before);
            run = (before, len + 1);
        }
        if let Some(len) = self.free.remove(&(slot + 1)) {
            run.1 += len;
        }
        self.free.insert(run.0, run.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(places: &[Place]) -> Vec<u64> {
        places.iter().map(|place| place.slot).collect()
    }

    #[test]
    fn a_batch_gets_neighbouring_slots_and_growing_sequences() {
        let mut space = Space::new(8, [2], 5, 1);
        let mut places = Vec::new();
        space.take(4, &mut places);
        assert_eq!(slots(&places), [0, 1, 3, 4]);
        assert_eq!(places.iter().map(|place| place.sequence).collect::<Vec<_>>(), [5, 6, 7, 8]);
        space.take(9, &mut places);
        assert_eq!(slots(&places), [0, 1, 3, 4, 5, 6, 7], "no more than there are");
        assert_eq!(space.free_slots(), 0);
    }

    #[test]
    fn a_retired_slot_is_not_taken_before_a_checkpoint() {
        let mut space = Space::new(2, [], 1, 1);
        let mut places = Vec::new();
        space.take(2, &mut places);
        space.retire([1, 0]);
        places.clear();
        space.take(1, &mut places);
        assert!(places.is_empty());
        assert_eq!(space.waiting_slots(), 2);
        space.release();
        space.take(2, &mut places);
        assert_eq!(slots(&places), [0, 1]);
        assert_eq!(space.waiting_slots(), 0);
    }

    #[test]
    fn freed_slots_join_into_runs() {
        let mut space = Space::new(5, 0..5, 1, 1);
        space.retire([0, 4, 2, 1, 3]);
        space.release();
        assert_eq!(space.free, BTreeMap::from([(0, 5)]));
    }

    #[test]
    fn a_log_block_is_given_out_once_between_checkpoints() {
        let mut space = Space::new(1, [0], 1, 3);
        assert_eq!(space.take_log(2), 0..2);
        assert_eq!(space.take_log(2), 2..3);
        assert_eq!(space.take_log(2), 3..3);
        assert!(!space.has_log_blocks());
        space.release();
        assert_eq!(space.take_log(1), 0..1);
    }
}

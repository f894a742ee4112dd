//! Slots that can be written.

use std::collections::BTreeMap;

/// Free slots as runs of neighbours: first slot, number of slots. Runs do not touch.
#[derive(Debug, Default)]
pub(super) struct FreeSlots {
    runs: BTreeMap<u64, u64>,
    slots: u64,
}

impl FreeSlots {
    /// All of `slots` slots but those of `taken`, which come in order.
    pub(super) fn all_but(taken: impl IntoIterator<Item = u64>, slots: u64) -> Self {
        let mut free = Self::default();
        let mut first = 0;
        for slot in taken.into_iter().chain([slots]) {
            if slot > first {
                free.runs.insert(first, slot - first);
                free.slots += slot - first;
            }
            first = slot + 1;
        }
        free
    }

    pub(super) fn len(&self) -> u64 {
        self.slots
    }

    /// Takes up to `count` slots, neighbours as far as there are any.
    pub(super) fn take(&mut self, count: u64, mut each: impl FnMut(u64)) {
        let mut missing = count;
        while missing > 0 {
            let Some((first, len)) = self.runs.pop_first() else { return };
            let taken = len.min(missing);
            if taken < len {
                self.runs.insert(first + taken, len - taken);
            }
            self.slots -= taken;
            missing -= taken;
            (first..first + taken).for_each(&mut each);
        }
    }

    pub(super) fn add(&mut self, slot: u64) {
        self.slots += 1;
        let mut run = (slot, 1);
        if let Some((&before, &len)) = self.runs.range(..slot).next_back()
            && before + len == slot
        {
            self.runs.remove(&before);
            run = (before, len + 1);
        }
        if let Some(len) = self.runs.remove(&(slot + 1)) {
            run.1 += len;
        }
        self.runs.insert(run.0, run.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(free: &mut FreeSlots, count: u64) -> Vec<u64> {
        let mut slots = Vec::new();
        free.take(count, |slot| slots.push(slot));
        slots
    }

    #[test]
    fn a_batch_gets_neighbouring_slots_and_no_more_than_there_are() {
        let mut free = FreeSlots::all_but([2], 8);
        assert_eq!(take(&mut free, 4), [0, 1, 3, 4]);
        assert_eq!(free.len(), 3);
        assert_eq!(take(&mut free, 9), [5, 6, 7]);
        assert_eq!(free.len(), 0);
    }

    #[test]
    fn freed_slots_join_into_runs() {
        let mut free = FreeSlots::all_but(0..5, 5);
        assert_eq!(free.len(), 0);
        for slot in [0, 4, 2, 1, 3] {
            free.add(slot);
        }
        assert_eq!(free.runs, BTreeMap::from([(0, 5)]));
    }
}

//! Which blocks of the delete log can be written.

use std::collections::{HashMap, VecDeque};
use std::ops::{Range, RangeInclusive};

/// The blocks that are in use, and the sequences of the records in each.
pub(crate) type LogInUse = HashMap<u64, RangeInclusive<u64>>;

/// The delete log as a ring: blocks are written one after the other, each once, and again only when a
/// committed checkpoint speaks for every record in it.
#[derive(Debug)]
pub(super) struct LogRing {
    blocks: u64,
    next: u64,
    /// Blocks that were written, or may have been, oldest first: how many, and the sequences of their records.
    written: VecDeque<(u64, RangeInclusive<u64>)>,
    free: u64,
}

impl LogRing {
    /// A ring of `blocks` blocks, all free.
    pub(super) fn new(blocks: u64) -> Self {
        Self { blocks, next: 0, written: VecDeque::new(), free: blocks }
    }

    pub(super) fn free_blocks(&self) -> u64 {
        self.free
    }

    /// How many of up to `count` blocks there are that follow each other.
    pub(super) fn available(&self, count: u64) -> u64 {
        count.min(self.free).min(self.blocks - self.next)
    }

    /// Takes blocks that are [available](Self::available), for records with these sequences.
    pub(super) fn take(&mut self, count: u64, sequences: RangeInclusive<u64>) -> Range<u64> {
        let first = self.next;
        self.next = (first + count) % self.blocks;
        self.free -= count;
        self.written.push_back((count, sequences));
        first..first + count
    }

    /// The highest sequence among the records of the blocks that become free next.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.written.front().map(|(_, sequences)| *sequences.end())
    }

    /// Frees the blocks whose records have sequences up to `covered`.
    pub(super) fn release(&mut self, covered: u64) {
        while let Some((_, sequences)) = self.written.front()
            && *sequences.end() <= covered
            && let Some((count, _)) = self.written.pop_front()
        {
            self.free += count;
        }
    }

    pub(super) fn in_use(&self) -> LogInUse {
        let mut block = (self.next + self.free) % self.blocks;
        let mut in_use = HashMap::new();
        for (count, sequences) in &self.written {
            in_use.extend((block..block + count).map(|block| (block, sequences.clone())));
            block = (block + count) % self.blocks;
        }
        in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_out_again_only_when_its_records_are_covered() {
        let mut ring = LogRing::new(3);
        assert_eq!(ring.available(2), 2);
        assert_eq!(ring.take(2, 9..=10), 0..2);
        assert_eq!(ring.available(2), 1);
        assert_eq!(ring.take(1, 11..=11), 2..3);
        assert_eq!(ring.available(1), 0);
        ring.release(9);
        assert_eq!((ring.available(3), ring.oldest()), (0, Some(10)));
        assert_eq!(ring.in_use(), HashMap::from([(0, 9..=10), (1, 9..=10), (2, 11..=11)]));
        ring.release(10);
        assert_eq!(ring.available(3), 2);
        assert_eq!(ring.take(2, 15..=20), 0..2);
        ring.release(19);
        assert_eq!((ring.available(3), ring.free_blocks()), (1, 1));
        assert_eq!(ring.in_use(), HashMap::from([(0, 15..=20), (1, 15..=20)]));
        assert_eq!(ring.take(1, 21..=21), 2..3);
    }
}

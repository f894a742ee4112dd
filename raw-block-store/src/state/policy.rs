//! Which objects of a segment are moved before it is evicted.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index::{Located, Stamp};
use super::space::{Demand, MoveDemand, Shape};
use crate::options::{EvictionPolicy, OpenOptions};

/// Parts of the store: the time that the policy knows grows by one when that much was put.
const TICKS: u64 = 1024;

/// What may be moved out of a segment, and was not, may be moved out of later ones, up to so many times what may be
/// moved out of one. What was used lies in few segments where these are small.
const SAVED_SHARES: u64 = 3;

/// The eviction policy of a store. Its time is how much was put; stamps have it modulo [`Stamp::TIMES`].
#[derive(Debug)]
pub(crate) struct Policy {
    eviction: EvictionPolicy,
    /// Blocks of a segment that may be moved out of it, on average.
    kept_blocks: u64,
    /// The most blocks that are moved out of one, unless they are pinned.
    most_kept_blocks: u64,
    /// Blocks that were not moved out of earlier segments, although they might have been.
    saved_blocks: AtomicU64,
    /// Blocks that are put during one tick.
    tick: u64,
    /// Blocks that were put.
    clock: AtomicU64,
}

/// A live object of a segment that is to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) object: Located,
    pub(crate) stamp: Stamp,
    pub(crate) pinned: bool,
}

impl Candidate {
    /// What is needed to move it.
    pub(crate) fn demand(&self) -> MoveDemand {
        MoveDemand { demand: Demand::of(&self.object.entry), sequence: self.object.sequence() }
    }
}

impl Policy {
    pub(crate) fn new(options: &OpenOptions, shape: &Shape) -> Self {
        let blocks = u64::from(shape.segment_blocks);
        let percent = options.kept_percent.min(OpenOptions::MAX_KEPT_PERCENT);
        Self {
            eviction: options.eviction,
            kept_blocks: blocks * u64::from(percent) / 100,
            most_kept_blocks: blocks * u64::from(OpenOptions::MAX_KEPT_PERCENT) / 100,
            saved_blocks: AtomicU64::new(0),
            tick: (blocks * u64::from(shape.segments) / TICKS).max(1),
            clock: AtomicU64::new(0),
        }
    }

    /// The time for the stamp of an object that is used now.
    pub(crate) fn now(&self) -> u16 {
        self.ticks(self.clock.load(Ordering::Relaxed))
    }

    /// Sets the time: blocks that were put.
    pub(crate) fn set_clock(&self, blocks: u64) {
        self.clock.store(blocks, Ordering::Relaxed);
    }

    /// Keeps those candidates that are to be moved before their segment is evicted, in the order of their worth. Pinned
    /// ones always are. `opened_at` is the value of the clock when the segment was opened, the oldest of the store.
    pub(crate) fn choose(&self, candidates: &mut Vec<Candidate>, opened_at: u64, shape: &Shape) {
        let clock = self.clock.load(Ordering::Relaxed);
        let (now, age) = (self.ticks(clock), clock.saturating_sub(opened_at) / self.tick);
        let since_use = |of: &Candidate| now.wrapping_sub(of.stamp.last_use) % Stamp::TIMES;
        let is_worth = |of: &Candidate| match self.eviction {
            EvictionPolicy::Lru => of.stamp.used && u64::from(since_use(of)) * 2 <= age,
            EvictionPolicy::S3Fifo => of.stamp.uses > 0,
            EvictionPolicy::None => true,
            EvictionPolicy::Fifo => false,
        };
        candidates.retain(|of| of.pinned || is_worth(of));
        match self.eviction {
            EvictionPolicy::Lru => candidates.sort_by_key(|of| (!of.pinned, since_use(of))),
            _ => candidates.sort_by_key(|of| (!of.pinned, Reverse(of.stamp.uses))),
        }
        if self.eviction == EvictionPolicy::None {
            return;
        }
        let allowed = self.kept_blocks + self.saved_blocks.load(Ordering::Relaxed);
        let most = allowed.min(self.most_kept_blocks);
        let mut left = most;
        candidates.retain(|of| {
            let blocks = u64::from(shape.blocks_alone(of.demand().demand));
            let fits = of.pinned || blocks <= left;
            left = if fits { left.saturating_sub(blocks) } else { left };
            fits
        });
        let saved = (allowed - (most - left)).min(SAVED_SHARES * self.kept_blocks);
        self.saved_blocks.store(saved, Ordering::Relaxed);
    }

    /// The stamp of the copy of an object that is moved by this policy: it has to be used again to be moved again.
    pub(crate) fn stamp_of_copy(stamp: Stamp) -> Stamp {
        Stamp { used: false, uses: stamp.uses.saturating_sub(1), ..stamp }
    }

    fn ticks(&self, blocks: u64) -> u16 {
        u16::try_from(blocks / self.tick % u64::from(Stamp::TIMES)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Entry;
    use crate::state::index::Place;

    /// 128 segments of 1024 blocks: a tick is 128 blocks.
    fn policy(eviction: EvictionPolicy, kept_percent: u8) -> (Policy, Shape) {
        let shape = Shape::new(128, 1024, 4096);
        let options = OpenOptions { eviction, kept_percent, ..OpenOptions::default() };
        (Policy::new(&options, &shape), shape)
    }

    fn candidate(number: u32, payload_blocks: u32, stamp: Stamp) -> Candidate {
        let mut entry = Entry::EMPTY;
        entry.payload_len = (payload_blocks * 4096).into();
        let object = Located { place: Place { segment: 0, number }, entry };
        Candidate { object, stamp, pinned: false }
    }

    fn used(last_use: u16, uses: u8) -> Stamp {
        Stamp { used: uses > 0, uses, last_use }
    }

    fn chosen(policy: &Policy, mut candidates: Vec<Candidate>, shape: &Shape) -> Vec<u32> {
        policy.choose(&mut candidates, 128 * 1000, shape);
        candidates.iter().map(|of| of.object.place.number).collect()
    }

    #[test]
    fn lru_keeps_what_was_used_in_the_younger_half_the_latest_first() {
        let (policy, shape) = policy(EvictionPolicy::Lru, 50);
        policy.set_clock(128 * 1100);
        assert_eq!(policy.now(), 1100);
        let stamps = [used(1049, 1), used(1050, 1), used(1099, 3), used(1090, 0), used(1080, 1)];
        let candidates = (0..).zip(stamps).map(|(n, stamp)| candidate(n, 1, stamp)).collect();
        assert_eq!(chosen(&policy, candidates, &shape), [2, 4, 1]);
    }

    #[test]
    fn times_of_use_may_wrap_around() {
        let (policy, shape) = policy(EvictionPolicy::Lru, 50);
        policy.set_clock(128 * (2 * u64::from(Stamp::TIMES) + 10));
        let candidates =
            vec![candidate(0, 1, used(Stamp::TIMES - 5, 1)), candidate(1, 1, used(5, 1))];
        assert_eq!(chosen(&policy, candidates, &shape), [1, 0]);
    }

    #[test]
    fn no_more_is_kept_than_the_share_of_a_segment() {
        let (policy, shape) = policy(EvictionPolicy::Lru, 25);
        policy.set_clock(128 * 1100);
        let sizes = [100, 200, 100, 40];
        let candidates = (0..)
            .zip(sizes)
            .map(|(n, size)| candidate(n, size, used(1100 - u16::try_from(n).unwrap(), 1)))
            .collect();
        assert_eq!(chosen(&policy, candidates, &shape), [0, 2, 3], "256 blocks");
    }

    #[test]
    fn what_was_not_kept_of_one_segment_may_be_kept_of_the_next() {
        let (policy, shape) = policy(EvictionPolicy::Lru, 25);
        policy.set_clock(128 * 1100);
        let candidates = |sizes: [u32; 4]| {
            let sizes = (0_u16..).zip(sizes);
            sizes.map(|(n, size)| candidate(n.into(), size, used(1100 - n, 1))).collect()
        };
        assert_eq!(chosen(&policy, candidates([99, 1000, 1000, 1000]), &shape), [0], "256 blocks");
        assert_eq!(chosen(&policy, candidates([199, 199, 199, 1]), &shape), [0, 1, 3], "412");
        assert_eq!(chosen(&policy, candidates([199, 99, 1, 1]), &shape), [0, 2, 3], "266");
        for _ in 0..9 {
            assert_eq!(chosen(&policy, Vec::new(), &shape), []);
        }
        assert_eq!(chosen(&policy, candidates([299, 299, 299, 299]), &shape), [0, 1, 2], "921");
        assert_eq!(chosen(&policy, candidates([299, 299, 299, 299]), &shape), [0], "380");
    }

    #[test]
    fn s3_fifo_keeps_what_was_used_most() {
        let (policy, shape) = policy(EvictionPolicy::S3Fifo, 50);
        let uses = [1, 0, 3, 2];
        let candidates = (0..).zip(uses).map(|(n, uses)| candidate(n, 1, used(0, uses))).collect();
        assert_eq!(chosen(&policy, candidates, &shape), [2, 3, 0]);
        assert_eq!(Policy::stamp_of_copy(used(7, 3)), Stamp { used: false, uses: 2, last_use: 7 });
    }

    #[test]
    fn pinned_objects_are_kept_by_every_policy() {
        for eviction in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Fifo] {
            let (policy, shape) = policy(eviction, 10);
            let mut pinned = candidate(1, 1000, used(0, 0));
            pinned.pinned = true;
            let candidates = vec![candidate(0, 1, used(0, 0)), pinned];
            assert_eq!(chosen(&policy, candidates, &shape), [1]);
        }
    }
}

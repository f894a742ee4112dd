//! Which objects of a segment are moved before it is evicted.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index::{Located, Stamp};
use super::space::{Demand, MoveDemand, Shape};
use crate::options::{EvictionPolicy, OpenOptions};

/// Parts of the store: the policy's clock advances by one tick when that much was put.
const TICKS: u64 = 1024;

/// Parts of a segment: if most of them would be moved, the segment is kept as it is. Moving three
/// quarters to free one quarter writes three times what it frees.
const PARTS: u64 = 4;
const MOST_PARTS: u64 = 3;

/// The eviction policy of a store. Its clock counts what was put; stamps have it modulo
/// [`Stamp::TIMES`].
#[derive(Debug)]
pub(crate) struct Policy {
    eviction: EvictionPolicy,
    /// If that many blocks would be moved out of a segment, it is kept as it is.
    most_moved: u64,
    /// Blocks that are put during one tick.
    tick: u64,
    /// Blocks that were put.
    clock: AtomicU64,
}

/// The decision about a segment that is to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The chosen objects are moved, the others are evicted.
    Move,
    /// Most of it would be moved: it is kept as it is.
    KeepWhole,
}

/// The oldest segment of a store, which is to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oldest {
    /// The value of the clock when it was opened, or last kept as it is.
    pub(crate) opened_at: u64,
    /// Blocks that may be moved now.
    pub(crate) moves_left: u64,
    /// Whether it may be kept as it is.
    pub(crate) may_be_kept: bool,
}

/// A live object of a segment that is to be moved or evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) object: Located,
    /// The stamp that its copy gets.
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
        Self {
            eviction: options.eviction,
            most_moved: blocks * MOST_PARTS / PARTS,
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

    /// Retains the candidates to move before their segment, the oldest of the store, is evicted: in
    /// the order of their value, as many as may be moved. Pinned ones are always moved.
    pub(crate) fn choose(
        &self,
        candidates: &mut Vec<Candidate>,
        oldest: &Oldest,
        shape: &Shape,
    ) -> Choice {
        let clock = self.clock.load(Ordering::Relaxed);
        let (now, age) = (self.ticks(clock), clock.saturating_sub(oldest.opened_at) / self.tick);
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
            return Choice::Move;
        }
        let blocks = |of: &Candidate| u64::from(shape.blocks_alone(of.demand().demand));
        // A segment that was kept recently is not kept again, so that a reclaim ends.
        let may_keep = oldest.may_be_kept && age > 0;
        if may_keep && candidates.iter().map(blocks).sum::<u64>() >= self.most_moved {
            return Choice::KeepWhole;
        }
        let mut left = oldest.moves_left.min(self.most_moved);
        candidates.retain(|of| {
            let fits = of.pinned || blocks(of) <= left;
            left = if fits { left.saturating_sub(blocks(of)) } else { left };
            fits
        });
        candidates.iter_mut().for_each(|of| of.stamp = stamp_after_choice(of.stamp));
        Choice::Move
    }

    /// The stamp of an object in a segment that is kept as it is.
    pub(crate) fn stamp_when_kept(stamp: Stamp) -> Stamp {
        stamp_after_choice(stamp)
    }

    fn ticks(&self, blocks: u64) -> u16 {
        u16::try_from(blocks / self.tick % u64::from(Stamp::TIMES)).unwrap_or(0)
    }
}

/// The stamp of an object that the policy chose to keep: it must be used again to be chosen again.
fn stamp_after_choice(stamp: Stamp) -> Stamp {
    Stamp { used: false, uses: stamp.uses.saturating_sub(1), ..stamp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Entry;
    use crate::state::index::Place;

    /// 128 segments of 1024 blocks: a tick is 128 blocks.
    fn policy(eviction: EvictionPolicy) -> (Policy, Shape) {
        let shape = Shape::new(128, 1024, 4096);
        let options = OpenOptions::default().eviction(eviction);
        (Policy::new(&options, &shape), shape)
    }

    fn oldest(moves_left: u64) -> Oldest {
        Oldest { opened_at: 128 * 1000, moves_left, may_be_kept: true }
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

    fn chosen(
        policy: &Policy,
        mut candidates: Vec<Candidate>,
        oldest: &Oldest,
        shape: &Shape,
    ) -> Vec<u32> {
        assert_eq!(policy.choose(&mut candidates, oldest, shape), Choice::Move);
        candidates.iter().map(|of| of.object.place.number).collect()
    }

    #[test]
    fn lru_keeps_what_was_used_in_the_younger_half_the_latest_first() {
        let (policy, shape) = policy(EvictionPolicy::Lru);
        policy.set_clock(128 * 1100);
        assert_eq!(policy.now(), 1100);
        let stamps = [used(1049, 1), used(1050, 1), used(1099, 3), used(1090, 0), used(1080, 1)];
        let candidates = (0..).zip(stamps).map(|(n, stamp)| candidate(n, 1, stamp)).collect();
        assert_eq!(chosen(&policy, candidates, &oldest(1000), &shape), [2, 4, 1]);
    }

    #[test]
    fn times_of_use_may_wrap_around() {
        let (policy, shape) = policy(EvictionPolicy::Lru);
        policy.set_clock(128 * (2 * u64::from(Stamp::TIMES) + 10));
        let candidates =
            vec![candidate(0, 1, used(Stamp::TIMES - 5, 1)), candidate(1, 1, used(5, 1))];
        assert_eq!(chosen(&policy, candidates, &oldest(1000), &shape), [1, 0]);
    }

    /// Objects of these sizes, with their headers, the first one used last.
    fn sizes<const N: usize>(sizes: [u32; N]) -> Vec<Candidate> {
        let sizes = (0_u16..).zip(sizes);
        sizes.map(|(n, size)| candidate(n.into(), size - 1, used(1100 - n, 1))).collect()
    }

    #[test]
    fn no_more_is_moved_than_is_paid_for() {
        let (policy, shape) = policy(EvictionPolicy::Lru);
        policy.set_clock(128 * 1100);
        let candidates = || sizes([100, 200, 100, 40]);
        assert_eq!(chosen(&policy, candidates(), &oldest(256), &shape), [0, 2, 3]);
        assert_eq!(chosen(&policy, candidates(), &oldest(99), &shape), [3]);
    }

    #[test]
    fn a_segment_most_of_which_would_be_moved_is_kept_as_it_is() {
        for eviction in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
            let (policy, shape) = policy(eviction);
            policy.set_clock(128 * 1100);
            let mut candidates = sizes([400, 368]);
            assert_eq!(policy.choose(&mut candidates, &oldest(0), &shape), Choice::KeepWhole);
            let less = sizes([400, 367]);
            assert_eq!(chosen(&policy, less, &oldest(1000), &shape), [0, 1]);
            // Not again at once, nor one in quarantine: three quarters are moved.
            let just_kept = Oldest { opened_at: 128 * 1100, ..oldest(1000) };
            let (at_once, bad) = (sizes([400, 368]), sizes([400, 368, 300]));
            assert_eq!(chosen(&policy, at_once, &just_kept, &shape)[0], 0);
            let quarantine = Oldest { may_be_kept: false, ..oldest(1000) };
            assert_eq!(chosen(&policy, bad, &quarantine, &shape), [0, 1]);
        }
    }

    #[test]
    fn s3_fifo_keeps_what_was_used_most() {
        let (policy, shape) = policy(EvictionPolicy::S3Fifo);
        let uses = [1, 0, 3, 2];
        let candidates = (0..).zip(uses).map(|(n, uses)| candidate(n, 1, used(0, uses))).collect();
        assert_eq!(chosen(&policy, candidates, &oldest(1000), &shape), [2, 3, 0]);
    }

    #[test]
    fn what_was_kept_has_to_be_used_again_to_be_kept_again() {
        let (policy, shape) = policy(EvictionPolicy::S3Fifo);
        let mut candidates = vec![candidate(0, 1, used(7, 3))];
        policy.choose(&mut candidates, &oldest(1000), &shape);
        let expected = Stamp { used: false, uses: 2, last_use: 7 };
        assert_eq!(candidates[0].stamp, expected);
        assert_eq!(Policy::stamp_when_kept(used(7, 3)), expected);
    }

    #[test]
    fn pinned_objects_are_kept_by_every_policy() {
        for eviction in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Fifo] {
            let (policy, shape) = policy(eviction);
            let mut pinned = candidate(1, 700, used(0, 0));
            pinned.pinned = true;
            let candidates = vec![candidate(0, 1, used(0, 0)), pinned];
            assert_eq!(chosen(&policy, candidates, &oldest(0), &shape), [1]);
        }
    }
}

//! Which objects of a segment are moved before it is evicted.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index::{Located, Stamp};
use super::space::{Demand, MoveDemand, Shape};
use crate::segments::options::{EvictionPolicy, OpenOptions};

/// Parts of the store: the time that the policy knows grows by one when that much was put.
const TICKS: u64 = 1024;

/// The eviction policy of a store. Its time is how much was put; stamps have it modulo [`Stamp::TIMES`].
#[derive(Debug)]
pub(crate) struct Policy {
    eviction: EvictionPolicy,
    /// Blocks of a segment that may be moved out of it.
    kept_blocks: u64,
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
            tick: (blocks * u64::from(shape.segments) / TICKS).max(1),
            clock: AtomicU64::new(0),
        }
    }

    pub(crate) fn eviction(&self) -> EvictionPolicy {
        self.eviction
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
        let mut left = self.kept_blocks;
        candidates.retain(|of| {
            let blocks = u64::from(shape.blocks_alone(of.demand().demand));
            let fits = of.pinned || blocks <= left;
            left = if fits { left.saturating_sub(blocks) } else { left };
            fits
        });
    }

    /// The stamp of the copy of an object that is moved by this policy: it has to be used again to be moved again.
    pub(crate) fn stamp_of_copy(stamp: Stamp) -> Stamp {
        Stamp { used: false, uses: stamp.uses.saturating_sub(1), ..stamp }
    }

    fn ticks(&self, blocks: u64) -> u16 {
        (blocks / self.tick % u64::from(Stamp::TIMES)) as u16
    }
}

//! The requests to a store, batch by batch, so that another cache can get the same.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use raw_block_store::EvictionPolicy;

use super::keys::{Distribution, Keys};
use super::numbers::scatter;
use super::pace::Timed;
use super::reference::{Lru, Reference, S3Fifo};
use super::subject::BATCH;
use super::table::ratio;

/// The share of batches that get, in percent.
const GETS: u64 = 80;

/// The operations of the batches of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Put keys in order.
    Fill,
    /// Put keys by the distribution.
    Put,
    /// Four in five batches get.
    Mixed,
}

/// The keys of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    Get(Vec<u64>),
    Put(Vec<u64>),
    PutAbsent(Vec<u64>),
}

/// The batches that a store has executed.
pub(super) struct History {
    keys: Keys,
    count: u64,
    /// Whether a put replaces the object with its key.
    overwrites: bool,
    phases: Vec<(Kind, u64)>,
    next: u64,
    asked: AtomicU64,
    hits: AtomicU64,
}

impl History {
    pub(super) fn new(distribution: Distribution, count: u64, overwrites: bool) -> Self {
        Self {
            keys: Keys::new(distribution, count),
            count,
            overwrites,
            phases: Vec::new(),
            next: 0,
            asked: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// Runs a phase and records its batches. Calls `run` with the number of the first one.
    pub(super) fn phase(
        &mut self,
        kind: Kind,
        run: impl FnOnce(&Self, u64) -> Result<Timed>,
    ) -> Result<Timed> {
        let timed = run(self, self.next)?;
        self.phases.push((kind, timed.batches));
        self.next += timed.batches;
        Ok(timed)
    }

    /// The batch with this number, of a phase of this kind.
    pub(super) fn batch(&self, kind: Kind, number: u64) -> Batch {
        if kind == Kind::Fill {
            let first = number * BATCH as u64;
            return Batch::Put((first..first + BATCH as u64).map(|key| key % self.count).collect());
        }
        let mut random = fastrand::Rng::with_seed(scatter(number));
        let gets = kind == Kind::Mixed && random.u64(..100) < GETS;
        let keys = (0..BATCH).map(|_| self.keys.draw(&mut random)).collect();
        match gets {
            true => Batch::Get(keys),
            // Without gets only the rate matters: all keys are put.
            false if self.overwrites || kind == Kind::Put => Batch::Put(keys),
            false => Batch::PutAbsent(keys),
        }
    }

    /// A get found its key or not.
    pub(super) fn note_get(&self, found: bool) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.hits.fetch_add(found.into(), Ordering::Relaxed);
    }

    /// Gets so far, and hits.
    pub(super) fn gets(&self) -> (u64, u64) {
        (self.asked.load(Ordering::Relaxed), self.hits.load(Ordering::Relaxed))
    }

    /// The hit rate of a policy by object with this capacity, in the phases from number `from`.
    pub(super) fn ideal(&self, policy: EvictionPolicy, objects: u64, from: usize) -> f64 {
        let mut cache = reference(policy, objects);
        let (mut asked, mut hits, mut number) = (0, 0, 0);
        for (phase, &(kind, batches)) in self.phases.iter().enumerate() {
            for number in number..number + batches {
                match self.batch(kind, number) {
                    Batch::Get(keys) => {
                        let found: u64 = keys.iter().map(|&key| u64::from(cache.get(key))).sum();
                        if phase >= from {
                            asked += keys.len() as u64;
                            hits += found;
                        }
                    }
                    Batch::Put(keys) | Batch::PutAbsent(keys) => keys.iter().for_each(|&key| {
                        cache.get_or_insert(key);
                    }),
                }
            }
            number += batches;
        }
        ratio(hits, asked)
    }

    /// The number of phases.
    pub(super) fn phases(&self) -> usize {
        self.phases.len()
    }
}

/// The cache by object of a policy.
pub(super) fn reference(policy: EvictionPolicy, objects: u64) -> Box<dyn Reference> {
    let objects = usize::try_from(objects).unwrap_or(usize::MAX);
    match policy {
        EvictionPolicy::S3Fifo => Box::new(S3Fifo::new(objects)),
        policy => Box::new(Lru::new(objects, policy == EvictionPolicy::Fifo)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::pace::histogram;
    use super::*;

    #[test]
    fn the_ideal_of_a_cache_that_holds_all_is_one() {
        for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Fifo] {
            let mut history = History::new(Distribution::Zipf(1.0), 640, true);
            for (kind, batches) in [(Kind::Fill, 20), (Kind::Mixed, 100)] {
                let mut latency = histogram().unwrap();
                latency.record_n(1, batches).unwrap();
                let timed = Timed { batches, time: Duration::ZERO, latency };
                history.phase(kind, |_, _| Ok(timed)).unwrap();
            }
            assert!((history.ideal(policy, 640, 1) - 1.0).abs() < 1e-9);
            assert!(history.ideal(policy, 64, 1) < 0.9);
            assert!(history.ideal(policy, 64, 2) < 1e-9);
        }
    }

    #[test]
    fn a_batch_is_the_same_whenever_it_is_asked_for() {
        let history = History::new(Distribution::Uniform, 1000, false);
        let all: Vec<_> = (0..100).map(|number| history.batch(Kind::Mixed, number)).collect();
        assert!(
            (0..).zip(&all).all(|(number, batch)| history.batch(Kind::Mixed, number) == *batch)
        );
        assert!(all.iter().any(|batch| matches!(batch, Batch::Get(_))));
        assert!(all.iter().any(|batch| matches!(batch, Batch::PutAbsent(_))));
        let Batch::Put(keys) = history.batch(Kind::Fill, 31) else { panic!() };
        assert_eq!((keys[7], keys[8]), (999, 0));
    }
}

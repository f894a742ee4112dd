//! Caches of objects with ideal eviction policies: the references of the hit rates.

use std::collections::{HashMap, HashSet, VecDeque};

/// An operation of a cache.
pub(super) trait Reference {
    fn contains(&self, key: u64) -> bool;

    /// The key is got, and is present.
    fn note_use(&mut self, key: u64);

    /// The key is put, which may evict others.
    fn insert(&mut self, key: u64);

    /// Gets the key if it is present, else puts it. Returns whether it was present.
    fn get_or_insert(&mut self, key: u64) -> bool {
        let found = self.contains(key);
        if found {
            self.note_use(key);
        } else {
            self.insert(key);
        }
        found
    }

    fn get(&mut self, key: u64) -> bool {
        let found = self.contains(key);
        if found {
            self.note_use(key);
        }
        found
    }
}

/// Evicts the least recently used key or, with `fifo`, the one that was put first.
pub(super) struct Lru {
    capacity: usize,
    fifo: bool,
    clock: u64,
    /// The last use of each key.
    last: HashMap<u64, u64>,
    /// Uses in order. All but the last one of a key are out of date.
    uses: VecDeque<(u64, u64)>,
    evicted: Option<u64>,
}

impl Lru {
    pub(super) fn new(capacity: usize, fifo: bool) -> Self {
        let (last, uses) = (HashMap::new(), VecDeque::new());
        Self { capacity: capacity.max(1), fifo, clock: 0, last, uses, evicted: None }
    }

    /// The key that the last insertion evicted.
    pub(super) fn evicted(&self) -> Option<u64> {
        self.evicted
    }

    fn record(&mut self, key: u64) {
        self.clock += 1;
        self.last.insert(key, self.clock);
        self.uses.push_back((key, self.clock));
        if self.uses.len() > 4 * self.capacity + 64 {
            let last = &self.last;
            self.uses.retain(|(key, time)| last.get(key) == Some(time));
        }
    }
}

impl Reference for Lru {
    fn contains(&self, key: u64) -> bool {
        self.last.contains_key(&key)
    }

    fn note_use(&mut self, key: u64) {
        if !self.fifo {
            self.record(key);
        }
    }

    fn insert(&mut self, key: u64) {
        self.record(key);
        self.evicted = None;
        while self.last.len() > self.capacity {
            let Some((key, time)) = self.uses.pop_front() else { return };
            if self.last.get(&key) == Some(&time) {
                self.last.remove(&key);
                self.evicted = Some(key);
            }
        }
    }
}

/// A small queue of a tenth, a main queue, and a memory of evicted keys.
pub(super) struct S3Fifo {
    capacity: usize,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    uses: HashMap<u64, u8>,
    ghosts: HashSet<u64>,
    ghost_order: VecDeque<u64>,
}

impl S3Fifo {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(2),
            small: VecDeque::new(),
            main: VecDeque::new(),
            uses: HashMap::new(),
            ghosts: HashSet::new(),
            ghost_order: VecDeque::new(),
        }
    }

    /// Takes one step towards an eviction.
    fn step(&mut self) {
        let from_small = self.small.len() >= self.capacity / 10 || self.main.is_empty();
        let queue = if from_small { &mut self.small } else { &mut self.main };
        let Some(key) = queue.pop_front() else { return };
        let Some(uses) = self.uses.get_mut(&key) else { return };
        if *uses > 0 {
            *uses = if from_small { 0 } else { *uses - 1 };
            self.main.push_back(key);
            return;
        }
        self.uses.remove(&key);
        if from_small && self.ghosts.insert(key) {
            self.ghost_order.push_back(key);
        }
        while self.ghost_order.len() > self.capacity {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghosts.remove(&oldest);
            }
        }
    }
}

impl Reference for S3Fifo {
    fn contains(&self, key: u64) -> bool {
        self.uses.contains_key(&key)
    }

    fn note_use(&mut self, key: u64) {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = (*uses + 1).min(3);
        }
    }

    fn insert(&mut self, key: u64) {
        if self.contains(key) {
            return;
        }
        while self.uses.len() >= self.capacity {
            self.step();
        }
        if self.ghosts.remove(&key) { &mut self.main } else { &mut self.small }.push_back(key);
        self.uses.insert(key, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Distribution, Keys};
    use super::*;

    fn hit_rate(mut cache: impl Reference, exponent: f64) -> f64 {
        const REQUESTS: u32 = 200_000;
        let keys = Keys::new(Distribution::Zipf(exponent), 80_640);
        let mut random = fastrand::Rng::with_seed(1);
        let mut hits = 0;
        for request in 0..REQUESTS {
            let hit = cache.get_or_insert(keys.draw(&mut random));
            hits += u32::from(hit && request >= REQUESTS / 4);
        }
        f64::from(hits) / f64::from(REQUESTS / 4 * 3)
    }

    #[test]
    fn the_key_that_was_used_least_recently_is_evicted() {
        let mut cache = Lru::new(2, false);
        assert!(!cache.get_or_insert(1) && !cache.get_or_insert(2) && cache.get_or_insert(1));
        cache.insert(3);
        assert_eq!(cache.evicted(), Some(2));
        assert!(cache.contains(1) && !cache.contains(2) && cache.contains(3));
        let mut fifo = Lru::new(2, true);
        let hits = [1, 2, 1, 3].map(|key| fifo.get_or_insert(key));
        assert_eq!(hits, [false, false, true, false]);
        assert_eq!(fifo.evicted(), Some(1));
    }

    #[test]
    fn hit_rates_on_zipf_keys_are_the_known_ones() {
        const CAPACITY: usize = 7812;
        for (exponent, lru, s3_fifo) in [(0.8, 0.459, 0.536), (1.0, 0.728, 0.767)] {
            let found = hit_rate(Lru::new(CAPACITY, false), exponent);
            assert!((found - lru).abs() < 0.01, "LRU {exponent}: {found}");
            let found = hit_rate(S3Fifo::new(CAPACITY), exponent);
            assert!((found - s3_fifo).abs() < 0.01, "S3-FIFO {exponent}: {found}");
        }
    }
}

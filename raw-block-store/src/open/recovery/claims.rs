//! What the entries of all segments claim: the newest of each key goes into the index, and keys
//! with several claims are put aside.

use crate::mutant::Mutant;
use crate::state::index::{Index, KeyHash, Located, Place, Published};

/// Claims that go into the index together.
const BATCH: usize = 1024;

/// The claims of all segments.
///
/// A claim goes into the index at once, where the newest of a key wins. The claims of a key that
/// has several are also collected, to be [verified](super::contested).
pub(super) struct Claims<'a> {
    index: &'a Index,
    /// Claims that are not in the index yet: verified ones, and those that their first get
    /// verifies.
    batches: [Vec<Located>; 2],
    results: Vec<Published>,
    /// All claims of keys with several, with duplicates and in no order.
    pub(super) contested: Vec<Located>,
    /// Tombstones that count.
    pub(super) tombstones: Vec<Tombstone>,
    /// The highest sequence of all claims.
    pub(super) highest: u64,
}

/// One key of a tombstone slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tombstone {
    pub(super) key_hash: KeyHash,
    pub(super) sequence: u64,
}

impl<'a> Claims<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        Self {
            index,
            batches: [Vec::with_capacity(BATCH), Vec::with_capacity(BATCH)],
            results: Vec::with_capacity(BATCH),
            contested: Vec::new(),
            tombstones: Vec::new(),
            highest: 0,
        }
    }

    /// Adds an object, whose entry exists in the index.
    pub(super) fn add(&mut self, object: &Located, unverified: bool) {
        self.highest = self.highest.max(object.sequence());
        let unverified = unverified && !Mutant::ScannedTakenForVerified.is_on();
        let batch = &mut self.batches[usize::from(unverified)];
        batch.push(*object);
        if batch.len() == BATCH {
            self.insert(unverified);
        }
    }

    /// Adds the keys of a tombstone slot.
    pub(super) fn add_tombstones(&mut self, key_hashes: &[KeyHash], sequence: u64) {
        self.highest = self.highest.max(sequence);
        if !Mutant::TombstonesIgnored.is_on() {
            let tombstones = key_hashes.iter().map(|&key_hash| Tombstone { key_hash, sequence });
            self.tombstones.extend(tombstones);
        }
    }

    /// Puts what was added into the index.
    pub(super) fn finish(&mut self) {
        self.insert(false);
        self.insert(true);
        self.tombstones.sort_unstable_by_key(|tombstone| (tombstone.key_hash, tombstone.sequence));
        // Of equal keys the first, which has the highest sequence, stays.
        self.tombstones.reverse();
        self.tombstones.dedup_by_key(|tombstone| tombstone.key_hash);
        self.tombstones.reverse();
    }

    /// The sequence of the newest tombstone of a key; 0 if there is none. Call it after
    /// [`finish`](Self::finish).
    pub(super) fn deleted_at(&self, key_hash: &KeyHash) -> u64 {
        let found = self.tombstones.binary_search_by_key(key_hash, |tombstone| tombstone.key_hash);
        found.map_or(0, |at| self.tombstones[at].sequence)
    }

    fn insert(&mut self, unverified: bool) {
        let batch = &mut self.batches[usize::from(unverified)];
        self.results.clear();
        self.index.insert_recovered_many(batch, unverified, &mut self.results);
        for (claim, published) in batch.iter().zip(&self.results) {
            match published {
                Published::Shown { replaced: None } => {}
                Published::Shown { replaced: Some(other) } => {
                    self.contested.extend([*other, *claim]);
                }
                Published::Superseded => {
                    self.contested.push(*claim);
                    self.contested.extend(self.index.find(&claim.entry.key_hash));
                }
            }
        }
        batch.clear();
    }
}

/// Sorts contested claims: those of a key are neighbours, the newest first, of equal sequences the
/// named one. Removes duplicates.
pub(super) fn sort_contested(claims: &mut Vec<Located>, is_named: impl Fn(Place) -> bool) {
    let order = |claim: &Located| {
        let newest_first = std::cmp::Reverse((claim.sequence(), is_named(claim.place)));
        (claim.entry.key_hash, newest_first, claim.place)
    };
    claims.sort_unstable_by_key(order);
    claims.dedup_by_key(|claim| claim.place);
}

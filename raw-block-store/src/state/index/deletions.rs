//! The sequences with which keys were deleted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::located::KeyHash;
use crate::mutant::Mutant;

/// Parts of the keys, each with its own lock.
const PARTS: usize = 64;
/// The most deletions that are forgotten per recorded one, so that the work under a shard's lock is
/// bounded.
const FORGOTTEN_AT_ONCE: usize = 8;
/// Records for which an empty part keeps memory.
const KEPT: usize = 64;

/// The sequences with which keys were deleted or removed, while older changes of them may be in
/// flight.
///
/// A key is recorded and looked up under the lock of its shard of the index. The locks here
/// serialise different keys.
pub(super) struct Deletions {
    parts: Box<[Mutex<Part>; PARTS]>,
    /// How many keys are remembered. The count includes a key before the call that records it
    /// returns, so a thread that acquires the lock of the key's shard later sees a count of at
    /// least 1.
    remembered: AtomicUsize,
}

#[derive(Default)]
struct Part {
    since: BTreeMap<KeyHash, u64>,
    /// The records, the oldest first.
    order: VecDeque<(u64, KeyHash)>,
}

impl Deletions {
    pub(super) fn new() -> Self {
        let parts = Box::new(
            [const { Mutex::new(Part { since: BTreeMap::new(), order: VecDeque::new() }) }; PARTS],
        );
        Self { parts, remembered: AtomicUsize::new(0) }
    }

    /// The sequence with which a key was last deleted or removed; 0 if no older change is in
    /// flight.
    pub(super) fn since(&self, hash: &KeyHash) -> u64 {
        if self.remembered.load(Ordering::Relaxed) == 0 || Mutant::GoneForgotten.is_on() {
            return 0;
        }
        self.part(hash).since.get(hash).copied().unwrap_or(0)
    }

    /// Records that a key was deleted with `sequence`, if an older change is in flight. Forgets
    /// some deletions that are older than every change in flight.
    pub(super) fn note(&self, hash: &KeyHash, sequence: u64, oldest_in_flight: u64) {
        let mut part = self.part(hash);
        self.forget_some(&mut part, oldest_in_flight);
        if sequence > oldest_in_flight {
            let mut new = false;
            let since = part.since.entry(*hash).or_insert_with(|| {
                new = true;
                0
            });
            *since = sequence.max(*since);
            let since = *since;
            part.order.push_back((since, *hash));
            if new {
                self.remembered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets all deletions that are older than every change in flight.
    pub(super) fn forget(&self, oldest_in_flight: u64) {
        for part in &*self.parts {
            while self.forget_some(&mut lock(part), oldest_in_flight) {}
        }
    }

    /// How many keys are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    /// Approximate bytes of memory.
    pub(super) fn memory(&self) -> usize {
        let parts = self.parts.iter().map(|part| {
            let part = lock(part);
            part.since.len() * 2 * size_of::<(KeyHash, u64)>()
                + part.order.capacity() * size_of::<(u64, KeyHash)>()
        });
        size_of_val(&*self.parts) + parts.sum::<usize>()
    }

    /// Returns whether there may be more to forget.
    fn forget_some(&self, part: &mut Part, oldest_in_flight: u64) -> bool {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let oldest_note = part.order.front().copied();
            let Some((since, hash)) = oldest_note.filter(|(since, _)| *since <= oldest_in_flight)
            else {
                if part.order.is_empty() && part.order.capacity() > KEPT {
                    part.order = VecDeque::new();
                }
                return false;
            };
            part.order.pop_front();
            if part.since.get(&hash) == Some(&since) {
                part.since.remove(&hash);
                self.remembered.fetch_sub(1, Ordering::Relaxed);
            }
        }
        true
    }

    fn part(&self, hash: &KeyHash) -> MutexGuard<'_, Part> {
        lock(&self.parts[usize::from(hash[15]) % PARTS])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

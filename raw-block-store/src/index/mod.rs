//! What the store holds: from key hash to slot, and from slot to object.

mod entries;
mod shard;

use std::ops::Deref;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use entries::Entries;
use shard::Shard;

use crate::Error;
use crate::format::ObjectEntry;
use crate::space::Place;

/// A keyed hash of a key.
pub(crate) type KeyHash = [u8; 16];

/// The most shards, a power of two, and no more than a word has bits.
const MAX_SHARDS: usize = 64;
/// How many slots there are for each shard, at least.
const SLOTS_PER_SHARD: u64 = 1024;

/// Entries that are looked up at once by whoever wants all of them.
const PIECE: usize = 512;
/// Keys of a batch for which shards are locked at once.
const KEYS_AT_ONCE: usize = 64;

/// Where the index says that an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) slot: u64,
    pub(crate) entry: ObjectEntry,
}

impl Located {
    pub(crate) fn place(&self) -> Place {
        Place { slot: self.slot, sequence: self.entry.sequence.get() }
    }
}

/// The live objects: an entry per slot in slot order, exactly as a checkpoint holds them, and tables that
/// find a slot by key hash, one for each shard of the keys. At most 44 bytes a slot.
///
/// Newest wins: what changes the index carries a sequence, and a change that comes late, because a newer
/// change of its key completed first, changes nothing.
///
/// Shards are locked from the first to the last.
pub(crate) struct Index {
    shards: Box<[RwLock<Shard>]>,
    entries: Entries,
}

impl Index {
    /// An empty index of `slots` slots.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(slots: u64) -> Result<Self, Error> {
        let entries = Entries::new(slots)?;
        let shards = (slots / SLOTS_PER_SHARD).clamp(1, MAX_SHARDS as u64).next_power_of_two();
        // Keys are not spread quite evenly.
        let per_shard = slots / shards + slots / shards / 16 + 16;
        let shards: Result<_, Error> =
            (0..shards).map(|_| Ok(RwLock::new(Shard::new(per_shard)?))).collect();
        Ok(Self { shards: shards?, entries })
    }

    /// How many objects are live.
    pub(crate) fn len(&self) -> u64 {
        (0..self.shards.len()).map(|shard| self.read(shard).len()).sum()
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u64 {
        self.entries.slots()
    }

    /// The entry of a slot; not [live](ObjectEntry::is_live) if it holds none.
    pub(crate) fn entry(&self, slot: u64) -> ObjectEntry {
        u32::try_from(slot).map_or(ObjectEntry::NONE, |slot| self.entries.get(slot))
    }

    /// Whether there is such a slot, and it holds a live object.
    pub(crate) fn holds(&self, slot: u64) -> bool {
        slot < self.slots() && self.entry(slot).is_live()
    }

    /// Copies the entries of the slots from `first` on, as they are now.
    pub(crate) fn copy(&self, first: u64, into: &mut [ObjectEntry]) {
        self.entries.copy(first, into);
    }

    /// The live objects in the order of their slots, looked up piece by piece.
    pub(crate) fn live(&self) -> impl Iterator<Item = Located> {
        let mut entries = vec![ObjectEntry::NONE; PIECE];
        (0..self.slots()).step_by(PIECE).flat_map(move |first| {
            let left = usize::try_from(self.slots() - first).unwrap_or(usize::MAX);
            let entries = &mut entries[..left.min(PIECE)];
            self.copy(first, entries);
            let live = (first..).zip(&*entries).filter(|(_, entry)| entry.is_live());
            live.map(|(slot, entry)| Located { slot, entry: *entry }).collect::<Vec<_>>()
        })
    }

    /// Where the object with this key hash is.
    pub(crate) fn find(&self, hash: &KeyHash) -> Option<Located> {
        self.read(shard_of(hash, self.shards.len())).find(hash, &self.entries)
    }

    /// Where the objects with these key hashes are; appends them to `located`.
    pub(crate) fn find_many(&self, hashes: &[KeyHash], located: &mut Vec<Option<Located>>) {
        for hashes in hashes.chunks(KEYS_AT_ONCE) {
            let locked = self.lock_shards(hashes, |shard| self.read(shard));
            self.find_locked(&locked, hashes, |found| located.push(found));
        }
    }

    /// [Publishes](Self::publish) a batch; appends the slots that hold nothing live any more to `retired`.
    pub(crate) fn publish_many(&self, batch: &[Located], retired: &mut Vec<Place>) {
        for batch in batch.chunks(KEYS_AT_ONCE) {
            let hashes = batch.iter().map(|new| &new.entry.key_hash);
            let mut locked = self.lock_shards(hashes.clone(), |shard| self.write(shard));
            // Afterwards everything that publishing looks at is in the cache.
            let mut replaced = 0;
            self.find_locked(&locked, hashes, |found| replaced += usize::from(found.is_some()));
            retired.reserve(replaced);
            for new in batch {
                let shard = &mut locked[shard_of(&new.entry.key_hash, self.shards.len())];
                let shard = shard.as_deref_mut();
                retired.extend(shard.and_then(|shard| shard.publish(*new, &self.entries)));
            }
        }
    }

    /// Puts an object that was written to `slot` into the index. Returns the slot that holds nothing
    /// live any more: that of the object it replaces, or `slot` itself when it came late.
    pub(crate) fn publish(&self, slot: u64, entry: ObjectEntry) -> Option<Place> {
        let shard = shard_of(&entry.key_hash, self.shards.len());
        self.write(shard).publish(Located { slot, entry }, &self.entries)
    }

    /// Removes the object with this key hash if it is older than `sequence`. Returns its slot.
    ///
    /// `oldest` is the lowest sequence of the changes under way: one older than the deletion may complete
    /// after it, and must not bring the key back.
    pub(crate) fn delete(&self, hash: &KeyHash, sequence: u64, oldest: u64) -> Option<Place> {
        let shard = shard_of(hash, self.shards.len());
        self.write(shard).delete(hash, sequence, oldest, &self.entries)
    }

    /// Removes the object in `slot`, if there is one. `oldest` as for [`delete`](Self::delete).
    pub(crate) fn evict(&self, slot: u64, oldest: u64) -> Option<Place> {
        let entry = self.entry(slot);
        if !entry.is_live() {
            return None;
        }
        let shard = shard_of(&entry.key_hash, self.shards.len());
        self.write(shard).evict(Located { slot, entry }, oldest, &self.entries)
    }

    /// Looks up to [`KEYS_AT_ONCE`] keys up, whose shards are locked.
    ///
    /// In a large store it is misses of the cache that a look-up costs. Here those of different keys overlap: first
    /// all tables are asked, then all entries, and between one key and the next there is no lock.
    fn find_locked<'a>(
        &self,
        locked: &[Option<impl Deref<Target = Shard>>; MAX_SHARDS],
        hashes: impl IntoIterator<Item = &'a KeyHash, IntoIter: Clone>,
        mut found: impl FnMut(Option<Located>),
    ) {
        let hashes = hashes.into_iter();
        let shard = |hash| locked[shard_of(hash, self.shards.len())].as_deref();
        let mut likely = [None; KEYS_AT_ONCE];
        for (likely, hash) in likely.iter_mut().zip(hashes.clone()) {
            *likely = shard(hash).and_then(|shard| shard.likely(hash));
        }
        for (likely, hash) in likely.into_iter().zip(hashes) {
            let shard = shard(hash).zip(likely);
            found(shard.and_then(|(shard, likely)| shard.find_at(likely, hash, &self.entries)));
        }
    }

    /// Locks the shards of these keys, from the first to the last, so that two who lock several do not wait for
    /// each other.
    fn lock_shards<'a, Guard>(
        &self,
        hashes: impl IntoIterator<Item = &'a KeyHash>,
        lock: impl Fn(usize) -> Guard,
    ) -> [Option<Guard>; MAX_SHARDS] {
        let bits = hashes.into_iter().map(|hash| 1_u64 << shard_of(hash, self.shards.len()));
        let wanted = bits.fold(0, |wanted, bit| wanted | bit);
        std::array::from_fn(|shard| (wanted >> shard & 1 == 1).then(|| lock(shard)))
    }

    fn read(&self, shard: usize) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: usize) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard of a key: other bits of its hash than those that spread it over the table.
fn shard_of(hash: &KeyHash, shards: usize) -> usize {
    usize::from(hash[15]) & (shards - 1)
}

#[cfg(test)]
mod tests;

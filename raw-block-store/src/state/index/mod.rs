//! The index: from key hash to place, and from place to object.

mod by_place;
mod chunk;
mod chunk_list;
mod deletions;
mod directory;
mod entries;
mod located;
mod shard;
mod shards;
mod stamp;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use deletions::Deletions;
use entries::Entries;
pub(crate) use located::{KeyHash, Located, Move, Place, Published};
use shard::{Context, Shard};
pub(crate) use shards::KEYS_AT_ONCE;
use shards::{LockedShards, Shards};
pub(crate) use stamp::Stamp;

/// The live objects: an entry for each number of each segment in use, and tables that find an entry
/// by key hash. At most 64 bytes an entry, growth included.
///
/// The highest sequence wins: each change has a sequence, and a change that completes after a newer
/// change of its key has no effect.
///
/// Calls by key take the lock of one shard of the keys, or of those of a batch, for a bounded time.
/// Calls by place take no lock.
pub(crate) struct Index {
    shards: Shards,
    entries: Entries,
    gone: Deletions,
    /// Objects in all shards.
    len: AtomicU64,
    /// Whether an object was ever marked as damaged.
    any_damaged: AtomicBool,
}

/// By key.
impl Index {
    /// Bytes of memory that a segment without entries takes.
    pub(crate) const MEMORY_PER_SEGMENT: usize = Entries::MEMORY_PER_SEGMENT;

    /// An empty index of a store with this many segments.
    pub(crate) fn new(segments: u32) -> Self {
        Self {
            shards: Shards::new(),
            entries: Entries::new(segments),
            gone: Deletions::new(),
            len: AtomicU64::new(0),
            any_damaged: AtomicBool::new(false),
        }
    }

    /// How many objects are live.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Prepares for this many objects: cheaper than growth while they are published.
    pub(crate) fn reserve(&self, objects: u64) {
        self.shards.grow(objects, &self.entries);
    }

    /// Where the object with this key hash is.
    pub(crate) fn find(&self, hash: &KeyHash) -> Option<Located> {
        self.shards.read(hash).find(hash, &self.entries)
    }

    /// Where the objects with these key hashes are; appends them to `located`.
    pub(crate) fn find_many(&self, hashes: &[KeyHash], located: &mut Vec<Option<Located>>) {
        for hashes in hashes.chunks(KEYS_AT_ONCE) {
            let locked = self.shards.read_many(&hashes.iter());
            self.find_locked(&locked, hashes.iter(), |found| located.push(found));
        }
    }

    /// Into how many parts the keys can be divided now for [`keys_of`](Self::keys_of).
    pub(crate) fn parts(&self) -> u32 {
        self.shards.parts()
    }

    /// Appends the keys of one part of `parts`, a number that [`parts`](Self::parts) returned: each
    /// key that is present during the whole call, at least once. A key stays in its part,
    /// regardless of changes to its object and to other keys. A part has some hundred keys, more
    /// only if the index has grown since.
    pub(crate) fn keys_of(&self, part: u32, parts: u32, keys: &mut Vec<KeyHash>) {
        self.shards.keys_of(part, parts, &self.entries, keys);
    }

    /// Shows an object, whose entry [exists](Self::extend) and is empty, if its sequence is the
    /// newest of its key.
    #[cfg(test)]
    pub(crate) fn publish(&self, new: &Located) -> Published {
        self.insert(new, false)
    }

    /// [Publishes](Self::publish) a batch in its order; appends the outcome of each object.
    pub(crate) fn publish_many(&self, batch: &[Located], results: &mut Vec<Published>) {
        self.insert_many(batch, false, results);
    }

    /// Shows an object that recovery found. As [`publish`](Self::publish); of two with the same
    /// sequence the second one is shown. If `unverified`, its first get verifies it.
    pub(crate) fn insert_recovered(&self, found: &Located, unverified: bool) -> Published {
        self.insert(found, unverified)
    }

    /// [Shows](Self::insert_recovered) a batch; appends the outcome of each object.
    pub(crate) fn insert_recovered_many(
        &self,
        batch: &[Located],
        unverified: bool,
        results: &mut Vec<Published>,
    ) {
        self.insert_many(batch, unverified, results);
    }

    /// Shows copies of objects. Each replaces exactly the object that was read, or nothing if that
    /// is no longer shown. Reports for each copy whether it is shown.
    pub(crate) fn publish_moves(&self, copies: &[Move], mut result: impl FnMut(&Move, bool)) {
        for copies in copies.chunks(KEYS_AT_ONCE) {
            let hashes = copies.iter().map(|copy| &copy.to.entry.key_hash);
            let mut locked = self.shards.write_many(&hashes);
            self.find_locked(&locked, hashes, |_| ());
            for (position, copy) in copies.iter().enumerate() {
                let at = self.entries.location(copy.to.place);
                debug_assert!(at.is_some(), "the segment was not extended");
                let shown = locked.of_key_mut(position).zip(at);
                let shown = shown.map(|(shard, at)| shard.publish_move(copy, at, self.context()));
                result(copy, shown == Some(true));
            }
        }
    }

    /// Removes the object with this key hash if it is older than `sequence`, and returns it.
    ///
    /// `oldest_in_flight` is the lowest sequence in flight: a change older than the deletion may
    /// complete after it, and must not bring the key back. Without any it is `u64::MAX`.
    pub(crate) fn delete(
        &self,
        hash: &KeyHash,
        sequence: u64,
        oldest_in_flight: u64,
    ) -> Option<Located> {
        let mut shard = self.shards.write(hash);
        let deleted = shard.delete(hash, sequence, oldest_in_flight, self.context());
        self.count(0, deleted.is_some().into());
        deleted
    }

    /// Removes exactly this object, if the index still shows it; returns whether it did. With the
    /// lowest sequence in flight, the object's sequence is remembered like that of a deletion.
    pub(crate) fn remove(&self, object: &Located, oldest_in_flight: Option<u64>) -> bool {
        let mut shard = self.shards.write(&object.entry.key_hash);
        let removed = shard.remove(object, oldest_in_flight, self.context());
        self.count(0, removed.into());
        removed
    }

    /// Marks an object as damaged, if the index still shows exactly it. Returns whether it does,
    /// and the object was not marked before.
    pub(crate) fn mark_damaged(&self, object: &Located) -> bool {
        let shard = self.shards.read(&object.entry.key_hash);
        let shown = shard.shows(object, &self.entries).is_some();
        let found = self.entries.find(object.place).filter(|_| shown);
        let is_new = found.is_some_and(|(_, cell)| cell.mark_damaged());
        self.any_damaged.fetch_or(is_new, Ordering::Relaxed);
        is_new
    }

    /// Forgets all deletions that are older than every change in flight. Each deletion forgets only
    /// some of them.
    pub(crate) fn forget_deletions(&self, oldest_in_flight: u64) {
        self.gone.forget(oldest_in_flight);
    }

    /// Bytes of memory that the index takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.entries.memory() + self.shards.memory() + self.gone.memory()
    }

    fn insert(&self, new: &Located, unverified: bool) -> Published {
        let at = self.entries.location(new.place);
        debug_assert!(at.is_some(), "the segment was not extended");
        let Some(at) = at else { return Published::Superseded };
        let published =
            self.shards.write(&new.entry.key_hash).publish(new, at, unverified, self.context());
        self.count(is_new(&published).into(), 0);
        published
    }

    fn insert_many(&self, batch: &[Located], unverified: bool, results: &mut Vec<Published>) {
        results.reserve(batch.len());
        for batch in batch.chunks(KEYS_AT_ONCE) {
            let hashes = batch.iter().map(|new| &new.entry.key_hash);
            let mut locked = self.shards.write_many(&hashes);
            // Afterwards everything that publishing reads is in the cache.
            self.find_locked(&locked, hashes, |_| ());
            let mut added = 0;
            for (position, new) in batch.iter().enumerate() {
                let at = self.entries.location(new.place);
                debug_assert!(at.is_some(), "the segment was not extended");
                let published = locked
                    .of_key_mut(position)
                    .zip(at)
                    .map_or(Published::Superseded, |(shard, at)| {
                        shard.publish(new, at, unverified, self.context())
                    });
                added += u64::from(is_new(&published));
                results.push(published);
            }
            drop(locked);
            self.count(added, 0);
        }
    }

    /// Looks up keys whose shards are locked.
    ///
    /// In a large store, cache misses dominate the cost of a look-up. Here the misses of different
    /// keys overlap: the first loop reads all tables, the second all entries, without a lock
    /// between two keys.
    fn find_locked<'k>(
        &self,
        locked: &LockedShards<impl Deref<Target = Shard>>,
        hashes: impl Iterator<Item = &'k KeyHash> + Clone,
        mut found: impl FnMut(Option<Located>),
    ) {
        let mut likely = [None; KEYS_AT_ONCE];
        for (position, (likely, hash)) in likely.iter_mut().zip(hashes.clone()).enumerate() {
            *likely = locked.of_key(position).and_then(|shard| shard.likely(hash));
        }
        for (position, (likely, hash)) in likely.into_iter().zip(hashes).enumerate() {
            let shard = locked.of_key(position).zip(likely);
            found(shard.and_then(|(shard, likely)| shard.find_at(likely, hash, &self.entries)));
        }
    }

    /// Counts objects that were added and removed, for a caller without the lock of a shard if
    /// there are added ones.
    fn count(&self, added: u64, removed: u64) {
        if added > 0 {
            let len = self.len.fetch_add(added, Ordering::Relaxed) + added;
            self.shards.grow(len, &self.entries);
        }
        if removed > 0 {
            self.len.fetch_sub(removed, Ordering::Relaxed);
        }
    }

    fn context(&self) -> Context<'_> {
        Context { entries: &self.entries, gone: &self.gone }
    }
}

fn is_new(published: &Published) -> bool {
    matches!(published, Published::Shown { replaced: None })
}

#[cfg(test)]
mod tests;

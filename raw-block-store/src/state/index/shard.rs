//! A shard: the part of the index for some of the keys.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::deletions::Deletions;
use super::entries::{Entries, Location};
use super::located::{KeyHash, Located, Move, Published};
use super::stamp::Stamp;
use crate::mutant::Mutant;

/// The locations of the live objects, by the hash of their key.
#[derive(Default)]
pub(super) struct Shard {
    table: HashTable<Location>,
    /// The number of changes of the table, modulo 2^32.
    changes: u32,
}

/// What a shard needs to change.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) entries: &'a Entries,
    pub(super) gone: &'a Deletions,
}

impl Shard {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// A number that differs after each change.
    pub(super) fn changes(&self) -> u32 {
        self.changes
    }

    /// Bytes that the table takes.
    pub(super) fn memory(&self) -> usize {
        self.table.allocation_size()
    }

    pub(super) fn find(&self, hash: &KeyHash, entries: &Entries) -> Option<Located> {
        self.location(hash, entries).map(|at| entries.located(at))
    }

    /// The first location that may be the key's. It does not read the entry, so a few percent are
    /// of another key. `None` if the key is not there.
    pub(super) fn likely(&self, hash: &KeyHash) -> Option<Location> {
        self.table.find(spread(hash), |_| true).copied()
    }

    /// As [`find`](Self::find), with what [`likely`](Self::likely) returned.
    pub(super) fn find_at(
        &self,
        likely: Location,
        hash: &KeyHash,
        entries: &Entries,
    ) -> Option<Located> {
        let located = entries.located(likely);
        if located.entry.key_hash == *hash { Some(located) } else { self.find(hash, entries) }
    }

    /// Publishes an object whose entry is empty and at this location.
    pub(super) fn publish(
        &mut self,
        new: &Located,
        at: Location,
        unverified: bool,
        context: Context<'_>,
    ) -> Published {
        self.note_change();
        let Context { entries, gone } = context;
        let hash = new.entry.key_hash;
        let last_wins = Mutant::LastToCompleteWins.is_on();
        // Only a recovery of damaged structures inserts twice at one place.
        if entries.is_live(at) {
            return Published::Superseded;
        }
        if gone.since(&hash) > new.sequence() && !last_wins {
            return Published::Superseded;
        }
        if self.table.len() == self.table.capacity() {
            // The table may grow, which needs all keys: they are read together here, and one by one
            // there.
            let keys = self.iter(entries).fold(0, |all, (hash, _)| all ^ hash[0]);
            std::hint::black_box(keys);
        }
        let found = self.table.entry(
            spread(&hash),
            |&at| entries.key_hash(at) == hash,
            |&at| spread(&entries.key_hash(at)),
        );
        match found {
            Slot::Occupied(mut found) => {
                let older_at = *found.get();
                let older = entries.located(older_at);
                if older.sequence() > new.sequence() && !last_wins {
                    return Published::Superseded;
                }
                entries.fill(at, &new.entry, Stamp::default(), unverified);
                *found.get_mut() = at;
                // Last, so that a checkpoint that copies the bits between the two steps names both,
                // not neither.
                entries.kill(older_at);
                Published::Shown { replaced: Some(older) }
            }
            Slot::Vacant(space) => {
                entries.fill(at, &new.entry, Stamp::default(), unverified);
                space.insert(at);
                Published::Shown { replaced: None }
            }
        }
    }

    /// Publishes a copy, whose entry is empty and at this location, if exactly the object that was
    /// read is still shown. Returns whether it was.
    pub(super) fn publish_move(&mut self, copy: &Move, at: Location, context: Context<'_>) -> bool {
        self.note_change();
        let Context { entries, .. } = context;
        let hash = copy.to.entry.key_hash;
        let read = Located { place: copy.from, entry: copy.to.entry };
        if Mutant::CopyReplacesAnything.is_on() {
            if let Some(found) = self.location(&hash, entries) {
                self.take(found, entries);
            }
            entries.fill(at, &copy.to.entry, copy.stamp, false);
            self.insert(&hash, at, entries);
            return true;
        }
        let found = self.table.find_mut(spread(&hash), |&at| entries.key_hash(at) == hash);
        let Some(found) = found.filter(|found| entries.located(**found).is_same(&read)) else {
            return false;
        };
        entries.fill(at, &copy.to.entry, copy.stamp, false);
        let old = std::mem::replace(found, at);
        entries.kill(old);
        true
    }

    pub(super) fn delete(
        &mut self,
        hash: &KeyHash,
        sequence: u64,
        oldest_in_flight: u64,
        context: Context<'_>,
    ) -> Option<Located> {
        let Context { entries, gone } = context;
        gone.note(hash, sequence, oldest_in_flight);
        let at = self.location(hash, entries)?;
        let found = entries.located(at);
        let is_older = found.sequence() < sequence || Mutant::DeleteRemovesNewerPut.is_on();
        is_older.then(|| {
            self.take(at, entries);
            found
        })
    }

    /// Removes exactly this object, if it is shown. Returns whether it was.
    pub(super) fn remove(
        &mut self,
        object: &Located,
        oldest_in_flight: Option<u64>,
        context: Context<'_>,
    ) -> bool {
        let Context { entries, gone } = context;
        let Some(at) = self.shows(object, entries) else { return false };
        if let Some(oldest) = oldest_in_flight {
            gone.note(&object.entry.key_hash, object.sequence(), oldest);
        }
        self.take(at, entries);
        true
    }

    /// The location of exactly this object, if it is shown.
    pub(super) fn shows(&self, object: &Located, entries: &Entries) -> Option<Location> {
        let at = self.location(&object.entry.key_hash, entries)?;
        entries.located(at).is_same(object).then_some(at)
    }

    /// All locations with the hashes of their keys.
    pub(super) fn iter(&self, entries: &Entries) -> impl Iterator<Item = (KeyHash, Location)> {
        self.table.iter().map(|&at| (entries.key_hash(at), at))
    }

    /// A shard of this many objects, which are of different keys.
    pub(super) fn of<'o>(
        count: usize,
        objects: impl Iterator<Item = &'o (KeyHash, Location)>,
        entries: &Entries,
    ) -> Self {
        let mut shard = Self { table: HashTable::with_capacity(count), changes: 0 };
        objects.for_each(|(hash, at)| shard.insert(hash, *at, entries));
        shard
    }

    fn insert(&mut self, hash: &KeyHash, at: Location, entries: &Entries) {
        self.table.insert_unique(spread(hash), at, |&at| spread(&entries.key_hash(at)));
    }

    fn note_change(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    fn location(&self, hash: &KeyHash, entries: &Entries) -> Option<Location> {
        self.table.find(spread(hash), |&at| entries.key_hash(at) == *hash).copied()
    }

    /// Removes an object that was found.
    fn take(&mut self, at: Location, entries: &Entries) {
        self.note_change();
        let hash = spread(&entries.key_hash(at));
        if let Ok(found) = self.table.find_entry(hash, |&found| found == at) {
            found.remove();
            entries.kill(at);
        }
    }
}

/// The part of a key hash that spreads keys over the table.
fn spread(hash: &KeyHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

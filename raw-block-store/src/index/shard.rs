//! The part of the index that some of the keys are in.

use std::collections::{HashMap, VecDeque};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::entries::Entries;
use super::{KeyHash, Located};
use crate::Error;
use crate::fault::Fault;
use crate::format::ObjectEntry;
use crate::space::Place;

pub(super) struct Shard {
    /// Slots of live entries, by the hash of their key.
    table: HashTable<u32>,
    gone: Gone,
}

impl Shard {
    /// A shard with room for `keys` keys.
    pub(super) fn new(keys: u64) -> Result<Self, Error> {
        let bytes = keys.saturating_mul(size_of::<u32>() as u64);
        let no_memory = || Error::OutOfMemory { what: "the index", bytes };
        let mut table = HashTable::new();
        let keys = usize::try_from(keys).map_err(|_| no_memory())?;
        table.try_reserve(keys, |_| 0).map_err(|_| no_memory())?;
        Ok(Self { table, gone: Gone::default() })
    }

    pub(super) fn len(&self) -> u64 {
        self.table.len() as u64
    }

    pub(super) fn find(&self, hash: &KeyHash, entries: &Entries) -> Option<Located> {
        let mut entry = ObjectEntry::NONE;
        let slot = self.table.find(spread(hash), |&slot| {
            entry = entries.of_locked_shard(slot);
            entry.key_hash == *hash
        })?;
        Some(Located { slot: (*slot).into(), entry })
    }

    /// The first slot that may be the key's: without a look at its entry, some hundredths of them are another's.
    /// `None` if the key is not there.
    pub(super) fn likely(&self, hash: &KeyHash) -> Option<u32> {
        self.table.find(spread(hash), |_| true).copied()
    }

    /// As [`find`](Self::find), with what [`likely`](Self::likely) returned.
    pub(super) fn find_at(
        &self,
        likely: u32,
        hash: &KeyHash,
        entries: &Entries,
    ) -> Option<Located> {
        let entry = entries.of_locked_shard(likely);
        if entry.key_hash == *hash {
            Some(Located { slot: likely.into(), entry })
        } else {
            self.find(hash, entries)
        }
    }

    pub(super) fn publish(&mut self, new: Located, entries: &Entries) -> Option<Place> {
        let hash = new.entry.key_hash;
        let Ok(slot) = u32::try_from(new.slot) else { return None };
        if self.gone.since(&hash) > new.entry.sequence.get() {
            return Some(new.place());
        }
        let found = self.table.entry(
            spread(&hash),
            |&slot| entries.of_locked_shard(slot).key_hash == hash,
            |&slot| spread(&entries.of_locked_shard(slot).key_hash),
        );
        match found {
            Entry::Occupied(mut found) => {
                let older_slot = *found.get();
                let older =
                    Located { slot: older_slot.into(), entry: entries.of_locked_shard(older_slot) };
                if older.entry.sequence > new.entry.sequence && !Fault::LastToCompleteWins.is_on() {
                    return Some(new.place());
                }
                entries.fill(slot, new.entry);
                *found.get_mut() = slot;
                entries.clear(older_slot);
                Some(older.place())
            }
            Entry::Vacant(room) => {
                entries.fill(slot, new.entry);
                room.insert(slot);
                None
            }
        }
    }

    pub(super) fn delete(
        &mut self,
        hash: &KeyHash,
        sequence: u64,
        oldest: u64,
        entries: &Entries,
    ) -> Option<Place> {
        self.gone.note(hash, sequence, oldest);
        let found = self.find(hash, entries)?;
        (found.entry.sequence.get() < sequence).then(|| self.take(&found, entries))
    }

    pub(super) fn evict(
        &mut self,
        victim: Located,
        oldest: u64,
        entries: &Entries,
    ) -> Option<Place> {
        let hash = &victim.entry.key_hash;
        let found = self.find(hash, entries).filter(|found| *found == victim)?;
        self.gone.note(hash, victim.entry.sequence.get(), oldest);
        Some(self.take(&found, entries))
    }

    /// Removes an object that was found.
    fn take(&mut self, found: &Located, entries: &Entries) -> Place {
        let hash = spread(&found.entry.key_hash);
        if let Ok(entry) = self.table.find_entry(hash, |&slot| u64::from(slot) == found.slot) {
            let (slot, _) = entry.remove();
            entries.clear(slot);
        }
        found.place()
    }
}

/// The part of a key hash that spreads keys over the table.
fn spread(hash: &KeyHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The sequences with which keys were deleted or evicted, as long as older changes of them may be under
/// way.
#[derive(Default)]
struct Gone {
    since: HashMap<KeyHash, u64>,
    order: VecDeque<(u64, KeyHash)>,
}

impl Gone {
    /// The sequence with which a key was last deleted or evicted; 0 if no older change is under way.
    fn since(&self, hash: &KeyHash) -> u64 {
        if self.since.is_empty() || Fault::GoneForgotten.is_on() {
            0
        } else {
            self.since.get(hash).copied().unwrap_or(0)
        }
    }

    /// Notes that a key is gone since `sequence`, if a change older than that is under way. Those that
    /// are older than every change under way are forgotten.
    fn note(&mut self, hash: &KeyHash, sequence: u64, oldest: u64) {
        while let Some(&(since, hash)) = self.order.front()
            && since <= oldest
        {
            self.order.pop_front();
            if self.since.get(&hash) == Some(&since) {
                self.since.remove(&hash);
            }
        }
        if sequence > oldest {
            let since = self.since.entry(*hash).or_default();
            *since = sequence.max(*since);
            self.order.push_back((*since, *hash));
        }
    }
}

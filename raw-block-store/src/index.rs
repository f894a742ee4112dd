//! What the store holds: from key hash to slot, and from slot to object.

use std::collections::HashMap;

use hashbrown::HashTable;
use zerocopy::FromZeros;

use crate::Error;
use crate::format::ObjectEntry;

/// A keyed hash of a key.
pub(crate) type KeyHash = [u8; 16];

/// The live objects, one entry per slot in slot order, exactly as a checkpoint holds them, with a table
/// that finds a slot by key hash. At most 44 bytes a slot.
///
/// Newest wins: what changes the index carries a sequence, and a change that comes late, because a newer
/// operation on its key completed first, changes nothing.
pub(crate) struct Index {
    entries: Box<[ObjectEntry]>,
    /// Slots of live entries, by the hash of their key.
    table: HashTable<u32>,
    /// Sequences of deletions that older puts still under way must not undo.
    deleted: HashMap<KeyHash, u64>,
}

impl Index {
    pub(crate) fn new(slots: u64) -> Result<Self, Error> {
        let bytes = slots.saturating_mul(size_of::<ObjectEntry>() as u64);
        let no_memory = || Error::OutOfMemory { what: "the index", bytes };
        let slots = usize::try_from(slots).map_err(|_| no_memory())?;
        let entries = <[ObjectEntry]>::new_box_zeroed_with_elems(slots).map_err(|_| no_memory())?;
        Ok(Self { entries, table: HashTable::new(), deleted: HashMap::new() })
    }

    /// How many objects are live.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// One entry per slot.
    pub(crate) fn entries(&self) -> &[ObjectEntry] {
        &self.entries
    }

    /// The slot and the entry of the object with this key hash.
    pub(crate) fn get(&self, hash: &KeyHash) -> Option<(u64, &ObjectEntry)> {
        let slot = *self.table.find(spread(hash), |&slot| self.entry(slot).key_hash == *hash)?;
        Some((slot.into(), self.entry(slot)))
    }

    /// Puts an object that was written to `slot` into the index. Returns the slot that holds nothing
    /// live any more: that of the object it replaces, or `slot` itself when it came late.
    pub(crate) fn publish(&mut self, slot: u64, entry: ObjectEntry) -> Option<u64> {
        let Ok(slot) = u32::try_from(slot) else { return None };
        let sequence = entry.sequence.get();
        if self.deleted.get(&entry.key_hash).is_some_and(|&deleted| deleted > sequence) {
            return Some(slot.into());
        }
        let hash = entry.key_hash;
        let older = match self.get(&hash) {
            Some((_, newer)) if newer.sequence.get() > sequence => return Some(slot.into()),
            older => older.map(|(slot, _)| slot),
        };
        if older.is_some() {
            self.take(&hash);
        }
        self.entries[slot as usize] = entry;
        let entries = &self.entries;
        self.table
            .insert_unique(spread(&hash), slot, |&slot| spread(&entries[slot as usize].key_hash));
        older
    }

    /// Removes the object with this key hash if it is older than `sequence`, and keeps older puts that
    /// come late from bringing it back. Returns the slot that holds nothing live any more.
    pub(crate) fn delete(&mut self, hash: &KeyHash, sequence: u64) -> Option<u64> {
        let deleted = self.deleted.entry(*hash).or_default();
        *deleted = sequence.max(*deleted);
        match self.get(hash) {
            Some((_, entry)) if entry.sequence.get() < sequence => self.take(hash),
            _ => None,
        }
    }

    /// Forgets the deletions: no put that is older than one of them is under way.
    pub(crate) fn forget_deletions(&mut self) {
        self.deleted.clear();
    }

    /// Removes an object and returns its slot.
    fn take(&mut self, hash: &KeyHash) -> Option<u64> {
        let entries = &self.entries;
        let found =
            self.table.find_entry(spread(hash), |&slot| entries[slot as usize].key_hash == *hash);
        let (slot, _) = found.ok()?.remove();
        self.entries[slot as usize] = ObjectEntry::NONE;
        Some(slot.into())
    }

    fn entry(&self, slot: u32) -> &ObjectEntry {
        &self.entries[slot as usize]
    }
}

/// The part of a key hash that spreads keys over the table.
fn spread(hash: &KeyHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u8, sequence: u64) -> ObjectEntry {
        ObjectEntry { key_hash: [key; 16], sequence: sequence.into(), ..ObjectEntry::NONE }
    }

    fn slot_of(index: &Index, key: u8) -> Option<u64> {
        index.get(&[key; 16]).map(|(slot, _)| slot)
    }

    #[test]
    fn the_newest_put_of_a_key_wins_in_whatever_order_they_complete() {
        let mut index = Index::new(4).unwrap();
        assert_eq!(index.publish(0, entry(1, 10)), None);
        assert_eq!(index.publish(1, entry(1, 12)), Some(0), "the older copy dies");
        assert_eq!(index.publish(2, entry(1, 11)), Some(2), "the late one dies");
        assert_eq!(slot_of(&index, 1), Some(1));
        assert_eq!(index.len(), 1);
        assert!(!index.entries()[0].is_live() && !index.entries()[2].is_live());
    }

    #[test]
    fn a_deletion_is_not_undone_by_an_older_put_that_completes_late() {
        let mut index = Index::new(4).unwrap();
        assert_eq!(index.publish(0, entry(1, 10)), None);
        assert_eq!(index.delete(&[1; 16], 20), Some(0));
        assert_eq!(index.publish(1, entry(1, 15)), Some(1));
        assert_eq!(slot_of(&index, 1), None);
        assert_eq!(index.publish(2, entry(1, 21)), None, "a newer put is no late one");
        assert_eq!(slot_of(&index, 1), Some(2));
    }

    #[test]
    fn deletions_are_remembered_until_they_are_forgotten_and_not_for_ever() {
        let mut index = Index::new(4).unwrap();
        assert_eq!(index.delete(&[1; 16], 20), None);
        assert_eq!(index.publish(0, entry(1, 15)), Some(0));
        index.forget_deletions();
        assert_eq!(index.publish(0, entry(1, 15)), None);
    }

    #[test]
    fn a_late_deletion_leaves_a_newer_put_alone() {
        let mut index = Index::new(4).unwrap();
        assert_eq!(index.publish(0, entry(1, 10)), None);
        assert_eq!(index.delete(&[1; 16], 5), None);
        assert_eq!(slot_of(&index, 1), Some(0));
    }

    #[test]
    fn keys_do_not_disturb_each_other() {
        let mut index = Index::new(300).unwrap();
        for key in 0..=255 {
            assert_eq!(index.publish(key.into(), entry(key, 1 + u64::from(key))), None);
        }
        assert_eq!(index.delete(&[7; 16], 1000), Some(7));
        for key in (0..=255).filter(|&key| key != 7) {
            assert_eq!(slot_of(&index, key), Some(key.into()));
        }
        assert_eq!(index.len(), 255);
    }
}

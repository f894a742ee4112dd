//! The entry of every slot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::{FromZeros, transmute};

use crate::Error;
use crate::format::ObjectEntry;

/// Slots whose entries share a lock.
const CHUNK: usize = 4096;
/// Words of an entry.
const WORDS: usize = size_of::<ObjectEntry>() / size_of::<u64>();

/// One entry per slot, in slot order, as a checkpoint holds them: 32 bytes a slot.
///
/// An entry changes only under two locks: that of the shard of its key, so that whoever has that lock sees its
/// keys stand still, and that of its chunk of slots, for those who come by slot and not by key. The chunks
/// are small, so that a checkpoint that copies them keeps nobody waiting for long.
pub(super) struct Entries {
    chunks: Box<[Chunk]>,
    slots: u64,
}

struct Chunk {
    lock: Mutex<()>,
    /// The entries, behind as many words as it takes for each to lie in one line of the cache. An allocation that is
    /// itself aligned like that would be cleared at once; this one takes no memory where it is not used.
    words: Box<[AtomicU64]>,
    skipped: usize,
}

/// An entry in a form that may be read while it changes, by readers who are kept from it by a lock.
type Words = [AtomicU64; WORDS];

fn load(words: &Words) -> ObjectEntry {
    transmute!(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
}

fn store(words: &Words, entry: ObjectEntry) {
    let entry: [u64; WORDS] = transmute!(entry);
    for (to, word) in words.iter().zip(entry) {
        to.store(word, Ordering::Relaxed);
    }
}

impl Entries {
    pub(super) fn new(slots: u64) -> Result<Self, Error> {
        let bytes = slots.saturating_mul(size_of::<ObjectEntry>() as u64);
        let no_memory = || Error::OutOfMemory { what: "the index", bytes };
        let mut left = usize::try_from(slots).map_err(|_| no_memory())?;
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(left.div_ceil(CHUNK)).map_err(|_| no_memory())?;
        while left > 0 {
            let len = left.min(CHUNK);
            chunks.push(Chunk::new(len).ok_or_else(no_memory)?);
            left -= len;
        }
        Ok(Self { chunks: chunks.into(), slots })
    }

    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    /// The entry of a slot, for who has the lock of the shard of its key: it takes no other.
    pub(super) fn of_locked_shard(&self, slot: u32) -> ObjectEntry {
        load(self.words(slot))
    }

    /// The entry of a slot.
    pub(super) fn get(&self, slot: u32) -> ObjectEntry {
        let _lock = self.chunks[slot as usize / CHUNK].lock();
        load(self.words(slot))
    }

    /// Changes the entry of a slot, for who has the lock of the shards of the old and the new key.
    pub(super) fn set(&self, slot: u32, entry: ObjectEntry) {
        let _lock = self.chunks[slot as usize / CHUNK].lock();
        store(self.words(slot), entry);
    }

    /// Copies the entries of the slots from `first` on.
    pub(super) fn copy(&self, first: u64, mut into: &mut [ObjectEntry]) {
        let mut at = usize::try_from(first).unwrap_or(usize::MAX);
        while !into.is_empty() {
            let len = into.len().min(CHUNK - at % CHUNK);
            let (now, later) = into.split_at_mut(len);
            let chunk = &self.chunks[at / CHUNK];
            let _lock = chunk.lock();
            for (to, words) in now.iter_mut().zip(&chunk.entries()[at % CHUNK..]) {
                *to = load(words);
            }
            at += len;
            into = later;
        }
    }

    fn words(&self, slot: u32) -> &Words {
        &self.chunks[slot as usize / CHUNK].entries()[slot as usize % CHUNK]
    }
}

impl Chunk {
    /// A chunk of so many entries, if there is memory for it.
    fn new(entries: usize) -> Option<Self> {
        let most_skipped = WORDS - 1;
        let len = entries.checked_mul(WORDS)?.checked_add(most_skipped)?;
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(len).ok()?;
        let skipped = words.as_ptr().align_offset(size_of::<Words>()).min(most_skipped);
        Some(Self { lock: Mutex::new(()), words, skipped })
    }

    fn entries(&self) -> &[Words] {
        self.words[self.skipped..].as_chunks().0
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_copied_across_chunks() {
        let slots = CHUNK as u64 + 10;
        let entries = Entries::new(slots).unwrap();
        assert_eq!(entries.slots(), slots);
        for slot in 0..u32::try_from(slots).unwrap() {
            let sequence = u64::from(slot) + 1;
            entries.set(slot, ObjectEntry { sequence: sequence.into(), ..ObjectEntry::NONE });
        }
        let mut copied = vec![ObjectEntry::NONE; 20];
        entries.copy(slots - 20, &mut copied);
        for (entry, sequence) in copied.iter().zip(slots - 19..) {
            assert_eq!(entry.sequence, sequence);
        }
        assert_eq!(entries.get(7).sequence, 8);
    }
}

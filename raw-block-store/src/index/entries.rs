//! The entry of every slot.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use zerocopy::{FromZeros, transmute};

use crate::Error;
use crate::format::ObjectEntry;

/// Slots whose entries are one allocation: so large a one that it takes no memory where it is not used.
const CHUNK: usize = 1 << 20;
/// Words of an entry.
const WORDS: usize = size_of::<ObjectEntry>() / size_of::<u64>();
/// The word of an entry that is its sequence.
const SEQUENCE: usize = std::mem::offset_of!(ObjectEntry, sequence) / size_of::<u64>();

/// One entry per slot, in slot order, as a checkpoint holds them: 32 bytes a slot.
///
/// An entry changes only under the lock of the shard of its key, so that whoever has that lock sees its keys stand still.
/// Those who come by slot and not by key take no lock, and nobody waits for a checkpoint that copies all entries: a
/// slot is empty before it gets an object, and no sequence comes twice, so an entry whose sequence is the same before
/// and after it was read did not change meanwhile.
pub(super) struct Entries {
    chunks: Box<[Chunk]>,
    slots: u64,
}

struct Chunk {
    /// The entries, behind as many words as it takes for each to lie in one line of the cache. An allocation that is
    /// itself aligned like that would be cleared at once.
    words: Box<[AtomicU64]>,
    skipped: usize,
}

/// An entry in a form that may be read while it changes.
type Words = [AtomicU64; WORDS];

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

    /// The entry of a slot, for who has the lock of the shard of its key.
    pub(super) fn of_locked_shard(&self, slot: u32) -> ObjectEntry {
        load(self.words(slot))
    }

    /// The entry of a slot.
    pub(super) fn get(&self, slot: u32) -> ObjectEntry {
        load_whole(self.words(slot))
    }

    /// Makes the entry of an empty slot that of an object, for who has the lock of the shard of its key.
    pub(super) fn fill(&self, slot: u32, entry: ObjectEntry) {
        let words = self.words(slot);
        let entry: [u64; WORDS] = transmute!(entry);
        debug_assert_eq!(words[SEQUENCE].load(Ordering::Relaxed), 0, "slot {slot} is not empty");
        // Who sees one of these also sees that the slot was empty before: it was emptied, and given out again, under locks
        // that this thread has had since.
        fence(Ordering::Release);
        for at in (0..WORDS).filter(|&at| at != SEQUENCE) {
            words[at].store(entry[at], Ordering::Relaxed);
        }
        words[SEQUENCE].store(entry[SEQUENCE], Ordering::Release);
    }

    /// Empties a slot, for who has the lock of the shard of its key.
    pub(super) fn clear(&self, slot: u32) {
        self.words(slot)[SEQUENCE].store(0, Ordering::Release);
    }

    /// Copies the entries of the slots from `first` on.
    pub(super) fn copy(&self, first: u64, mut into: &mut [ObjectEntry]) {
        let mut at = usize::try_from(first).unwrap_or(usize::MAX);
        while !into.is_empty() {
            let len = into.len().min(CHUNK - at % CHUNK);
            let (now, later) = into.split_at_mut(len);
            for (to, words) in now.iter_mut().zip(&self.chunks[at / CHUNK].entries()[at % CHUNK..])
            {
                *to = load_whole(words);
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
        Some(Self { words, skipped })
    }

    fn entries(&self) -> &[Words] {
        self.words[self.skipped..].as_chunks().0
    }
}

/// The entry, which does not change meanwhile.
fn load(words: &Words) -> ObjectEntry {
    transmute!(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
}

/// The entry as it was at one moment.
fn load_whole(words: &Words) -> ObjectEntry {
    loop {
        let before = words[SEQUENCE].load(Ordering::Acquire);
        if before == 0 {
            return ObjectEntry::NONE;
        }
        let entry = load(words);
        fence(Ordering::Acquire);
        if words[SEQUENCE].load(Ordering::Relaxed) == before {
            return entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    /// An entry all of which tells its sequence.
    fn entry(sequence: u64) -> ObjectEntry {
        let mut key_hash = [0; 16];
        key_hash[..8].copy_from_slice(&sequence.to_le_bytes());
        key_hash[8..].copy_from_slice(&sequence.to_le_bytes());
        let payload_len = u32::try_from(sequence).unwrap().into();
        ObjectEntry { key_hash, sequence: sequence.into(), payload_len, ..ObjectEntry::NONE }
    }

    #[test]
    fn entries_are_copied_across_chunks() {
        let slots = CHUNK as u64 + 10;
        let entries = Entries::new(slots).unwrap();
        assert_eq!(entries.slots(), slots);
        let last = u32::try_from(slots).unwrap();
        (last - 20..last).for_each(|slot| entries.fill(slot, entry(u64::from(slot) + 1)));
        let mut copied = vec![ObjectEntry::NONE; 21];
        entries.copy(slots - 21, &mut copied);
        assert_eq!(copied[0], ObjectEntry::NONE);
        for (copied, sequence) in copied[1..].iter().zip(slots - 19..) {
            assert_eq!(*copied, entry(sequence));
        }
        entries.clear(last - 1);
        assert_eq!(entries.get(last - 1), ObjectEntry::NONE);
        assert_eq!(entries.get(last - 2), entry(slots - 1));
    }

    #[test]
    fn an_entry_is_read_as_it_was_at_one_moment_while_it_changes() {
        let entries = Entries::new(1).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for sequence in 1..200_000 {
                    entries.fill(0, entry(sequence));
                    entries.clear(0);
                }
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                let read = entries.get(0);
                assert!(
                    read == ObjectEntry::NONE || read == entry(read.sequence.get()),
                    "{read:?}"
                );
            }
        });
    }
}

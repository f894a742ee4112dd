//! The entry of every slot.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use zerocopy::FromZeros;

use crate::Error;
use crate::format::ObjectEntry;

/// Slots whose entries share a lock.
const CHUNK: usize = 4096;

/// One entry per slot, in slot order, as a checkpoint holds them: 32 bytes a slot.
///
/// Locked in chunks, so that a checkpoint that copies them keeps nobody waiting for long. An entry changes
/// only under the lock of the shard of its key too, so whoever has that lock sees its keys stand still.
pub(super) struct Entries {
    chunks: Box<[RwLock<Box<[ObjectEntry]>>]>,
    slots: u64,
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
            let chunk = <[ObjectEntry]>::new_box_zeroed_with_elems(len).map_err(|_| no_memory())?;
            chunks.push(RwLock::new(chunk));
            left -= len;
        }
        Ok(Self { chunks: chunks.into(), slots })
    }

    pub(super) fn slots(&self) -> u64 {
        self.slots
    }

    pub(super) fn get(&self, slot: u32) -> ObjectEntry {
        self.read(slot as usize / CHUNK)[slot as usize % CHUNK]
    }

    pub(super) fn set(&self, slot: u32, entry: ObjectEntry) {
        self.write(slot as usize / CHUNK)[slot as usize % CHUNK] = entry;
    }

    /// Copies the entries of the slots from `first` on.
    pub(super) fn copy(&self, first: u64, mut into: &mut [ObjectEntry]) {
        let mut at = usize::try_from(first).unwrap_or(usize::MAX);
        while !into.is_empty() {
            let len = into.len().min(CHUNK - at % CHUNK);
            let (now, later) = into.split_at_mut(len);
            now.copy_from_slice(&self.read(at / CHUNK)[at % CHUNK..][..len]);
            at += len;
            into = later;
        }
    }

    fn read(&self, chunk: usize) -> RwLockReadGuard<'_, Box<[ObjectEntry]>> {
        self.chunks[chunk].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, chunk: usize) -> RwLockWriteGuard<'_, Box<[ObjectEntry]>> {
        self.chunks[chunk].write().unwrap_or_else(PoisonError::into_inner)
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

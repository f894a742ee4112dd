//! The memory of entries: chunks of 64, allocated in blocks.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromZeros, transmute};

use super::located::{KeyHash, Place};
use super::stamp::{DAMAGED, Stamp};
use crate::format::Entry;

/// Entries of a chunk: as many as a word has bits.
pub(super) const CHUNK: u32 = u64::BITS;
/// Chunks of a block.
pub(super) const BLOCK: usize = 64;
/// Words of an entry.
const WORDS: usize = size_of::<Entry>() / size_of::<u64>();
/// The word of an entry that holds the block of its payload in bits 0 to 31, the blocks back to the
/// slot header in bits 32 to 47, and in the others what is known of the object only in memory: the
/// policy's stamp and whether it is damaged.
const LAST: usize = WORDS - 1;
/// The bits of [`LAST`] from which on the stamp lies.
const STAMP: u32 = 48;
/// The bits of [`LAST`] that are part of the entry.
const OF_ENTRY: u64 = (1 << STAMP) - 1;

/// Several chunks that are allocated at once. A look-up also needs the owner of a chunk; it is
/// stored apart from the entries, so that it stays in the cache.
#[derive(FromZeros)]
#[repr(C, align(64))]
pub(super) struct Block {
    entries: [[Words; CHUNK as usize]; BLOCK],
    owners: [AtomicU64; BLOCK],
    bits: [[AtomicU64; 2]; BLOCK],
}

/// An entry in a form that may be read while it changes.
pub(super) type Words = [AtomicU64; WORDS];

/// One chunk of a block.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    block: &'a Block,
    at: usize,
}

impl Block {
    /// A block of empty entries, if there is memory for it.
    pub(super) fn new() -> Option<Box<Self>> {
        Self::new_box_zeroed().ok()
    }

    pub(super) fn chunk(&self, at: usize) -> Chunk<'_> {
        Chunk { block: self, at: at % BLOCK }
    }
}

impl<'a> Chunk<'a> {
    pub(super) fn entry(self, number: u32) -> EntryCell<'a> {
        EntryCell { words: &self.block.entries[self.at][(number % CHUNK) as usize] }
    }

    /// A word for the owner of the chunk: the first entry as a place, or the next free chunk.
    pub(super) fn owner(self) -> &'a AtomicU64 {
        &self.block.owners[self.at]
    }

    /// One bit for each entry: whether the index shows it.
    pub(super) fn live(self) -> &'a AtomicU64 {
        &self.block.bits[self.at][0]
    }

    /// One bit for each entry: whether its first get has to verify it.
    pub(super) fn unverified(self) -> &'a AtomicU64 {
        &self.block.bits[self.at][1]
    }

    /// Gives the chunk to a segment: 64 empty entries from `first` on.
    pub(super) fn assign(self, first: Place) {
        for number in 0..CHUNK {
            self.entry(number).clear();
        }
        self.live().store(0, Ordering::Relaxed);
        self.unverified().store(0, Ordering::Relaxed);
        let owner = u64::from(first.segment) << 32 | u64::from(first.number);
        self.owner().store(owner, Ordering::Relaxed);
    }

    /// The place of an entry.
    pub(super) fn place(self, number: u32) -> Place {
        let [a, b, c, d, e, f, g, h] = self.owner().load(Ordering::Relaxed).to_le_bytes();
        let segment = u32::from_le_bytes([e, f, g, h]);
        Place { segment, number: u32::from_le_bytes([a, b, c, d]) + number % CHUNK }
    }
}

/// The bit of an entry in the words of its chunk.
pub(super) fn bit(number: u32) -> u64 {
    1 << (number % CHUNK)
}

/// The memory of one entry.
#[derive(Clone, Copy)]
pub(super) struct EntryCell<'a> {
    words: &'a Words,
}

impl EntryCell<'_> {
    /// The entry as it was filled. Nothing else may fill it at the same time.
    pub(super) fn load(self) -> Entry {
        // One by one: the compiler makes a call of a map over the array.
        let [a, b, c, d, e, last] = self.words;
        let word = |word: &AtomicU64| word.load(Ordering::Relaxed).to_le_bytes();
        let last = (last.load(Ordering::Relaxed) & OF_ENTRY).to_le_bytes();
        transmute!([word(a), word(b), word(c), word(d), word(e), last])
    }

    pub(super) fn key_hash(self) -> KeyHash {
        let [a, b, ..] = self.words;
        let word = |word: &AtomicU64| word.load(Ordering::Relaxed).to_le_bytes();
        transmute!([word(a), word(b)])
    }

    /// Fills an empty entry, which no other thread sees yet.
    pub(super) fn fill(self, entry: &Entry, stamp: Stamp) {
        let words: [[u8; 8]; WORDS] = transmute!(*entry);
        let mut words = words.map(u64::from_le_bytes);
        debug_assert_eq!(
            words[LAST] & !OF_ENTRY,
            0,
            "a slot with several objects is at most 4 MiB"
        );
        words[LAST] = words[LAST] & OF_ENTRY | u64::from(stamp.to_bits()) << STAMP;
        for (to, word) in self.words.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
    }

    fn clear(self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(super) fn stamp(self) -> Stamp {
        Stamp::from_bits(self.marks())
    }

    /// Replaces the stamp by what `change` makes of it.
    pub(super) fn change_stamp(self, change: impl Fn(Stamp) -> Stamp) {
        // The rest of the word is compared too: a stamp that comes late never changes another
        // object's entry.
        let _ = self.words[LAST].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let marks = marks(word);
            let changed = change(Stamp::from_bits(marks)).to_bits() | marks & DAMAGED;
            // Avoids a write to a cache line that many threads read.
            (changed != marks).then_some(word & OF_ENTRY | u64::from(changed) << STAMP)
        });
    }

    pub(super) fn is_damaged(self) -> bool {
        self.marks() & DAMAGED != 0
    }

    /// Marks the object as damaged. Returns whether it was not.
    pub(super) fn mark_damaged(self) -> bool {
        let mark = u64::from(DAMAGED) << STAMP;
        self.words[LAST].fetch_or(mark, Ordering::Relaxed) & mark == 0
    }

    fn marks(self) -> u16 {
        marks(self.words[LAST].load(Ordering::Relaxed))
    }
}

/// What the last word of an entry holds besides the entry.
fn marks(word: u64) -> u16 {
    let [.., low, high] = word.to_le_bytes();
    u16::from_le_bytes([low, high])
}

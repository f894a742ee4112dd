//! The calls of the index by place.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::chunk::{CHUNK, bit};
use super::{Index, Place, Stamp};
use crate::Error;
use crate::format::Entry;

/// By place. A caller that reads entries of a segment is counted as a reader of it, or keeps the
/// segment from being [released](Self::release) otherwise.
impl Index {
    /// Makes the entries of a segment below `count` exist. New ones are [empty](Entry::EMPTY).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn extend(&self, segment: u32, count: u32) -> Result<(), Error> {
        self.entries.extend(segment, count)
    }

    /// Frees all entries of a segment. The caller guarantees that the index shows none of them,
    /// that no thread reads them, and that no change in flight will fill one.
    pub(crate) fn release(&self, segment: u32) {
        self.entries.release(segment);
    }

    /// The entry at a place, if it is live: shown by the index, or a tombstone's.
    pub(crate) fn live(&self, place: Place) -> Option<Entry> {
        self.entries.live(place)
    }

    /// Calls `each` with the number and the entry of each live one of a segment, in order of
    /// number.
    pub(crate) fn for_each_live(&self, segment: u32, mut each: impl FnMut(u32, Entry)) {
        for (first, chunk) in (0..).step_by(CHUNK as usize).zip(self.entries.chunks(segment)) {
            let mut live = chunk.live().load(Ordering::Acquire);
            while live != 0 {
                let number = live.trailing_zeros();
                live &= live - 1;
                each(first + number, chunk.entry(number).load());
            }
        }
    }

    /// As [`for_each_live`](Self::for_each_live) for the next live entries of a segment from the
    /// number `first` on: `count` of them, and up to 63 more. Returns the number to go on
    /// with; `None` if there is none.
    pub(crate) fn for_live_from(
        &self,
        segment: u32,
        first: u32,
        count: usize,
        mut each: impl FnMut(u32, Entry),
    ) -> Option<u32> {
        let (skipped, mut found) = (first / CHUNK, 0);
        let chunks = self.entries.chunks(segment).skip(skipped as usize);
        for (chunk, start) in chunks.zip((skipped * CHUNK..).step_by(CHUNK as usize)) {
            let mut live = chunk.live().load(Ordering::Acquire);
            while live != 0 {
                let number = live.trailing_zeros();
                live &= live - 1;
                each(start + number, chunk.entry(number).load());
                found += 1;
            }
            if found >= count {
                return Some(start + CHUNK);
            }
        }
        (found > 0).then_some(u32::MAX)
    }

    /// Appends the live bits of a segment: bit *i* of word *w* is that of entry 64 *w* + *i*.
    pub(crate) fn live_words(&self, segment: u32, words: &mut Vec<u64>) {
        words
            .extend(self.entries.chunks(segment).map(|chunk| chunk.live().load(Ordering::Acquire)));
    }

    /// How many entries of a segment are live.
    #[cfg(test)]
    pub(crate) fn live_count(&self, segment: u32) -> u32 {
        let words = self.entries.chunks(segment).map(|chunk| chunk.live().load(Ordering::Relaxed));
        words.map(u64::count_ones).sum()
    }

    /// Copies the entries with these numbers as they were filled, live or not; those that were not
    /// are [empty](Entry::EMPTY). The caller knows that no change in flight fills one of them.
    pub(crate) fn entries(&self, segment: u32, numbers: Range<u32>, into: &mut [Entry]) {
        self.entries.copy(segment, numbers, into);
    }

    /// Fills the empty entry of a tombstone slot, and makes it live.
    pub(crate) fn set_tombstone(&self, place: Place, entry: &Entry) {
        if let Some(at) = self.entries.location(place) {
            self.entries.fill(at, entry, Stamp::default(), false);
        }
    }

    /// Makes the entry of a tombstone slot dead.
    pub(crate) fn clear_tombstone(&self, place: Place) {
        if let Some(at) = self.entries.location(place) {
            self.entries.kill(at);
        }
    }

    /// Whether the first get of the object has to verify it.
    pub(crate) fn is_unverified(&self, place: Place) -> bool {
        let found = self.entries.find(place);
        found.is_some_and(|(chunk, _)| {
            chunk.unverified().load(Ordering::Relaxed) & bit(place.number) != 0
        })
    }

    /// Records that the object was verified.
    pub(crate) fn set_verified(&self, place: Place) {
        if let Some((chunk, _)) = self.entries.find(place) {
            chunk.unverified().fetch_and(!bit(place.number), Ordering::Relaxed);
        }
    }

    /// Whether a segment has live entries whose first get after the next opening has to verify
    /// them: those whose first get has to verify them now, and damaged ones.
    pub(crate) fn any_unverified(&self, segment: u32) -> bool {
        let any_damaged = self.any_damaged.load(Ordering::Relaxed);
        self.entries.chunks(segment).any(|chunk| {
            let live = chunk.live().load(Ordering::Acquire);
            let is_damaged = |number| live & bit(number) != 0 && chunk.entry(number).is_damaged();
            live & chunk.unverified().load(Ordering::Relaxed) != 0
                || any_damaged && (0..u64::BITS).any(is_damaged)
        })
    }

    /// Whether the object was [marked](Self::mark_damaged) as damaged.
    pub(crate) fn is_damaged(&self, place: Place) -> bool {
        self.entries.find(place).is_some_and(|(_, cell)| cell.is_damaged())
    }

    /// Records a use of the object at this time.
    pub(crate) fn note_use(&self, place: Place, now: u16) {
        self.change_stamp(place, |stamp| stamp.after_use(now));
    }

    /// What the policy knows of the object.
    pub(crate) fn stamp(&self, place: Place) -> Stamp {
        self.entries.find(place).map_or(Stamp::default(), |(_, cell)| cell.stamp())
    }

    /// Replaces the stamp of the object by what `change` makes of it, which may be called several
    /// times.
    pub(crate) fn change_stamp(&self, place: Place, change: impl Fn(Stamp) -> Stamp) {
        if let Some((_, cell)) = self.entries.find(place) {
            cell.change_stamp(change);
        }
    }
}

//! Which slots and delete log blocks can be written, and the sequences that go with them.
//!
//! A slot that held an object, or may hold one that failed to be written, does not become free at once.
//! [`Space`] keeps it until
//!
//! 1. the committed checkpoint speaks for the highest sequence that was ever written to it: until then its
//!    header could bring an old state back;
//! 2. a flush is over that was submitted after its object was replaced or deleted: until then the
//!    replacement may be lost, and this object is what is left (an evicted object needs none);
//! 3. every get is over that began before, and every pin is gone.
//!
//! A slot with a write whose outcome is unknown is quarantined: it never becomes free.

mod free;
mod log_ring;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::ops::Range;

use free::FreeSlots;
pub(crate) use log_ring::LogInUse;
use log_ring::LogRing;

use crate::fault::Fault;

/// A slot to write an object to, and the sequence of that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u64,
    pub(crate) sequence: u64,
}

/// Where to write delete records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPlace {
    pub(crate) first_sequence: u64,
    pub(crate) blocks: Range<u64>,
    /// The lowest sequence of the other changes under way, or that of the next change.
    pub(crate) oldest: u64,
}

/// Why a slot is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Because {
    /// Its object was replaced or deleted, or failed to be written.
    Replaced,
    /// Its object was evicted.
    Evicted,
}

/// A slot that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Retired {
    /// The highest sequence that was ever written to it.
    sequence: u64,
    slot: u64,
    /// When it was given up.
    at: u64,
    because: Because,
}

/// What can be done to get a slot, or a block of the delete log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing: there is one.
    None,
    /// A flush frees some.
    Flush,
    /// A checkpoint taken now frees some.
    Checkpoint,
    /// Some may become free when one of the changes or gets under way is over.
    Wait,
    /// There are none to be had.
    Hopeless,
}

/// The free slots and log blocks of a store, and what keeps others from being free.
#[derive(Debug)]
pub(crate) struct Space {
    free: FreeSlots,
    log: LogRing,
    next_sequence: u64,
    /// The first sequences of the changes that the index does not show yet.
    under_way: BTreeSet<u64>,
    /// The number of the committed checkpoint.
    checkpoint: u64,
    /// It speaks for every sequence up to this one.
    covered: u64,
    /// Counts up when slots are given up.
    clock: u64,
    /// What was given up until then is behind a flush.
    flushed: u64,
    /// When the gets under way began, and how many then.
    gets: BTreeMap<u64, usize>,
    /// Given up, with a sequence that no checkpoint speaks for; the lowest first.
    uncovered: BinaryHeap<Reverse<Retired>>,
    /// How many of those were evicted.
    evicted: u64,
    /// Given up and covered, but not behind a flush.
    unflushed: VecDeque<Retired>,
    /// Given up, covered and flushed; gets that began before are under way.
    unread: VecDeque<Retired>,
    pins: HashMap<u64, Pinned>,
    /// How many slots are quarantined.
    quarantined: u64,
}

#[derive(Debug, Default)]
struct Pinned {
    pins: usize,
    /// Whether it is free but for the pins.
    freed: bool,
}

impl Space {
    /// The space of a store that has objects in the slots of `live`, which come in order, and whose
    /// checkpoint number `checkpoint` speaks for every sequence below `next_sequence`.
    pub(crate) fn new(
        slots: u64,
        live: impl IntoIterator<Item = u64>,
        log_blocks: u64,
        checkpoint: u64,
        next_sequence: u64,
    ) -> Self {
        Self {
            free: FreeSlots::all_but(live, slots),
            log: LogRing::new(log_blocks),
            next_sequence,
            under_way: BTreeSet::new(),
            checkpoint,
            covered: next_sequence - 1,
            clock: 0,
            flushed: 0,
            gets: BTreeMap::new(),
            uncovered: BinaryHeap::new(),
            evicted: 0,
            unflushed: VecDeque::new(),
            unread: VecDeque::new(),
            pins: HashMap::new(),
            quarantined: 0,
        }
    }

    /// The sequence that the next change gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number of the committed checkpoint.
    pub(crate) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// How many slots can be taken now.
    pub(crate) fn free_slots(&self) -> u64 {
        self.free.len()
    }

    /// How many slots are given up and not yet free.
    pub(crate) fn waiting_slots(&self) -> u64 {
        let waiting = self.uncovered.len() + self.unflushed.len() + self.unread.len();
        waiting as u64 + self.pins.values().filter(|pinned| pinned.freed).count() as u64
    }

    /// How many slots were evicted and wait for a checkpoint.
    pub(crate) fn evicted_slots(&self) -> u64 {
        self.evicted
    }

    /// How many slots are quarantined.
    pub(crate) fn quarantined_slots(&self) -> u64 {
        self.quarantined
    }

    /// How many slots are pinned.
    pub(crate) fn pinned_slots(&self) -> u64 {
        self.pins.len() as u64
    }

    /// How many sequences the committed checkpoint does not speak for.
    pub(crate) fn uncovered_sequences(&self) -> u64 {
        self.next_sequence - 1 - self.covered
    }

    pub(crate) fn free_log_blocks(&self) -> u64 {
        self.log.free_blocks()
    }

    /// The blocks of the delete log that no checkpoint speaks for.
    pub(crate) fn log_in_use(&self) -> LogInUse {
        self.log.in_use()
    }

    /// Whether no change and no get is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.gets.is_empty()
    }

    /// The highest sequence for which a checkpoint can speak whose copy of the index begins now: every
    /// change up to it shows in the index.
    pub(crate) fn coverable(&self) -> u64 {
        self.oldest_under_way() - 1
    }

    /// The lowest sequence of the changes under way, or that of the next change.
    pub(crate) fn oldest_under_way(&self) -> u64 {
        self.under_way.first().copied().unwrap_or(self.next_sequence)
    }

    /// Takes up to `count` slots, neighbours as far as there are any, each with a sequence; appends them
    /// to `places`. The first of the sequences is under way until [`end_change`](Self::end_change).
    pub(crate) fn begin_put(&mut self, count: usize, places: &mut Vec<Place>) {
        let first = self.next_sequence;
        self.free.take(count as u64, |slot| {
            places.push(Place { slot, sequence: self.next_sequence });
            self.next_sequence += 1;
        });
        if self.next_sequence > first {
            self.under_way.insert(first);
        }
    }

    /// Takes sequences and blocks of the delete log, which follow each other, for up to `records` records
    /// of which `per_block` fit into a block; `None` if there are none. The first sequence is under way
    /// until [`end_change`](Self::end_change).
    pub(crate) fn begin_delete(&mut self, records: u64, per_block: u64) -> Option<LogPlace> {
        let blocks = self.log.available(records.div_ceil(per_block));
        if blocks == 0 {
            return None;
        }
        let first_sequence = self.next_sequence;
        self.next_sequence += records.min(blocks * per_block);
        let oldest = self.oldest_under_way();
        self.under_way.insert(first_sequence);
        let blocks = self.log.take(blocks, first_sequence..=self.next_sequence - 1);
        if Fault::LogBlockFreeAtOnce.is_on() {
            self.log.release(u64::MAX);
        }
        Some(LogPlace { first_sequence, blocks, oldest })
    }

    /// Ends the change whose first sequence is `first`: the index shows it as far as it succeeded.
    pub(crate) fn end_change(&mut self, first: u64) {
        self.under_way.remove(&first);
    }

    /// Gives slots up; with each comes the highest sequence that was ever written to it.
    pub(crate) fn retire(&mut self, slots: impl IntoIterator<Item = Place>, because: Because) {
        self.clock += 1;
        let at = self.clock;
        for Place { slot, sequence } in slots {
            let retired = Retired { sequence, slot, at, because };
            if sequence > self.covered && !Fault::SlotFreeBeforeCheckpoint.is_on() {
                self.evicted += u64::from(because == Because::Evicted);
                self.uncovered.push(Reverse(retired));
            } else {
                self.covered_now(retired);
            }
        }
    }

    /// Quarantines a slot that was taken for a put.
    pub(crate) fn quarantine(&mut self) {
        self.quarantined += 1;
    }

    /// Call before a flush is submitted; what it returns goes to [`end_flush`](Self::end_flush).
    pub(crate) fn begin_flush(&self) -> u64 {
        self.clock
    }

    /// A flush succeeded.
    pub(crate) fn end_flush(&mut self, began: u64) {
        let began = if Fault::FlushUnderWayCounts.is_on() { self.clock } else { began };
        self.flushed = self.flushed.max(began);
        while let Some(&retired) = self.unflushed.front()
            && retired.at <= self.flushed
        {
            self.unflushed.pop_front();
            self.flushed_now(retired);
        }
    }

    /// Checkpoint `number`, which speaks for every sequence up to `covered`, is committed.
    pub(crate) fn commit(&mut self, number: u64, covered: u64) {
        self.checkpoint = number;
        self.covered = covered;
        self.log.release(covered);
        while let Some(&Reverse(retired)) = self.uncovered.peek()
            && retired.sequence <= covered
        {
            self.uncovered.pop();
            self.evicted -= u64::from(retired.because == Because::Evicted);
            self.covered_now(retired);
        }
    }

    /// Call before the index is asked where something is; what it returns goes to
    /// [`end_get`](Self::end_get) when it was read. No slot becomes free meanwhile that the index named.
    pub(crate) fn begin_get(&mut self) -> u64 {
        *self.gets.entry(self.clock).or_default() += 1;
        self.clock
    }

    /// A get is over. Returns whether slots became free.
    pub(crate) fn end_get(&mut self, began: u64) -> bool {
        if let Some(gets) = self.gets.get_mut(&began) {
            *gets -= 1;
            if *gets == 0 {
                self.gets.remove(&began);
            }
        }
        let before = self.free.len();
        while let Some(&retired) = self.unread.front()
            && !self.is_read(&retired)
        {
            self.unread.pop_front();
            self.read_now(retired);
        }
        self.free.len() > before
    }

    /// Pins a slot that a get under way found in the index.
    pub(crate) fn pin(&mut self, slot: u64) {
        self.pins.entry(slot).or_default().pins += 1;
    }

    /// Takes back a pin.
    pub(crate) fn unpin(&mut self, slot: u64) {
        let Some(pinned) = self.pins.get_mut(&slot) else { return };
        pinned.pins -= 1;
        if pinned.pins == 0 && self.pins.remove(&slot).is_some_and(|pinned| pinned.freed) {
            self.free.add(slot);
        }
    }

    pub(crate) fn is_pinned(&self, slot: u64) -> bool {
        self.pins.contains_key(&slot)
    }

    /// What can be done to get a free slot.
    pub(crate) fn remedy(&self) -> Remedy {
        if self.free.len() > 0 {
            Remedy::None
        } else if let Some(Reverse(retired)) = self.uncovered.peek()
            && retired.sequence <= self.coverable()
        {
            Remedy::Checkpoint
        } else if !self.unflushed.is_empty() {
            Remedy::Flush
        } else if !self.under_way.is_empty() || !self.unread.is_empty() {
            Remedy::Wait
        } else {
            Remedy::Hopeless
        }
    }

    /// What can be done to get a free block of the delete log.
    pub(crate) fn log_remedy(&self) -> Remedy {
        match self.log.oldest() {
            _ if self.log.free_blocks() > 0 => Remedy::None,
            Some(last) if last <= self.coverable() => Remedy::Checkpoint,
            _ => Remedy::Wait,
        }
    }

    fn covered_now(&mut self, retired: Retired) {
        let flushed = retired.at <= self.flushed || Fault::SlotFreeBeforeFlush.is_on();
        if retired.because == Because::Replaced && !flushed {
            self.unflushed.push_back(retired);
        } else {
            self.flushed_now(retired);
        }
    }

    fn flushed_now(&mut self, retired: Retired) {
        if self.is_read(&retired) {
            self.unread.push_back(retired);
        } else {
            self.read_now(retired);
        }
    }

    fn read_now(&mut self, Retired { slot, .. }: Retired) {
        match self.pins.get_mut(&slot) {
            Some(pinned) if !Fault::PinnedSlotFree.is_on() => pinned.freed = true,
            _ => self.free.add(slot),
        }
    }

    /// Whether a get is under way that may have been told of this slot.
    fn is_read(&self, retired: &Retired) -> bool {
        self.gets.first_key_value().is_some_and(|(&began, _)| began < retired.at)
            && !Fault::ReadSlotFree.is_on()
    }
}

#[cfg(test)]
mod tests;

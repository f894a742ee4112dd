//! What is in flight: changes of the store by sequence, slots of a segment by block.

use std::collections::VecDeque;

/// The name of a change in flight: the objects of a slot, also while some of them are written again
/// elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change(u64);

/// The changes in flight. Their sequences are allocated in order, so the oldest change is the
/// first.
#[derive(Debug, Default)]
pub(super) struct Changes {
    queue: VecDeque<Pending>,
    /// The name of the first change.
    front: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first_sequence: u64,
    /// Objects that have not ended.
    objects: u32,
}

impl Changes {
    /// Begins a change with this number of objects, whose sequences are above all allocated ones.
    pub(super) fn begin(&mut self, first_sequence: u64, objects: u32) -> Change {
        self.queue.push_back(Pending { first_sequence, objects });
        Change(self.front + self.queue.len() as u64 - 1)
    }

    /// This number of objects of a change have ended.
    pub(super) fn end(&mut self, change: Change, objects: u32) {
        let at = change.0.checked_sub(self.front).and_then(|at| usize::try_from(at).ok());
        if let Some(pending) = at.and_then(|at| self.queue.get_mut(at)) {
            debug_assert!(pending.objects >= objects, "an object of a change ended twice");
            pending.objects = pending.objects.saturating_sub(objects);
        }
        while self.queue.front().is_some_and(|pending| pending.objects == 0) {
            self.queue.pop_front();
            self.front += 1;
        }
    }

    /// The lowest sequence in flight.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.queue.front().map(|pending| pending.first_sequence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// The slots of a segment that are in flight, in the order of their blocks.
#[derive(Debug, Default)]
pub(super) struct Slots {
    queue: VecDeque<InFlight>,
    /// The position of the first slot.
    front: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    block: u32,
    first_number: u32,
    /// Its objects are published, or dead.
    settled: bool,
}

impl Slots {
    /// Appends a slot, and returns its position.
    pub(super) fn add(&mut self, block: u32, first_number: u32) -> u64 {
        self.queue.push_back(InFlight { block, first_number, settled: false });
        self.front + self.queue.len() as u64 - 1
    }

    /// The objects of a slot are published, or dead.
    pub(super) fn settle(&mut self, position: u64) {
        let at = position.checked_sub(self.front).and_then(|at| usize::try_from(at).ok());
        if let Some(slot) = at.and_then(|at| self.queue.get_mut(at)) {
            slot.settled = true;
        }
        while self.queue.front().is_some_and(|slot| slot.settled) {
            self.queue.pop_front();
            self.front += 1;
        }
    }

    /// Removes the slots that were added last, down to this number.
    pub(super) fn truncate(&mut self, len: usize) {
        self.queue.truncate(len);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The block of the first slot in flight.
    pub(super) fn lowest_block(&self) -> Option<u32> {
        self.queue.front().map(|slot| slot.block)
    }

    /// The first entry number in flight.
    pub(super) fn lowest_number(&self) -> Option<u32> {
        self.queue.front().map(|slot| slot.first_number)
    }
}

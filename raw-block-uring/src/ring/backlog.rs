//! The entries of a ring that the kernel has not taken, and the counters of submissions.

use std::collections::VecDeque;

use raw_block_core::backend::Stats;

use crate::ring::regions::Lookup;

/// The entries that the kernel has not taken, oldest first: those in the submission queue, then
/// those that do not fit into it.
#[derive(Debug)]
pub(crate) struct Backlog<E> {
    /// The slots of all of them.
    slots: VecDeque<u32>,
    /// The entries that do not fit into the submission queue.
    pub(crate) waiting: VecDeque<E>,
    /// The number of entries that were pushed and not submitted; the statistics do not count them
    /// yet.
    not_submitted: usize,
    /// How many of those poll for wakes. The statistics do not count them.
    wakes: usize,
    /// How many of those use registered memory.
    registered: u64,
    /// How many of those use only registered memory, but cross a border of its regions.
    crossing: u64,
}

impl<E> Backlog<E> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: VecDeque::with_capacity(capacity),
            waiting: VecDeque::new(),
            not_submitted: 0,
            wakes: 0,
            registered: 0,
            crossing: 0,
        }
    }

    /// Records that the entry of a slot was pushed.
    pub(crate) fn push(&mut self, slot: u32, memory: Lookup) {
        self.slots.push_back(slot);
        self.not_submitted += 1;
        self.registered += u64::from(matches!(memory, Lookup::Region(_)));
        self.crossing += u64::from(matches!(memory, Lookup::Crossing));
    }

    /// Records that the last entry polls for wakes.
    pub(crate) fn note_wake(&mut self) {
        self.wakes += 1;
    }

    /// Removes the oldest entry of a broken ring, and returns its slot.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        self.slots.pop_front()
    }

    /// Whether the kernel has taken every entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether every entry was submitted.
    pub(crate) fn is_submitted(&self) -> bool {
        self.not_submitted == 0
    }

    /// Records that the kernel has taken all entries except the newest `left` in the submission
    /// queue and the waiting ones.
    pub(crate) fn note_taken(&mut self, left: usize) {
        let taken = self.slots.len().saturating_sub(left + self.waiting.len());
        self.slots.drain(..taken);
    }

    /// Adds the entries submitted since the last call to the statistics, for a ring with `in_use`
    /// slots in use. An entry that the polling thread can see counts as submitted, because the
    /// kernel takes it without another call.
    pub(crate) fn count_submitted(&mut self, polled: bool, in_use: usize, stats: &Stats) {
        let left = if polled { self.waiting.len() } else { self.slots.len() };
        let submitted = self.not_submitted.saturating_sub(left);
        if submitted == 0 {
            return;
        }
        self.not_submitted = left;
        let commands = submitted - std::mem::take(&mut self.wakes).min(submitted);
        if commands == 0 {
            return;
        }
        let registered = std::mem::take(&mut self.registered);
        let crossing = std::mem::take(&mut self.crossing);
        stats.update(|stats| {
            stats.submissions += 1;
            stats.commands += commands as u64;
            stats.in_flight_at_submissions += in_use.saturating_sub(left) as u64;
            stats.registered_ops += registered;
            stats.crossing_ops += crossing;
        });
    }
}

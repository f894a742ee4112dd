//! The entries of a ring that the kernel has not taken, and the counts of those that it was handed.

use std::collections::VecDeque;

use raw_block_core::backend::Stats;

use crate::regions::Lookup;

/// The entries that the kernel has not taken, oldest first: those in the submission queue, then those that
/// it has no space for.
#[derive(Debug)]
pub(crate) struct Unsubmitted<E> {
    /// The slots of all of them.
    slots: VecDeque<u32>,
    /// Those that the submission queue has no space for.
    pub(crate) waiting: VecDeque<E>,
    /// How many were pushed and not yet handed over; the counters of the device do not show them.
    not_handed_over: usize,
    /// How many of those use registered memory, and how many would but for crossing a border.
    registered: u64,
    crossing: u64,
}

impl<E> Unsubmitted<E> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            slots: VecDeque::with_capacity(capacity),
            waiting: VecDeque::new(),
            not_handed_over: 0,
            registered: 0,
            crossing: 0,
        }
    }

    /// Notes that the entry of a slot was pushed.
    pub(crate) fn push(&mut self, slot: u32, memory: Lookup) {
        self.slots.push_back(slot);
        self.not_handed_over += 1;
        self.registered += u64::from(matches!(memory, Lookup::Region(_)));
        self.crossing += u64::from(matches!(memory, Lookup::Crossing));
    }

    /// The slot of the oldest entry, which the kernel will never take.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        self.slots.pop_front()
    }

    /// Whether the kernel has taken every entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether every entry was handed over.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.not_handed_over == 0
    }

    /// Notes that the kernel has taken all entries but the newest `left` in the submission queue, and those
    /// that wait.
    pub(crate) fn note_taken(&mut self, left: usize) {
        let taken = self.slots.len().saturating_sub(left + self.waiting.len());
        self.slots.drain(..taken);
    }

    /// Counts what was handed over, of a ring with `in_use` slots. What its polling thread can see, the kernel
    /// takes without being asked again.
    pub(crate) fn count_handed_over(&mut self, polled: bool, in_use: usize, stats: &Stats) {
        let left = if polled { self.waiting.len() } else { self.slots.len() };
        let handed_over = self.not_handed_over.saturating_sub(left);
        if handed_over == 0 {
            return;
        }
        self.not_handed_over = left;
        let registered = std::mem::take(&mut self.registered);
        let crossing = std::mem::take(&mut self.crossing);
        stats.update(|stats| {
            stats.submissions += 1;
            stats.commands += handed_over as u64;
            stats.under_way_at_submissions += in_use.saturating_sub(left) as u64;
            stats.registered_ops += registered;
            stats.crossing_ops += crossing;
        });
    }
}

//! Allocated slots and objects, and their outcomes.

use std::ops::Range;

use super::in_flight::Change;
use super::segment::{HeaderState, Stream};
use super::shape::Demand;
use super::{RESERVE, Shape};
use crate::format::SlotPlace;

/// The place of a run of objects: one header block, then their payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) segment: u32,
    pub(crate) generation: u64,
    /// The block of the header within the segment.
    pub(crate) block: u32,
    /// Blocks of the slot, header included.
    pub(crate) blocks: u32,
    /// The number of its first entry within the segment.
    pub(crate) first_number: u32,
    /// Whether it holds a tombstone instead of objects.
    pub(crate) tombstone: bool,
    /// Which objects of the [`Allocation`] it has.
    pub(crate) objects: Range<usize>,
    /// Whether the segment's header is on the device; if not, publishing waits for it.
    pub(crate) header: HeaderState,
    /// What the header of the segment says, if the caller has to write it.
    pub(crate) opened: Option<OpenedSegment>,
    /// Its share of the sequences in flight; none if its objects are moved.
    pub(super) change: Option<Change>,
    /// Its position in the queue of its segment.
    pub(super) position: u64,
}

impl Slot {
    /// Its place, for its header.
    pub(crate) fn place(&self) -> SlotPlace {
        SlotPlace {
            segment: self.segment,
            generation: self.generation,
            block: self.block,
            blocks: self.blocks,
            first_entry: self.first_number,
        }
    }

    /// Number of its entries.
    pub(crate) fn entries(&self) -> u32 {
        u32::try_from(self.objects.len()).unwrap_or(u32::MAX)
    }
}

/// The header of a segment that was opened, which the caller writes before or while it writes
/// slots, and then reports with [`Space::header_written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenedSegment {
    pub(crate) segment: u32,
    pub(crate) generation: u64,
    pub(crate) stream: Stream,
    /// The number of the committed checkpoint.
    pub(crate) checkpoint: u64,
}

/// The place of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllocatedObject {
    pub(crate) demand: Demand,
    /// The index of the object in the batch.
    pub(crate) index: u32,
    /// The number of its entry within the segment.
    pub(crate) number: u32,
    pub(crate) sequence: u64,
    /// The block of its payload within the segment; that of the header if it takes no block.
    pub(crate) block: u32,
    /// Blocks from there back to the header.
    pub(crate) blocks_back: u32,
    /// Whether its payload lies in the header block.
    pub(crate) inline: bool,
}

/// What was allocated. It can be cleared and used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) slots: Vec<Slot>,
    pub(crate) objects: Vec<AllocatedObject>,
}

impl Allocation {
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.objects.clear();
    }

    /// The objects of a slot.
    pub(crate) fn objects_of(&self, slot: &Slot) -> &[AllocatedObject] {
        self.objects.get(slot.objects.clone()).unwrap_or(&[])
    }
}

/// The objects of a batch that are not yet allocated. All keys of a batch are different: objects
/// get their sequences in the order of allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// The objects that share slots, then the others. Each has its index in the batch, and its
    /// sequence once it has one.
    objects: Vec<(u32, Demand, u64)>,
    pub(super) next: usize,
}

impl Batch {
    /// Fills the batch with these objects. Call it without a lock.
    pub(crate) fn fill(&mut self, shape: &Shape, demands: impl IntoIterator<Item = Demand>) {
        self.objects.clear();
        self.next = 0;
        self.objects.extend((0..).zip(demands).map(|(index, demand)| (index, demand, 0)));
        if self.objects.iter().any(|&(_, demand, _)| !shape.is_shared(demand)) {
            self.objects.sort_by_key(|&(_, demand, _)| !shape.is_shared(demand));
        }
    }

    /// The objects that are not allocated.
    pub(crate) fn rest(&self) -> impl Iterator<Item = u32> {
        self.left().iter().map(|&(index, _, _)| index)
    }

    pub(super) fn left(&self) -> &[(u32, Demand, u64)] {
        self.objects.get(self.next..).unwrap_or(&[])
    }
}

/// An object whose write failed, to be written elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) index: u32,
    pub(crate) demand: Demand,
    pub(crate) sequence: u64,
}

/// Why nothing was allocated, and what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Run a reclaim, or wait for the one that runs. If it makes no progress, the store is full.
    Reclaim,
    /// Wait for changes in flight, or for a segment that drains.
    Wait,
    /// Nothing helps.
    Full,
}

/// The outcome of an object of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The index shows it.
    Shown,
    /// It is written, but a newer change of its key completed first.
    Superseded,
    /// Its write failed. It stays in flight, until it is [written elsewhere](Space::allocate_again)
    /// or [failed for good](Space::give_up).
    Failed,
}

/// The purpose of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new change.
    Put,
    /// A further attempt of this change.
    Again(Change),
    /// A move, which is not a change.
    Move,
}

/// How many objects share a slot, and its blocks.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) objects: u32,
    pub(super) blocks: u32,
}

/// From which streams a slot is taken, the last one of which may open a segment if more than
/// `spare` are free.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) streams: &'static [Stream],
    pub(super) spare: usize,
}

pub(super) const PUTS: Source = Source { streams: &[Stream::New], spare: RESERVE as usize };

//! The space of a store: its segments, what is in flight in them, and which are reclaimed next. No
//! I/O.

mod allocate;
mod allocation;
mod budget;
mod checkpoint;
mod crowding;
mod drain;
mod in_flight;
mod moves;
mod outcomes;
mod pinned;
mod readers;
mod restore;
mod segment;
mod shape;
mod streams;
mod tombstones;
mod usage;
mod victims;

use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use allocation::{
    AllocatedObject, Allocation, Batch, OpenedSegment, Outcome, Retry, Shortage, Slot,
};
use budget::MoveBudget;
#[cfg(test)]
pub(crate) use checkpoint::SETTLED_ALL;
pub(crate) use checkpoint::{CheckpointPlan, CheckpointPurpose, CommittedCheckpoint, SegmentPlan};
use in_flight::Changes;
pub(crate) use moves::{MoveDemand, MovePlan, NoPlan};
pub(crate) use readers::{LookupTime, Readers};
pub(crate) use restore::{SegmentImage, SpaceImage};
use segment::Segment;
pub(crate) use segment::{HeaderState, Stream};
pub(crate) use shape::{Demand, Shape};
pub(crate) use victims::{Victim, VictimKind};

use super::index::Place;
use super::pins::PinTable;
use crate::options::{EvictionPolicy, OpenOptions};

/// The reserve, free segments that puts do not use: one for moves, one for tombstones that fit
/// nowhere else.
const RESERVE: u32 = 2;

/// The segments of a store, and what is in flight. Protected by one mutex. A call reads every
/// segment at most once; the calls of puts read only the open ones.
pub(crate) struct Space {
    shape: Shape,
    eviction: EvictionPolicy,
    readers: Arc<Readers>,
    segments: Box<[Segment]>,
    /// The free segments, the next one to be opened first.
    free: VecDeque<u32>,
    /// The open segments of each stream.
    open: [Vec<u32>; Stream::ALL.len()],
    /// A segment for puts that was opened ahead of need.
    ahead: Option<u32>,
    next_sequence: u64,
    changes: Changes,
    /// Tombstones that no committed checkpoint covers, by sequence.
    tombstones: VecDeque<(u64, Place)>,
    /// Blocks that were allocated for puts.
    clock: u64,
    budget: MoveBudget,
    /// The most blocks that were live, less those that were deleted since; see
    /// [`is_crowded`](Self::is_crowded).
    wanted_live: u64,
    /// Whether that left too little space when the last victim was chosen.
    crowded: bool,
    /// Whether moves out of the last victim are charged to the budget.
    moves_are_paid: bool,
    /// The committed checkpoint.
    committed: CommittedCheckpoint,
    /// The number of times that the contents of a checkpoint were chosen.
    choices: u64,
    /// The number of the choice of the committed checkpoint.
    committed_choice: u64,
    /// Whether a checkpoint copies the index: no move begins.
    copying: bool,
    /// Moves in flight: no checkpoint is chosen.
    moves: u32,
    /// Segments that drain.
    draining: Vec<u32>,
    /// Segments that have drained, whose entries the index is releasing.
    releasing: usize,
    /// Deletes that wait for a reclaim, and the slots that they were granted.
    waiting_deletes: VecDeque<(u64, Option<Allocation>)>,
    next_delete: u64,
    /// Deletes without tombstones since the last checkpoint was chosen that was committed.
    deletes_without_tombstone: u32,
    /// Entries that were allocated since the contents of the last checkpoint were chosen.
    entries_since_choice: u64,
    /// Those that were allocated before, since the choice of the last checkpoint that was
    /// committed.
    entries_in_choice: u64,
    /// Segments that were opened since then, and how many that were at most during one of the last
    /// checkpoints.
    opened_since_choice: u32,
    opened_per_checkpoint: u32,
    /// A count of the changes that may end a wait for space.
    version: u64,
    /// Segments that were opened for puts and deletes.
    opened_for_puts: u64,
    /// The [supply](Self::supply) of segments when the running reclaim took its first victim.
    supply_before_reclaim: Option<u64>,
    /// Reclaims in a row that freed nothing.
    reclaims_without_gain: u32,
    /// Blocks of garbage in full segments when the last of several reclaims that freed nothing
    /// ended, or the least since; far below zero if there was none.
    garbage_without_gain: i64,
    /// The version at which a reclaim found nothing to do.
    futile_at: Option<u64>,
    pins: PinTable,
}

impl Space {
    /// Bytes of memory that a segment takes, its readers included.
    pub(crate) const MEMORY_PER_SEGMENT: usize =
        size_of::<Segment>() + Readers::MEMORY_PER_SEGMENT + size_of::<u32>();

    /// The space of an empty store.
    pub(crate) fn new(
        shape: Shape,
        eviction: EvictionPolicy,
        committed: CommittedCheckpoint,
        next_sequence: u64,
    ) -> Self {
        Self {
            shape,
            eviction,
            readers: Arc::new(Readers::new(shape.segments)),
            segments: (0..shape.segments).map(|_| Segment::free()).collect(),
            free: (0..shape.segments).collect(),
            open: [const { Vec::new() }; Stream::ALL.len()],
            ahead: None,
            next_sequence,
            changes: Changes::default(),
            tombstones: VecDeque::new(),
            clock: 0,
            budget: MoveBudget::new(&shape, OpenOptions::default().kept_percent),
            wanted_live: 0,
            crowded: false,
            moves_are_paid: false,
            committed,
            choices: 0,
            committed_choice: 0,
            copying: false,
            moves: 0,
            draining: Vec::new(),
            releasing: 0,
            waiting_deletes: VecDeque::new(),
            next_delete: 0,
            deletes_without_tombstone: 0,
            entries_since_choice: 0,
            entries_in_choice: 0,
            opened_since_choice: 0,
            opened_per_checkpoint: 0,
            version: 0,
            opened_for_puts: 0,
            supply_before_reclaim: None,
            reclaims_without_gain: 0,
            garbage_without_gain: i64::MIN / 2,
            futile_at: None,
            pins: PinTable::default(),
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The sequence that the next change gets.
    #[cfg(test)]
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The free segment that is opened next.
    #[cfg(test)]
    pub(crate) fn next_free(&self) -> Option<u32> {
        self.free.front().copied()
    }

    /// Sets how many entries were allocated since the last checkpoint.
    #[cfg(test)]
    pub(crate) fn set_entries_written(&mut self, entries: u64) {
        self.entries_since_choice = entries;
    }

    /// The lowest sequence in flight, or that of the next change.
    pub(crate) fn oldest_in_flight(&self) -> u64 {
        self.changes.oldest().unwrap_or(self.next_sequence)
    }

    /// Whether no change and no move is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.changes.is_empty() && self.moves == 0
    }

    /// The committed checkpoint.
    pub(crate) fn committed(&self) -> CommittedCheckpoint {
        self.committed
    }

    /// A number that grows with every change that may end a wait for space.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Blocks that were allocated for puts: the time of the policy.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Sets how many blocks may be moved for each hundred that are put.
    pub(crate) fn set_kept_percent(&mut self, percent: u8) {
        self.budget = MoveBudget::new(&self.shape, percent);
    }

    /// Free segments that puts can open.
    pub(crate) fn free_for_puts(&self) -> u64 {
        self.free.len().saturating_sub(RESERVE as usize) as u64
    }

    /// Which segments are read.
    pub(crate) fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Whether objects may be evicted.
    pub(crate) fn evicts(&self) -> bool {
        self.eviction != EvictionPolicy::None
    }

    fn segment(&self, segment: u32) -> Option<&Segment> {
        self.segments.get(segment as usize)
    }

    fn segment_mut(&mut self, segment: u32) -> Option<&mut Segment> {
        self.segments.get_mut(segment as usize)
    }

    /// All segments with their numbers.
    fn numbered(&self) -> impl Iterator<Item = (u32, &Segment)> {
        (0..).zip(&self.segments)
    }

    fn open_in(&self, stream: Stream) -> &[u32] {
        &self.open[stream as usize]
    }

    fn changed(&mut self) {
        self.version += 1;
    }
}

#[cfg(test)]
mod tests;

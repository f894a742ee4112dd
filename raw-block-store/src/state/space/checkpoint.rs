//! The contents of a checkpoint about the space, and the effect of its commit.

use super::Space;
use super::segment::{HeaderState, Segment, SegmentState, Stream};
pub(crate) use crate::format::SETTLED_ALL;
use crate::mutant::Mutant;
use crate::state::index::Place;

/// The committed checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommittedCheckpoint {
    pub(crate) number: u64,
    /// The highest sequence that it covers.
    pub(crate) covered: u64,
}

/// The purpose of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointPurpose {
    /// By a reclaim: it releases the victims, and seals segments that would keep others from being
    /// released.
    Space,
    /// Because much was written since the last one.
    Period,
    /// Before the store is closed, or after a recovery. Nothing live is released.
    Whole,
    /// To clear the store: it releases all segments that were opened before this sequence was
    /// allocated.
    Clear { before: u64 },
}

/// The contents of a checkpoint about the space, chosen in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointPlan {
    /// The highest sequence that it covers.
    pub(crate) covered: u64,
    pub(crate) next_sequence: u64,
    pub(crate) segments: Vec<SegmentPlan>,
    /// The segments that the commit releases. They are not used in the checkpoint.
    pub(crate) released: Vec<u32>,
    /// Whether it clears the store.
    pub(crate) clears: bool,
    /// Deletes without tombstones before the choice, since the last checkpoint was chosen that was
    /// committed.
    deletes_without_tombstone: u32,
    choice: u64,
}

/// The contents of a checkpoint about a segment, without its live bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentPlan {
    /// The generation, or the last one of a segment that is not used.
    pub(crate) generation: u64,
    /// Whether its entries count.
    pub(crate) used: bool,
    /// Whether it is still being filled.
    pub(crate) open: bool,
    pub(crate) stream: Stream,
    /// Entries below this number are published or dead; [`SETTLED_ALL`] if no others will be.
    pub(crate) settled: u32,
    /// Entries that were allocated.
    pub(crate) entries: u32,
    /// The block at which the next slot begins.
    pub(crate) next_block: u32,
    /// The number of the checkpoint that wrote its table; 0 if it has none.
    pub(crate) table: u64,
    /// Whether its table can be written: it is full, settled, and has none.
    pub(crate) wants_table: bool,
    /// In quarantine.
    pub(crate) bad: bool,
}

impl Space {
    /// Chooses the contents of the next checkpoint; `None` while moves are in flight. The index is
    /// copied next, and until [`end_copy`](Self::end_copy) no move begins.
    pub(crate) fn plan_checkpoint(&mut self, purpose: CheckpointPurpose) -> Option<CheckpointPlan> {
        if self.moves > 0 && !Mutant::MovedWhileCopying.is_on() {
            return None;
        }
        if purpose == CheckpointPurpose::Space {
            self.seal_for_space();
        }
        let covered = self.coverable();
        let released: Vec<u32> = self
            .numbered()
            .filter(|&(number, segment)| match purpose {
                CheckpointPurpose::Clear { before } if segment.generation < before => {
                    is_full_and_covered(segment, covered)
                }
                CheckpointPurpose::Space => self.may_release(number, covered),
                _ => segment.is_dead() && self.may_release(number, covered),
            })
            .map(|(number, _)| number)
            .collect();
        self.choices += 1;
        self.copying = true;
        self.entries_in_choice = std::mem::take(&mut self.entries_since_choice);
        self.opened_since_choice = 0;
        let mut segments: Vec<_> = self.segments.iter().map(choose_segment).collect();
        for &number in &released {
            let segment = &mut segments[number as usize];
            (segment.used, segment.wants_table) = (false, false);
        }
        let next_sequence = self.next_sequence;
        let clears = matches!(purpose, CheckpointPurpose::Clear { .. });
        Some(CheckpointPlan {
            covered,
            next_sequence,
            segments,
            released,
            clears,
            deletes_without_tombstone: self.deletes_without_tombstone,
            choice: self.choices,
        })
    }

    /// The settled prefix of a segment as it is now: for a mutation.
    pub(crate) fn settled(&self, number: u32) -> Option<u32> {
        self.segment(number).map(|segment| choose_segment(segment).settled)
    }

    /// The highest sequence that a checkpoint chosen now can cover: below the lowest one in flight.
    pub(crate) fn coverable(&self) -> u64 {
        if Mutant::CoveredIsCurrent.is_on() {
            return self.next_sequence - 1;
        }
        self.oldest_in_flight() - 1
    }

    /// Seals all open segments, and returns the next sequence: what is allocated from now on is in
    /// segments that are opened later. `None` while a delete was granted something: its thread may
    /// wait for a reclaim, and so for the caller.
    pub(crate) fn seal_all(&mut self) -> Option<u64> {
        if self.is_anything_granted() {
            return None;
        }
        let open: Vec<u32> = self.open.iter().flatten().copied().chain(self.ahead).collect();
        open.into_iter().for_each(|number| self.seal(number));
        self.changed();
        Some(self.next_sequence)
    }

    /// Whether no change is in flight that began before this sequence was allocated.
    pub(crate) fn is_settled_before(&self, sequence: u64) -> bool {
        let mut older = self.segments.iter().filter(|of| of.generation < sequence);
        self.oldest_in_flight() >= sequence && !older.any(Segment::is_in_flight)
    }

    /// Whether a checkpoint that covers this sequence may release a segment.
    pub(crate) fn may_release(&self, number: u32, covered: u64) -> bool {
        let Some(segment) = self.segment(number) else { return false };
        let evicts = self.evicts() || Mutant::ReleasedWithLiveObjects.is_on();
        let may_lose = segment.is_dead() || segment.victim && evicts;
        may_lose && is_full_and_covered(segment, covered)
    }

    /// The checkpoint has copied the index. Moves may begin again, but none out of a segment that
    /// it releases.
    pub(crate) fn end_copy(&mut self) {
        self.copying = false;
        self.changed();
    }

    /// A checkpoint wrote the table of a segment.
    pub(crate) fn table_written(&mut self, number: u32, generation: u64, checkpoint: u64) {
        if let Some(segment) = self.segment_mut(number)
            && segment.generation == generation
            && segment.state != SegmentState::Free
        {
            segment.table = checkpoint;
        }
    }

    /// A checkpoint is durable. The segments that it releases drain from now on. The caller removes
    /// their objects from the index, but those that are pinned, and [reports](Self::drop_objects)
    /// them; it moves the pinned ones, and reports what is left with [`emptied`](Self::emptied) or
    /// [`left_pinned`](Self::left_pinned). Returns the tombstones that are covered now, whose
    /// entries the caller clears.
    pub(crate) fn commit_checkpoint(&mut self, plan: &CheckpointPlan, number: u64) -> Vec<Place> {
        self.committed = CommittedCheckpoint { number, covered: plan.covered };
        self.committed_choice = plan.choice;
        self.deletes_without_tombstone -= plan.deletes_without_tombstone;
        self.copying = false;
        let falling = self.opened_per_checkpoint - self.opened_per_checkpoint / 4;
        self.opened_per_checkpoint = self.opened_since_choice.max(falling);
        let covered =
            if Mutant::TombstonesForgottenByAnyCommit.is_on() { u64::MAX } else { plan.covered };
        let count = self.tombstones.partition_point(|&(sequence, _)| sequence <= covered);
        let cleared: Vec<Place> = self.tombstones.drain(..count).map(|(_, place)| place).collect();
        for place in &cleared {
            self.count_tombstones(place.segment, -1);
        }
        for &released in &plan.released {
            let segment = &mut self.segments[released as usize];
            segment.state = SegmentState::Draining;
            segment.released_by = number;
            segment.victim = false;
            segment.emptied_at = segment.is_dead().then_some(0);
            segment.emptying = !segment.is_dead();
            self.draining.push(released);
        }
        self.changed();
        cleared
    }

    /// A checkpoint failed: nothing changes. The victims stay victims, and the checkpoint is still
    /// due.
    pub(crate) fn abandon_checkpoint(&mut self, plan: &CheckpointPlan) {
        debug_assert_eq!(plan.choice, self.choices);
        self.entries_since_choice += std::mem::take(&mut self.entries_in_choice);
        self.copying = false;
        self.changed();
    }

    /// Seals what a checkpoint that is taken for space can release if it is sealed: the tombstone
    /// segment, and targets of moves with nothing live in them.
    fn seal_for_space(&mut self) {
        if !Mutant::TombstoneSegmentStaysOpen.is_on() {
            for number in std::mem::take(&mut self.open[Stream::Tombstones as usize]) {
                self.seal(number);
            }
        }
        if !Mutant::EmptyTargetStaysOpen.is_on() {
            let empty = |&&number: &&u32| self.segments[number as usize].is_dead();
            let empty: Vec<u32> =
                self.open_in(Stream::Kept).iter().filter(empty).copied().collect();
            empty.into_iter().for_each(|number| self.seal(number));
        }
    }
}

/// Whether a segment is full, and a checkpoint that covers this sequence covers everything in it.
fn is_full_and_covered(segment: &Segment, covered: u64) -> bool {
    let is_covered = segment.highest <= covered || Mutant::ReleasedAboveCovered.is_on();
    segment.state == SegmentState::Full && !segment.is_in_flight() && is_covered
}

fn choose_segment(segment: &Segment) -> SegmentPlan {
    let (is_open, is_full) =
        (segment.state == SegmentState::Open, segment.state == SegmentState::Full);
    let settled = match segment.slots.lowest_number() {
        Some(_) if Mutant::SettledUpToCursor.is_on() => segment.fill.entries,
        Some(lowest) => lowest,
        None if is_full => SETTLED_ALL,
        None => segment.fill.entries,
    };
    let used = is_open || is_full;
    SegmentPlan {
        generation: segment.generation,
        used,
        open: is_open,
        stream: segment.stream,
        settled,
        entries: segment.fill.entries,
        next_block: segment.fill.next_block,
        table: segment.table,
        wants_table: is_full
            && settled == SETTLED_ALL
            && segment.table == 0
            && segment.fill.entries > 0
            && segment.header == HeaderState::Written,
        bad: segment.bad,
    }
}

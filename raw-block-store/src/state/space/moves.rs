//! Moves: space for copies of the live objects of a victim, all or none.

use super::allocation::{Allocation, Outcome, Purpose, Source};
use super::segment::{Fill, Live, Segment, SegmentState, Stream};
use super::shape::Demand;
use super::{Space, victims};
use crate::mutant::Mutant;
use crate::state::index::Located;

/// An object to be moved, which keeps its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoveDemand {
    pub(crate) demand: Demand,
    pub(crate) sequence: u64,
}

/// The places of copies of objects. In flight until [`Space::end_moves`].
#[derive(Debug)]
#[must_use = "it is in flight"]
pub(crate) struct MovePlan {
    /// The slots of the copies. The index of an object is its position in the demands.
    pub(crate) allocation: Allocation,
}

/// The reason why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlan {
    /// A checkpoint copies the index: wait until it has.
    Copying,
    /// There is no space for all.
    NoSpace,
    /// Moving would free too little. The segment is not a victim again before something in it
    /// changes.
    TooLittle,
}

/// The changes of a plan, to undo it.
struct PlanUndo {
    next_sequence: u64,
    entries_since_choice: u64,
    opened_since_choice: u32,
    open: Vec<u32>,
    segments: Vec<(u32, SegmentUndo)>,
    free: usize,
}

struct SegmentUndo {
    fill: Fill,
    live: Live,
    highest: u64,
    table: u64,
    slots: usize,
}

impl Space {
    /// Plans to move these objects of a segment: sets space aside for all of them, or for none. The
    /// copies are published together when all are written.
    ///
    /// # Errors
    /// [`NoPlan`].
    pub(crate) fn plan_moves(
        &mut self,
        victim: u32,
        demands: &[MoveDemand],
    ) -> Result<MovePlan, NoPlan> {
        if self.copying && !Mutant::MovedWhileCopying.is_on() {
            return Err(NoPlan::Copying);
        }
        let mut objects: Vec<(u32, Demand, u64)> =
            (0..).zip(demands).map(|(index, of)| (index, of.demand, of.sequence)).collect();
        objects.sort_by_key(|&(_, demand, _)| !self.shape.is_shared(demand));
        // The last free segment may be used if there is no other. A store that evicts has one.
        let spares: &[usize] =
            if self.evicts() || Mutant::LastSegmentNotForMoves.is_on() { &[1] } else { &[1, 0] };
        let planned = spares.iter().find_map(|&spare| self.try_plan(&objects, spare));
        let (allocation, before) = planned.ok_or(NoPlan::NoSpace)?;
        let is_full = |of: &&Segment| of.state == SegmentState::Full && !of.bad;
        if self.segment(victim).filter(is_full).is_some()
            && self.yields_too_little(demands.len(), &allocation)
        {
            self.undo(before);
            if let Some(segment) = self.segment_mut(victim) {
                segment.futile = true;
            }
            return Err(NoPlan::TooLittle);
        }
        if self.moves_are_paid {
            self.budget.spend(allocation.slots.iter().map(|slot| u64::from(slot.blocks)).sum());
        }
        self.moves += 1;
        Ok(MovePlan { allocation })
    }

    /// Ends moves. `outcomes` says of each object of the plan, in the order of its allocation,
    /// whether its copy took its place; `moved` are those that did: what was read, and where it is
    /// now.
    pub(crate) fn end_moves(
        &mut self,
        plan: MovePlan,
        outcomes: &[Outcome],
        moved: &[(Located, Located)],
    ) {
        let MovePlan { allocation } = plan;
        for slot in &allocation.slots {
            let objects = allocation.objects_of(slot);
            let outcomes = outcomes.get(slot.objects.clone()).unwrap_or(&[]);
            self.published(slot, objects, outcomes.iter().copied(), &[]);
            if let Some(segment) = self.segments.get_mut(slot.segment as usize) {
                segment.moved_before = self.choices + 1;
            }
        }
        for (from, to) in moved {
            self.move_pin(from.place, to);
            self.drop_objects(std::slice::from_ref(from));
        }
        self.moves = self.moves.saturating_sub(1);
        self.changed();
    }

    /// Ends moves during which the device panicked: every object stays where it was.
    pub(crate) fn abandon_moves(&mut self, plan: &MovePlan) {
        let MovePlan { allocation } = plan;
        for slot in &allocation.slots {
            if let Some(opened) = &slot.opened {
                self.header_written(opened, false);
            }
            let objects = allocation.objects_of(slot);
            self.published(slot, objects, objects.iter().map(|_| Outcome::Failed), &[]);
        }
        self.moves = self.moves.saturating_sub(1);
        self.changed();
    }

    fn try_plan(
        &mut self,
        objects: &[(u32, Demand, u64)],
        spare: usize,
    ) -> Option<(Allocation, PlanUndo)> {
        const KEPT: &[Stream] = &[Stream::Kept];
        let before = self.before_plan();
        let (mut out, mut rest) = (Allocation::default(), objects);
        while !rest.is_empty() {
            match self.take(rest, Source { streams: KEPT, spare }, Purpose::Move, &mut out) {
                Ok(taken) => rest = &rest[taken..],
                Err(_) => {
                    self.undo(before);
                    return None;
                }
            }
        }
        Some((out, before))
    }

    fn yields_too_little(&self, objects: usize, allocation: &Allocation) -> bool {
        let entries = u32::try_from(objects).unwrap_or(u32::MAX);
        let blocks: u64 = allocation.slots.iter().map(|slot| u64::from(slot.blocks)).sum();
        victims::garbage(&self.shape, entries, blocks.max(entries.into()))
            < victims::least_garbage(&self.shape)
    }

    fn before_plan(&self) -> PlanUndo {
        let open = self.open_in(Stream::Kept).to_vec();
        let segments = open.iter().map(|&number| {
            let Segment { fill, live, highest, table, ref slots, .. } =
                self.segments[number as usize];
            (number, SegmentUndo { fill, live, highest, table, slots: slots.len() })
        });
        PlanUndo {
            next_sequence: self.next_sequence,
            entries_since_choice: self.entries_since_choice,
            opened_since_choice: self.opened_since_choice,
            segments: segments.collect(),
            open,
            free: self.free.len(),
        }
    }

    /// Takes a plan back. Nothing else happened since it began, so that even the sequences of
    /// segments that it opened are given out again: between two checkpoints there are no more of
    /// them than a recovery expects.
    fn undo(&mut self, before: PlanUndo) {
        let opened = (0..self.shape.segments).filter(|&number| {
            let segment = &self.segments[number as usize];
            segment.generation >= before.next_sequence
        });
        let mut opened: Vec<u32> = opened.collect();
        opened.sort_by_key(|&number| self.segments[number as usize].generation);
        for &number in opened.iter().rev() {
            self.readers.close(number);
            let segment = &mut self.segments[number as usize];
            *segment = Segment {
                generation: segment.previous_generation,
                errors: segment.earlier_errors,
                released_by: segment.released_by,
                ..Segment::free()
            };
            self.free.push_front(number);
        }
        debug_assert_eq!(self.free.len(), before.free);
        for (number, was) in before.segments {
            let segment = &mut self.segments[number as usize];
            segment.state = SegmentState::Open;
            (segment.fill, segment.live) = (was.fill, was.live);
            (segment.highest, segment.table) = (was.highest, was.table);
            segment.slots.truncate(was.slots);
        }
        self.open[Stream::Kept as usize] = before.open;
        self.next_sequence = before.next_sequence;
        self.entries_since_choice = before.entries_since_choice;
        self.opened_since_choice = before.opened_since_choice;
    }
}

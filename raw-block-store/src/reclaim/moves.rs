//! Moves: copies of objects take their places, all together or not at all.

use super::candidates::candidates;
use super::copy::{self, CopyOutcome};
use crate::Error;
use crate::checkpoint;
use crate::mutant::Mutant;
use crate::state::index::{Located, Move, Place};
use crate::state::policy::Candidate;
use crate::state::space::{MoveDemand, MovePlan, NoPlan, Outcome};
use crate::state::unwind::OnPanic;
use crate::state::{NoSpace, StoreState};

/// How moves ended for which there was space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MoveOutcome {
    /// What was to be moved has a new place, or is gone.
    All,
    /// A write failed: every object stayed where it was. Another attempt takes another segment.
    WriteFailed,
    /// An object cannot be read: every object stayed where it was.
    Unreadable,
}

/// Moves these objects out of a segment. Waits for a checkpoint that copies the index.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn move_all(
    state: &StoreState,
    victim: u32,
    objects: &[Candidate],
) -> Result<Result<MoveOutcome, NoPlan>, Error> {
    if objects.is_empty() {
        return Ok(Ok(MoveOutcome::All));
    }
    let demands: Vec<MoveDemand> = objects.iter().map(demand).collect();
    let planned = {
        let _unthrottled = state.throttle.suspend();
        state.wait_for(|space| match space.plan_moves(victim, &demands) {
            Err(NoPlan::Copying) => None,
            Err(reason) => Some(Ok(Err(reason))),
            Ok(mut plan) => Some(match state.extend_index(space, 0, &mut plan.allocation) {
                Ok(()) => Ok(Ok(plan)),
                Err(no_memory) => {
                    space.end_moves(plan, &[], &[]);
                    Err(no_memory)
                }
            }),
        })
    };
    let plan = match planned {
        Ok(Ok(plan)) => plan,
        Ok(Err(reason)) => return Ok(Err(reason)),
        Err(NoSpace::Memory(error)) => return Err(error),
        Err(NoSpace::Space(_)) => return Ok(Err(NoPlan::NoSpace)),
    };
    let abandon = OnPanic(|| state.with_space(|space| space.abandon_moves(&plan)));
    let mut copies = copy::copy(state, objects, &plan.allocation);
    drop(abandon);
    let moved = finish(state, objects, plan, &mut copies.of);
    match copies.error {
        Some(error) => Err(error),
        None => Ok(Ok(moved)),
    }
}

/// Moves what is pinned out of draining segments: it was pinned after a checkpoint chose to release
/// them. Returns whether anything was moved.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn rescue_pinned(state: &StoreState) -> Result<bool, Error> {
    let mut any = false;
    for segment in state.with_space(|space| space.kept_by_pins()) {
        let mut pinned = candidates(state, segment);
        pinned.retain(|candidate| candidate.pinned);
        any |= !pinned.is_empty()
            && matches!(move_all(state, segment, &pinned)?, Ok(MoveOutcome::All));
    }
    Ok(checkpoint::empty_unpinned(state) || any)
}

/// What is needed for the copy of an object, which keeps its sequence.
fn demand(candidate: &Candidate) -> MoveDemand {
    let demand = candidate.demand();
    // Without a sequence it gets a new one.
    let sequence = if Mutant::CopyGetsNewSequence.is_on() { 0 } else { demand.sequence };
    MoveDemand { sequence, ..demand }
}

/// Publishes the copies if all are written, and ends the moves.
fn finish(
    state: &StoreState,
    objects: &[Candidate],
    plan: MovePlan,
    copies: &mut [CopyOutcome],
) -> MoveOutcome {
    for slot in &plan.allocation.slots {
        if !state.wait_for_header(slot) {
            copies[slot.objects.clone()].fill(CopyOutcome::WriteFailed);
        }
    }
    let result = result_of(copies);
    let is_written =
        |copy: &CopyOutcome| matches!(copy, CopyOutcome::Written { .. } | CopyOutcome::Dropped);
    let outcome = |copy: &CopyOutcome| {
        if is_written(copy) { Outcome::Superseded } else { Outcome::Failed }
    };
    let mut outcomes: Vec<Outcome> = copies.iter().map(outcome).collect();
    let mut moved = Vec::new();
    if result == MoveOutcome::All || Mutant::CopiesPublishedOneByOne.is_on() {
        moved = publish(state, objects, &plan, copies, &mut outcomes);
    }
    count(state, &plan, moved.len());
    state.with_space(|space| {
        space.end_moves(plan, &outcomes, &moved);
        if space.pinned_versions() > 0 {
            // A copy that was replaced before its pins followed it is not reported to them again.
            let is_replaced = |to: &Located| state.index.live(to.place) != Some(to.entry);
            let replaced = moved.iter().filter(|(_, to)| is_replaced(to));
            replaced.for_each(|(_, to)| space.replace_pinned(to.place));
        }
    });
    result
}

/// Shows the copies that were written, and returns those that took the place of what was read.
fn publish(
    state: &StoreState,
    objects: &[Candidate],
    plan: &MovePlan,
    copies: &[CopyOutcome],
    outcomes: &mut [Outcome],
) -> Vec<(Located, Located)> {
    let (mut positions, mut moves) = (Vec::new(), Vec::new());
    for slot in &plan.allocation.slots {
        for at in slot.objects.clone() {
            let Some(allocated) = plan.allocation.objects.get(at) else { continue };
            let (Some(CopyOutcome::Written { entry, damaged }), Some(from)) =
                (copies.get(at), objects.get(allocated.index as usize))
            else {
                continue;
            };
            let place = Place { segment: slot.segment, number: allocated.number };
            let to = Located { place, entry: *entry };
            positions.push((at, from.object, *damaged));
            moves.push(Move { from: from.object.place, to, stamp: from.stamp });
        }
    }
    let mut moved = Vec::with_capacity(moves.len());
    let mut positions = positions.into_iter();
    let mut damaged_copies = Vec::new();
    state.index.publish_moves(&moves, |copy, is_shown| {
        if let Some((at, from, damaged)) = positions.next()
            && is_shown
        {
            outcomes[at] = Outcome::Shown;
            moved.push((from, copy.to));
            if damaged {
                damaged_copies.push(copy.to);
            }
        }
    });
    for copy in &damaged_copies {
        state.index.mark_damaged(copy);
    }
    moved
}

fn result_of(copies: &[CopyOutcome]) -> MoveOutcome {
    if copies.contains(&CopyOutcome::WriteFailed) {
        MoveOutcome::WriteFailed
    } else if copies
        .iter()
        .any(|copy| matches!(copy, CopyOutcome::Unreadable | CopyOutcome::NotTried))
    {
        MoveOutcome::Unreadable
    } else {
        MoveOutcome::All
    }
}

fn count(state: &StoreState, plan: &MovePlan, moved: usize) {
    let blocks: u64 = plan.allocation.slots.iter().map(|slot| u64::from(slot.blocks)).sum();
    let bytes = blocks * u64::from(state.shape.block_size);
    state.counters.moves.add(moved as u64);
    state.counters.moved_bytes.add(bytes);
    state.counters.written_bytes.add(bytes);
}

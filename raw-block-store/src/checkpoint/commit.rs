//! Step 6: what a commit changes in memory.

use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::{Located, Place};
use crate::state::space::{CheckpointPlan, Space};
use crate::stats::Counter;

/// Objects that leave the index between two times that the lock of the space is taken.
const OBJECTS_PER_LOCK: usize = 64;

/// A checkpoint is durable: forgets the tombstones that it covers, and drains the segments that it
/// releases.
pub(super) fn commit(state: &StoreState, plan: &CheckpointPlan, number: u64) {
    let (covered, emptying) = state.with_space(|space| {
        let covered = space.commit_checkpoint(plan, number);
        (covered, space.emptying(&plan.released))
    });
    for place in covered {
        state.index.clear_tombstone(place);
    }
    let counter = if plan.clears { &state.counters.deletes } else { &state.counters.evictions };
    emptying.into_iter().for_each(|segment| empty(state, segment, counter));
    state.free_drained();
    state.index.forget_deletions(state.with_space(|space| space.oldest_in_flight()));
}

/// Empties the draining segments in which something was pinned that is not pinned any more. Returns
/// whether there were any.
pub(crate) fn empty_unpinned(state: &StoreState) -> bool {
    let mut any = false;
    while let Some(segment) = state.with_space(Space::take_to_empty) {
        empty(state, segment, &state.counters.evictions);
        any = true;
    }
    if any {
        state.free_drained();
    }
    any
}

/// Removes what is left in the index of draining segments that were opened before this sequence,
/// also what is pinned: that stays readable by its pins.
pub(crate) fn empty_pinned(state: &StoreState, before: u64) {
    let (taken, of_others) = state.with_space(|space| space.take_all_to_empty(before));
    for &segment in taken.iter().chain(&of_others) {
        remove_objects(state, segment, true, &state.counters.deletes);
    }
    for segment in taken {
        state.with_space(|space| space.emptied(segment));
    }
    state.free_drained();
}

/// Releases segments before the checkpoint is durable that does: a mutation.
pub(super) fn release_early(state: &StoreState, plan: &CheckpointPlan, number: u64) {
    commit(state, plan, number);
}

/// Removes the objects of segments before the checkpoint is committed that releases them: a
/// mutation.
pub(super) fn remove_released(state: &StoreState, released: &[u32]) {
    for &segment in released {
        remove_objects(state, segment, false, &state.counters.evictions);
    }
}

/// Removes the objects of a draining segment from the index. Those that are pinned stay, until they
/// are moved or pinned no more.
fn empty(state: &StoreState, segment: u32, counter: &Counter) {
    let is_empty = remove_objects(state, segment, false, counter);
    state.with_space(
        |space| {
            if is_empty { space.emptied(segment) } else { space.left_pinned(segment) }
        },
    );
}

/// Removes the objects of a segment from the index, those that are pinned only if `pinned` says so.
/// Goes in pieces: no lock is held for longer than one of them takes. Counts the objects, and
/// returns whether none is left.
fn remove_objects(state: &StoreState, segment: u32, pinned: bool, counter: &Counter) -> bool {
    let mut objects = Vec::new();
    state.index.for_each_live(segment, |number, entry| {
        if entry.is_object() {
            objects.push(Located { place: Place { segment, number }, entry });
        }
    });
    let mut is_empty = true;
    let mut removed = Vec::with_capacity(OBJECTS_PER_LOCK);
    for piece in objects.chunks(OBJECTS_PER_LOCK) {
        state.with_space(|space| {
            removed.clear();
            for object in piece {
                // No pin can be added while the space is locked.
                if !pinned && space.is_pinned(object.place) && !Mutant::ReopenedWhilePinned.is_on()
                {
                    is_empty = false;
                } else if state.index.remove(object, None) {
                    removed.push(*object);
                }
            }
            space.drop_objects(&removed);
        });
        counter.add(removed.len() as u64);
    }
    is_empty
}

//! What is kept of a victim.

use super::candidates::candidates;
use super::moves::{self, MoveOutcome};
use crate::Error;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::Place;
use crate::state::policy::{Candidate, Choice, Policy};
use crate::state::space::{NoPlan, Victim, VictimKind};

/// What became of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VictimOutcome {
    /// A checkpoint may release it.
    All,
    /// Moving its objects would free too little, or they cannot be read, or the policy keeps it as
    /// it is.
    NotWorthIt,
    /// There is no space for the copies.
    Not,
    /// A copy was not written. Another attempt takes another segment.
    Failed,
}

/// Moves out of a victim what is to be kept. `is_first` says that the reclaim has no other victim
/// yet: if there is no space to compact this one, then the others are released first, rather than
/// anything evicted.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn empty(
    state: &StoreState,
    victim: Victim,
    is_first: bool,
) -> Result<VictimOutcome, Error> {
    let segment = victim.segment;
    let objects = match victim.kind {
        VictimKind::Dead => return Ok(VictimOutcome::All),
        VictimKind::Compact | VictimKind::Evict => candidates(state, segment),
    };
    let evicts = state.with_space(|space| space.evicts());
    if victim.kind == VictimKind::Compact {
        match moves::move_all(state, segment, &objects)? {
            Err(NoPlan::NoSpace) if Mutant::ReleasedWithLiveObjects.is_on() => {
                return Ok(VictimOutcome::All);
            }
            // What there is no space for is evicted, but for what the policy keeps.
            Err(NoPlan::NoSpace | NoPlan::Copying) if evicts && is_first => {}
            moved => return Ok(emptied(state, segment, moved)),
        }
    }
    evict(state, segment, objects, is_first)
}

/// Moves out of a segment that is evicted what the policy chooses, or keeps it as it is.
fn evict(
    state: &StoreState,
    segment: u32,
    mut objects: Vec<Candidate>,
    is_first: bool,
) -> Result<VictimOutcome, Error> {
    let all: Vec<Place> = objects.iter().map(|candidate| candidate.object.place).collect();
    let oldest = state.with_space(|space| space.oldest(segment));
    if state.policy.choose(&mut objects, &oldest, &state.shape) == Choice::KeepWhole {
        state.with_space(|space| space.keep_whole(segment));
        all.into_iter().for_each(|place| state.index.change_stamp(place, Policy::stamp_when_kept));
        return Ok(VictimOutcome::NotWorthIt);
    }
    let pinned = objects.iter().filter(|candidate| candidate.pinned).count();
    loop {
        let mut moved = objects.clone();
        moved.sort_by_key(|candidate| candidate.object.place);
        match moves::move_all(state, segment, &moved)? {
            // The other victims are released first.
            Err(NoPlan::NoSpace) if !is_first => return Ok(VictimOutcome::Not),
            // Pinned ones stay in the index after the commit, and are moved then.
            Err(NoPlan::NoSpace) if objects.len() == pinned => return Ok(VictimOutcome::All),
            // There is no space for all of them. The first ones are worth the most.
            Err(NoPlan::NoSpace) => objects.truncate((objects.len() / 2).max(pinned)),
            Err(NoPlan::TooLittle) => {
                // It is no victim again before something in it changes.
                state.with_space(|space| space.set_stuck(segment));
                return Ok(VictimOutcome::NotWorthIt);
            }
            // What was not to be moved is evicted by the commit.
            moved => return Ok(emptied(state, segment, moved)),
        }
    }
}

fn emptied(state: &StoreState, segment: u32, moved: Result<MoveOutcome, NoPlan>) -> VictimOutcome {
    match moved {
        Ok(MoveOutcome::All) => VictimOutcome::All,
        Ok(MoveOutcome::WriteFailed) => VictimOutcome::Failed,
        Ok(MoveOutcome::Unreadable) => {
            // It is no victim again before something in it changes.
            state.with_space(|space| space.set_futile(segment));
            VictimOutcome::NotWorthIt
        }
        Err(NoPlan::TooLittle) => VictimOutcome::NotWorthIt,
        Err(NoPlan::NoSpace | NoPlan::Copying) => VictimOutcome::Not,
    }
}

//! What is kept of a victim.

use super::moves::{self, Moved};
use crate::Error;
use crate::state::StoreState;
use crate::state::index::{Located, Place};
use crate::state::policy::Candidate;
use crate::state::space::{NoPlan, Victim, VictimKind};

/// Objects that are looked up between two times that the lock of the space is taken.
const PIECE: usize = 1024;

/// What became of a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emptied {
    /// A checkpoint may release it.
    All,
    /// Moving its objects would free too little, or they cannot be read.
    NotWorthIt,
    /// There is no space for the copies.
    Not,
    /// A copy was not written. Another attempt takes another segment.
    Failed,
}

/// Moves out of a victim what is to be kept. `is_first` says that the reclaim has no other victim yet: if there is no
/// space to compact this one, then the others are released first, rather than anything evicted.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn empty(state: &StoreState, victim: Victim, is_first: bool) -> Result<Emptied, Error> {
    let segment = victim.segment;
    let mut objects = match victim.kind {
        VictimKind::Dead => return Ok(Emptied::All),
        VictimKind::Compact | VictimKind::Evict => candidates(state, segment),
    };
    let evicts = state.with_space(|space| space.evicts());
    if victim.kind == VictimKind::Compact {
        match moves::move_all(state, segment, &objects)? {
            // What there is no space for is evicted, but for what the policy keeps.
            Err(NoPlan::NoSpace | NoPlan::Copying) if evicts && is_first => {}
            moved => return Ok(emptied(state, segment, moved)),
        }
    }
    let opened_at = state.with_space(|space| space.opened_at(segment));
    state.policy.choose(&mut objects, opened_at, &state.shape);
    objects.sort_by_key(|candidate| candidate.object.place);
    let mut moved = moves::move_all(state, segment, &objects)?;
    if moved == Err(NoPlan::NoSpace) {
        // There is no space for all of them. Those that are pinned are worth the most.
        objects.retain(|candidate| candidate.pinned);
        moved = moves::move_all(state, segment, &objects)?;
    }
    if moved == Err(NoPlan::NoSpace) {
        // They stay in the index after the commit, and are moved then.
        return Ok(Emptied::All);
    }
    // What was not to be moved is evicted by the commit.
    Ok(emptied(state, segment, moved))
}

fn emptied(state: &StoreState, segment: u32, moved: Result<Moved, NoPlan>) -> Emptied {
    match moved {
        Ok(Moved::All) => Emptied::All,
        Ok(Moved::WriteFailed) => Emptied::Failed,
        Ok(Moved::Unreadable) => {
            // It is no victim again before something in it changes.
            state.with_space(|space| space.set_futile(segment));
            Emptied::NotWorthIt
        }
        Err(NoPlan::TooLittle) => Emptied::NotWorthIt,
        Err(NoPlan::NoSpace | NoPlan::Copying) => Emptied::Not,
    }
}

/// The objects of a segment, in the order in which they lie there.
pub(super) fn candidates(state: &StoreState, segment: u32) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    state.index.for_each_live(segment, |number, entry| {
        if entry.is_object() {
            let place = Place { segment, number };
            let stamp = state.index.stamp(place);
            let object = Located { place, entry };
            candidates.push(Candidate { object, stamp, pinned: false });
        }
    });
    for piece in candidates.chunks_mut(PIECE) {
        state.with_space(|space| {
            if space.pinned_versions() > 0 {
                for candidate in piece {
                    candidate.pinned = space.is_pinned(candidate.object.place);
                }
            }
        });
    }
    candidates
}

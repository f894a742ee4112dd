//! The objects of a segment that a reclaim may move.

use crate::state::StoreState;
use crate::state::index::{Located, Place};
use crate::state::policy::Candidate;

/// Objects that are looked up between two times that the lock of the space is taken.
const OBJECTS_PER_LOCK: usize = 1024;

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
    for piece in candidates.chunks_mut(OBJECTS_PER_LOCK) {
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

//! Finding the objects of keys, so that they stay where they are while they are read.

use crate::state::index::{KeyHash, Located};
use crate::state::{ReadGuard, StoreState};

/// Looks up keys, and begins to read the segments where their objects are.
pub(super) fn locate<'a>(
    state: &'a StoreState,
    hashes: &[KeyHash],
) -> (Vec<Option<Located>>, Vec<ReadGuard<'a>>) {
    let mut located = Vec::with_capacity(hashes.len());
    let mut guards: Vec<ReadGuard<'a>> = Vec::new();
    loop {
        let since = state.readers.begin();
        located.clear();
        state.index.find_many(hashes, &mut located);
        let all = located.iter().flatten().all(|found: &Located| {
            let segment = found.place.segment;
            if guards.iter().rev().any(|guard| guard.segment == segment) {
                return true;
            }
            let guard = state.read_segment(segment, since);
            guard.map(|guard| guards.push(guard)).is_some()
        });
        if all {
            return (located, guards);
        }
        // A segment was closed in the meantime.
        guards.clear();
    }
}

pub(super) fn generation(guards: &[ReadGuard<'_>], segment: u32) -> u64 {
    let guard = guards.iter().find(|guard| guard.segment == segment);
    guard.map_or(0, |guard| guard.generation)
}

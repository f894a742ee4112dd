//! Clearing a store: one checkpoint releases all of its segments.

use raw_block_core::backend::OpKind;

use super::discard;
use super::run::{checkpoint_for, lock};
use crate::Error;
use crate::checkpoint;
use crate::error::Context;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::space::{CheckpointPurpose, Space};

/// Removes every object that was put before this call, durably. No reclaim runs in the meantime.
///
/// # Errors
/// [`Error::Device`] when the checkpoint cannot be written: nothing was removed.
pub(crate) fn clear(state: &StoreState) -> Result<(), Error> {
    state.check_process()?;
    state.dispatcher.check_accepted(OpKind::Write).context("clear the store")?;
    let _unthrottled = state.throttle.suspend();
    let (_alone, before) = loop {
        let alone = lock(state);
        // What is put from here on goes to other segments.
        if let Some(before) = state.with_space(Space::seal_all) {
            break (alone, before);
        }
        drop(alone);
        state.wait_for(|space| (!space.is_anything_granted()).then_some(()));
    };
    if !Mutant::ClearDoesNotWait.is_on() {
        state.wait_for(|space| space.is_settled_before(before).then_some(()));
    }
    let result = checkpoint_for(state, CheckpointPurpose::Clear { before });
    if result.is_ok() && !Mutant::ClearLeavesPinned.is_on() {
        checkpoint::empty_pinned(state, before);
    }
    state.with_space(|space| space.end_reclaim(true, space.version()));
    state.counters.reclaims.add(1);
    if !state.worker.is_present() {
        while discard::discard_free(state) {}
    }
    result.and_then(|()| state.forbid_older_checkpoints())
}

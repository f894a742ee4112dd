//! One reclaim: its victims, and the checkpoint that releases them.

use std::sync::MutexGuard;

use raw_block_core::backend::OpKind;
use raw_block_core::{ErrorClass, sync};

use super::{discard, moves, victims};
use crate::Error;
use crate::checkpoint;
use crate::error::Context;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::space::{CheckpointPurpose, Space};
use crate::state::unwind::OnPanic;

/// How many times a reclaim tries to take its checkpoint. A container that cannot be written is
/// left out by the next attempt.
const CHECKPOINT_ATTEMPTS: usize = 3;

/// Runs a reclaim, or waits for the one that runs, or for the change in flight without which none
/// gains anything. Returns `false` if a reclaim ran and freed nothing. Call it when an allocation
/// failed with [`Shortage::Reclaim`](crate::state::space::Shortage::Reclaim), and then allocate
/// again: if the reclaim found nothing to do, that fails with
/// [`Shortage::Full`](crate::state::space::Shortage::Full).
///
/// The caller holds no lock, and everything that it allocated before is submitted.
///
/// # Errors
/// [`Error::Device`] when a checkpoint cannot be written, [`Error::OutOfMemory`].
pub(crate) fn make_space(state: &StoreState) -> Result<bool, Error> {
    state.check_process()?;
    state.dispatcher.check_accepted(OpKind::Write).context("reclaim space")?;
    let _unthrottled = state.throttle.suspend();
    state.counters.waits_for_space.add(1);
    let ended = state.counters.reclaims.get();
    let supply = state.with_space(|space| space.supply());
    let gained = || state.with_space(|space| space.supply()) > supply;
    let alone = lock(state);
    if state.counters.reclaims.get() != ended {
        // Another thread's reclaim has ended since.
        return Ok(gained());
    }
    let ended = run(state, Space::is_anything_uncovered)?;
    let blocking = state.with_space(|space| {
        // What a delete was granted is in flight until its thread uses it, which may be this one.
        let waits = space.is_exhausted() && !space.is_anything_granted();
        space.blocking_change().filter(|_| waits)
    });
    drop(alone);
    let Some(oldest) = blocking else { return Ok(ended == ReclaimOutcome::Blocked || gained()) };
    state.wait_for(|space| (space.oldest_in_flight() != oldest).then_some(()));
    Ok(true)
}

/// Runs a reclaim if few segments are free, before a caller waits for one. Returns whether it did.
///
/// # Errors
/// Those of [`make_space`].
pub(super) fn run_ahead(state: &StoreState) -> Result<bool, Error> {
    let _alone = lock(state);
    if !state.with_space(|space| space.needs_reclaim()) {
        return Ok(false);
    }
    Ok(run(state, Space::gains_by_checkpoint)? == ReclaimOutcome::Progress)
}

/// How a reclaim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReclaimOutcome {
    /// It released or moved something, or a checkpoint covers more.
    Progress,
    /// There was nothing to do.
    Futile,
    /// There was nothing to do, because a change in flight keeps checkpoints from covering more.
    Blocked,
}

/// Keeps other reclaims from running.
pub(super) fn lock(state: &StoreState) -> Option<MutexGuard<'_, ()>> {
    let alone = !Mutant::SeveralReclaims.is_on();
    alone.then(|| sync::lock(&state.reclaiming))
}

/// Empties as many victims as are wanted, and takes the checkpoint that releases them. Without
/// victims one is taken only if `helps` says so, and covers something that the committed one does
/// not.
fn run(state: &StoreState, helps: impl FnOnce(&Space) -> bool) -> Result<ReclaimOutcome, Error> {
    let mut progress = false;
    let since = state.with_space(|space| space.version());
    let end = OnPanic(|| state.with_space(|space| space.end_reclaim(true, since)));
    let result = empty_victims(state, &mut progress).and_then(|()| {
        let mut ended = if progress { ReclaimOutcome::Progress } else { ReclaimOutcome::Futile };
        if !progress {
            ended = state.with_space(|space| match space.blocking_change() {
                Some(_) => ReclaimOutcome::Blocked,
                None if helps(space) => ReclaimOutcome::Progress,
                None => ReclaimOutcome::Futile,
            });
        }
        progress = ended == ReclaimOutcome::Progress;
        if progress {
            checkpoint_for(state, CheckpointPurpose::Space)?;
            moves::rescue_pinned(state)?;
        }
        Ok(ended)
    });
    drop(end);
    // After an error the next caller tries again, and gets its own.
    state.with_space(|space| space.end_reclaim(progress || result.is_err(), since));
    if !matches!(result, Ok(ReclaimOutcome::Blocked)) {
        state.counters.reclaims.add(1);
    }
    if !state.worker.is_present() {
        while discard::discard_free(state) {}
    }
    result
}

fn empty_victims(state: &StoreState, progress: &mut bool) -> Result<(), Error> {
    *progress = moves::rescue_pinned(state)?;
    let mut victims = 0;
    while state.with_space(|space| space.wants_victims(victims)) {
        let Some(victim) = state.with_space(Space::take_victim) else { break };
        let emptied = victims::empty(state, victim, victims == 0);
        if !matches!(emptied, Ok(victims::VictimOutcome::All)) {
            state.with_space(|space| space.spare_victim(victim.segment));
        }
        match emptied? {
            victims::VictimOutcome::All => {
                victims += 1;
                *progress = true;
            }
            victims::VictimOutcome::NotWorthIt => {}
            victims::VictimOutcome::Not => break,
            victims::VictimOutcome::Failed => {
                *progress = true;
                break;
            }
        }
    }
    Ok(())
}

/// Takes the checkpoint that releases the victims. A failure is tried again at once: the caller
/// needs the space, and the next attempt takes another container.
pub(super) fn checkpoint_for(state: &StoreState, purpose: CheckpointPurpose) -> Result<(), Error> {
    let mut attempts = 1;
    loop {
        match checkpoint::take(state, purpose) {
            Err(Error::Device { error, .. })
                if attempts < CHECKPOINT_ATTEMPTS && error.class() == ErrorClass::Failed =>
            {
                attempts += 1;
            }
            result => return result,
        }
    }
}

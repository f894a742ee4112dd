//! Checkpoints: writing an image of the index, and reading it back.
//!
//! One checkpoint is taken at a time, concurrently with changes and gets:
//! 1. When no move is in flight, choose under the lock of the space what the checkpoint covers,
//!    what is settled, and which segments it releases. No move begins until step 4 has ended.
//! 2. If the last attempt failed, destroy its header.
//! 3. Write the tables of full segments that have none.
//! 4. Copy the records: for each segment a bit for each live entry.
//! 5. Write the body, flush, write the header, flush: the checkpoint is committed.
//! 6. Remove the objects of the released segments from the index, and forget the tombstones that
//!    are covered.

mod commit;
pub(crate) mod find;
mod pacer;
mod records;
mod tables;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use crate::state::containers::{Attempt, Containers};
pub(crate) use commit::{empty_pinned, empty_unpinned};
use raw_block_core::backend::OpKind;
use raw_block_core::sync;

use super::mutant::Mutant;
use super::state::StoreState;
use super::state::space::{CheckpointPlan, CheckpointPurpose, Space};
use super::stats::health::Concern;
use crate::Error;
use crate::error::Context;
use pacer::Pacer;
use write::CONTEXT;

/// Takes a checkpoint. Waits for one in progress first.
///
/// The caller waits for it to be taken quickly, or holds
/// [`Throttle::suspend`](crate::state::throttle::Throttle::suspend) itself.
///
/// # Errors
/// [`Error::Device`]: nothing changed. A later attempt may succeed.
pub(crate) fn take(state: &StoreState, purpose: CheckpointPurpose) -> Result<(), Error> {
    take_if(state, purpose, |_| true).map(drop)
}

/// Takes a checkpoint, and changes the index and the space immediately before its contents are
/// chosen, while no other checkpoint is in progress.
///
/// # Errors
/// Those of [`take`]. The change may have been made.
pub(crate) fn take_after(
    state: &StoreState,
    purpose: CheckpointPurpose,
    change: impl FnOnce(&mut Space),
) -> Result<(), Error> {
    let change = |space: &mut Space| {
        change(space);
        true
    };
    begin(state, purpose, change).map(drop)
}

/// Takes a checkpoint if it is still wanted when no other is in progress. Returns whether it was.
///
/// # Errors
/// Those of [`take`].
pub(crate) fn take_if(
    state: &StoreState,
    purpose: CheckpointPurpose,
    wanted: impl FnOnce(&Space) -> bool,
) -> Result<bool, Error> {
    begin(state, purpose, |space| wanted(space))
}

fn begin(
    state: &StoreState,
    purpose: CheckpointPurpose,
    wanted: impl FnOnce(&mut Space) -> bool,
) -> Result<bool, Error> {
    state.check_process()?;
    state.dispatcher.check_accepted(OpKind::Write).context(CONTEXT)?;
    let mut containers = sync::lock(&state.checkpointing);
    if !state.with_space(wanted) {
        return Ok(false);
    }
    let started = Instant::now();
    let taken = attempt(state, &mut containers, purpose);
    report(state, &containers, &taken);
    let attempt = taken?;
    state.counters.checkpoint_latency.add_since(started);
    tracing::debug!(
        device = state.device_name(),
        number = attempt.number,
        container = attempt.container,
        elapsed = ?started.elapsed(),
        "a checkpoint was committed"
    );
    Ok(true)
}

/// Whether a mutation releases segments before the checkpoint is committed that does.
fn is_released_early() -> bool {
    Mutant::ReleasedAfterFlushOfBody.is_on() || Mutant::ReleasedBeforeHeaderWritten.is_on()
}

fn attempt(
    state: &StoreState,
    containers: &mut Containers,
    purpose: CheckpointPurpose,
) -> Result<Attempt, Error> {
    let mut plan = state.wait_for(|space| space.plan_checkpoint(purpose));
    if Mutant::EvictedBeforeCommit.is_on() {
        commit::remove_released(state, &plan.released);
    }
    let mut pacer = Pacer::new(state, &plan);
    let write = || write_planned(state, containers, purpose, &mut plan, &mut pacer);
    let written = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
        containers.attempt_panicked();
        state.with_space(|space| space.abandon_checkpoint(&plan));
        resume_unwind(panic)
    });
    match written {
        Ok(attempt) => {
            containers.commit(attempt);
            if !is_released_early() {
                commit::commit(state, &plan, attempt.number);
            }
            Ok(attempt)
        }
        Err(error) => {
            state.with_space(|space| space.abandon_checkpoint(&plan));
            Err(error)
        }
    }
}

/// Steps 2 to 5.
fn write_planned(
    state: &StoreState,
    containers: &mut Containers,
    purpose: CheckpointPurpose,
    plan: &mut CheckpointPlan,
    pacer: &mut Pacer<'_>,
) -> Result<Attempt, Error> {
    write::destroy_failed(state, containers)?;
    let attempt = containers.begin();
    let written = tables::write(state, purpose, attempt.number, plan, pacer)
        .and_then(|()| records::copy(state, plan))
        .map_err(write::Failure::elsewhere)
        .and_then(|image| {
            state.with_space(Space::end_copy);
            write::write(state, containers, attempt, plan, image, pacer)
        });
    written.map_err(|failure| {
        containers.attempt_failed(attempt, failure.in_container);
        failure.error
    })?;
    Ok(attempt)
}

/// Counts and logs how an attempt ended, and says so in the store's health.
fn report(state: &StoreState, containers: &Containers, taken: &Result<Attempt, Error>) {
    let device = state.device_name();
    match taken {
        Err(error) => {
            state.counters.failed_checkpoints.add(1);
            let number = containers.last_number();
            tracing::warn!(device, number, %error, "a checkpoint failed: it is tried again");
            state.health.raise(
                Concern::Checkpoint,
                device,
                format!("a checkpoint failed: {error}"),
            );
        }
        Ok(_) => {
            state.writes_accepted();
            let bad = containers.bad();
            let bad: Vec<String> =
                (0..bad.len()).filter(|&at| bad[at]).map(|at| at.to_string()).collect();
            if bad.is_empty() {
                state.health.clear(Concern::Checkpoint, device);
            } else {
                let reason = format!("writes to checkpoint container {} failed", bad.join(" and "));
                state.health.raise(Concern::Checkpoint, device, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Steps 2 and 5: destroying the header of a failed attempt, writing body and header.

use std::time::Instant;

use raw_block_core::{AlignedBuf, ErrorClass, WriteAt};

use super::pacer::Pacer;
use crate::Error;
use crate::error::Context;
use crate::format::{Body, BodyBlock, CheckpointHeader};
use crate::io::Placement;
use crate::io::fixed;
use crate::mutant::{self, Mutant};
use crate::state::StoreState;
use crate::state::containers::{Attempt, Containers};
use crate::state::space::CheckpointPlan;

/// The context of errors.
pub(super) const CONTEXT: &str = "write a checkpoint";

/// Bytes that are written at once: what others wait for after it is not long.
const WRITE_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a body after which it is flushed, so that the flush that follows is not long either.
const FLUSH_INTERVAL_BYTES: usize = 4 << 20;

/// Why an attempt failed.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether it was a write to its container.
    pub(super) in_container: bool,
}

impl Failure {
    pub(super) fn elsewhere(error: impl Into<Error>) -> Self {
        Self { error: error.into(), in_container: false }
    }

    fn in_container(error: Error) -> Self {
        let in_container = matches!(
            &error,
            Error::Device { error, .. } if error.class() != ErrorClass::NotStarted
        );
        Self { error, in_container }
    }
}

/// The number that the body blocks of a checkpoint carry, so that none of another one counts.
pub(super) fn body_number(number: u64) -> u64 {
    if Mutant::FailedHeaderKeptBodyUnbound.is_on() { 1 } else { number }
}

/// Memory for blocks that are written at once: no more than about `blocks`, but at least one.
///
/// # Errors
/// [`Error::Device`] if there is none.
pub(super) fn piece(state: &StoreState, blocks: u64) -> Result<AlignedBuf, Error> {
    let block_size = state.layout.block_size as usize;
    let limit = (mutant::limit(WRITE_CHUNK_BYTES, 1) / block_size).max(1);
    let blocks = usize::try_from(blocks).unwrap_or(usize::MAX).clamp(1, limit);
    AlignedBuf::zeroed(blocks * block_size).context(CONTEXT)
}

/// Overwrites the header of the last attempt, if that failed: it may be on the device, and name the
/// body that the next attempt overwrites. A container whose header cannot be overwritten leaves the
/// rotation.
///
/// # Errors
/// [`Error::Device`]: the header may still be there, and no other container may leave.
pub(super) fn destroy_failed(state: &StoreState, containers: &mut Containers) -> Result<(), Error> {
    let Some(container) = containers.to_destroy() else { return Ok(()) };
    if Mutant::FailedHeaderKept.is_on()
        || Mutant::FailedHeaderKeptBodyUnbound.is_on()
        || Mutant::FailedHeaderKeptNumberReused.is_on()
    {
        containers.destroyed();
        return Ok(());
    }
    let zeroes = AlignedBuf::zeroed(state.layout.block_size as usize).context(CONTEXT)?;
    let offset = state.layout.container_offset[container];
    let destroyed = write_at(state, offset, &zeroes).and_then(|()| flush(state));
    match destroyed {
        Ok(()) => {
            containers.destroyed();
            Ok(())
        }
        Err(Error::Device { error, .. }) if error.class() == ErrorClass::Failed => {
            if Mutant::UndestroyedContainerUsed.is_on() {
                containers.destroyed();
                return Ok(());
            }
            let left = containers.not_destroyed();
            let device = state.device_name();
            tracing::warn!(device, container, left, %error, "a checkpoint that failed cannot be overwritten");
            if left { Ok(()) } else { Err(error).context(CONTEXT) }
        }
        Err(error) => Err(error),
    }
}

/// Writes the body and the header of an attempt, each followed by a flush: then the checkpoint is
/// committed. The flush of the body makes durable everything that it names, and everything that
/// replaced what it does not name.
pub(super) fn write(
    state: &StoreState,
    containers: &mut Containers,
    attempt: Attempt,
    plan: &CheckpointPlan,
    mut body: Body<AlignedBuf>,
    pacer: &mut Pacer<'_>,
) -> Result<(), Failure> {
    let Attempt { number, container } = attempt;
    let layout = &state.layout;
    let offset = layout.container_offset[container];
    write_body(state, offset, body_number(number), &mut body, pacer)?;
    if !Mutant::BodyNotFlushed.is_on() {
        flush(state).map_err(Failure::elsewhere)?;
    }
    containers.body_written(attempt);
    if Mutant::ReleasedAfterFlushOfBody.is_on() {
        super::commit::release_early(state, plan, number);
    }

    let header =
        CheckpointHeader::new(layout, number, (plan.covered, plan.next_sequence), body.len);
    let mut block = AlignedBuf::zeroed(layout.block_size as usize)
        .context(CONTEXT)
        .map_err(Failure::elsewhere)?;
    header.encode(&mut block, layout).map_err(Failure::elsewhere)?;
    if Mutant::ReleasedBeforeHeaderWritten.is_on() {
        super::commit::release_early(state, plan, number);
    }
    containers.header_submitted(attempt);
    write_at(state, offset, &block).map_err(Failure::in_container)?;
    if !Mutant::CheckpointHeaderNotFlushed.is_on() {
        flush(state).map_err(Failure::elsewhere)?;
    }
    Ok(())
}

fn write_body(
    state: &StoreState,
    offset: u64,
    number: u64,
    body: &mut Body<AlignedBuf>,
    pacer: &mut Pacer<'_>,
) -> Result<(), Failure> {
    let layout = &state.layout;
    let block_size = layout.block_size as usize;
    let (mut next, mut unflushed) = (0, 0);
    for piece in &mut body.pieces {
        let left = usize::try_from(body.blocks - next).unwrap_or(usize::MAX);
        let blocks = (piece.len() / block_size).min(left);
        let piece = &mut piece[..blocks * block_size];
        BodyBlock::seal_all(piece, layout, number, next).map_err(Failure::elsewhere)?;
        let at = offset + (1 + next) * block_size as u64;
        let began = Instant::now();
        write_at(state, at, piece).map_err(Failure::in_container)?;
        let took = began.elapsed();
        next += blocks as u64;
        unflushed += piece.len();
        if next < body.blocks {
            if unflushed >= FLUSH_INTERVAL_BYTES {
                flush(state).map_err(Failure::elsewhere)?;
                unflushed = 0;
            }
            pacer.pause_after(took, blocks as u64);
        }
    }
    Ok(())
}

/// Writes to a container.
fn write_at(state: &StoreState, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    let options = Placement::Containers.options(state.dispatcher.geometry());
    let write = WriteAt::new(offset, bytes).with_options(options);
    fixed::write(&state.dispatcher, &[write]).all().context(CONTEXT)?;
    state.counters.written_bytes.add(bytes.len() as u64);
    Ok(())
}

fn flush(state: &StoreState) -> Result<(), Error> {
    state.dispatcher.flush().context(CONTEXT)
}

//! Step 3: the tables of full segments.

use std::time::Instant;

use raw_block_core::{ErrorClass, WriteAt};

use super::pacer::Pacer;
use super::write::{self, CONTEXT};
use crate::Error;
use crate::error::Context;
use crate::format::{TableBlock, TableId};
use crate::io::Placement;
use crate::io::fixed;
use crate::state::StoreState;
use crate::state::space::{CheckpointPlan, CheckpointPurpose, SegmentPlan};

/// Writes the tables of the segments that were full and settled when the contents of the checkpoint
/// were chosen, and have none. At closing also those of open ones. A table that cannot be written
/// is left out: its segment is scanned.
///
/// # Errors
/// [`Error::Device`] if there is no memory, or the device accepts no writes at all.
pub(super) fn write(
    state: &StoreState,
    purpose: CheckpointPurpose,
    number: u64,
    plan: &mut CheckpointPlan,
    pacer: &mut Pacer<'_>,
) -> Result<(), Error> {
    for (segment, of) in (0..).zip(&mut plan.segments) {
        let closes = purpose == CheckpointPurpose::Whole && closes_with_table(of);
        if !of.wants_table && !closes {
            continue;
        }
        let id = TableId { generation: of.generation, checkpoint: number, entries: of.entries };
        match write_table(state, segment, of, &id, pacer) {
            Ok(()) => {
                of.table = number;
                let generation = of.generation;
                state.with_space(|space| space.table_written(segment, generation, number));
            }
            Err(Error::Device { error, .. }) if error.class() == ErrorClass::Failed => {
                let device = state.device_name();
                tracing::warn!(device, segment, %error, "the table of a segment cannot be written");
            }
            Err(Error::Encode(error)) => {
                // A record of the checkpoint that was found may have lied.
                let device = state.device_name();
                tracing::error!(device, segment, %error, "the table of a segment would lie");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an open segment gets a table when the store is closed: nothing is in flight in it.
fn closes_with_table(of: &SegmentPlan) -> bool {
    of.used && of.table == 0 && of.entries > 0 && of.settled >= of.entries
}

fn write_table(
    state: &StoreState,
    segment: u32,
    of: &SegmentPlan,
    id: &TableId,
    pacer: &mut Pacer<'_>,
) -> Result<(), Error> {
    let layout = &state.layout;
    let options = Placement::Stream(of.stream).options(state.dispatcher.geometry());
    let blocks = layout.table_blocks(of.entries);
    let mut piece = write::piece(state, blocks.into())?;
    let mut next = 0;
    while next < blocks {
        let first = next;
        let mut filled = 0;
        for block in piece.chunks_exact_mut(layout.block_size as usize) {
            if next == blocks {
                break;
            }
            let entries = TableBlock::entries_mut(block, layout, id, next)?;
            state.index.entries(segment, id.numbers(layout, next), entries);
            TableBlock::seal(block, layout, id, next)?;
            filled += layout.block_size as usize;
            next += 1;
        }
        let offset = layout.block_offset(segment, layout.table_block(of.entries) + first);
        let began = Instant::now();
        let write = WriteAt::new(offset, &piece[..filled]).with_options(options);
        fixed::write(&state.dispatcher, &[write]).all().context(CONTEXT)?;
        state.counters.written_bytes.add(filled as u64);
        pacer.pause_after(began.elapsed(), (next - first).into());
    }
    Ok(())
}

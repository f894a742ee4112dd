//! When the writing of a checkpoint pauses.

use std::time::Duration;

use crate::state::StoreState;
use crate::state::space::CheckpointPlan;
use crate::state::throttle::{WriteProgress, is_in_time, pause_after};

/// Paces the writing of one checkpoint: between its writes the device is left to calls, as long as
/// no caller waits for the checkpoint and the free segments last.
pub(super) struct Pacer<'a> {
    state: &'a StoreState,
    progress: WriteProgress,
    /// Free segments that puts could take when the checkpoint began.
    spare: u64,
}

impl<'a> Pacer<'a> {
    pub(super) fn new(state: &'a StoreState, plan: &CheckpointPlan) -> Self {
        let tables = plan.segments.iter().filter(|segment| segment.wants_table);
        let tables = tables.map(|segment| u64::from(state.shape.table_blocks(segment.entries)));
        let bytes = plan.segments.iter().map(|segment| u64::from(segment.entries) / 8 + 32);
        let body = bytes.sum::<u64>() / u64::from(state.shape.block_size.max(1));
        Self {
            state,
            progress: WriteProgress { written: 0, of: tables.sum::<u64>() + body },
            spare: spare(state),
        }
    }

    /// Makes a pause after a write of this many blocks that took this long, if there is time for
    /// one.
    pub(super) fn pause_after(&mut self, took: Duration, blocks: u64) {
        self.progress.written += blocks;
        let is_idle = self.state.with_space(|space| space.is_idle());
        let used = self.spare.saturating_sub(spare(self.state));
        if !is_idle && is_in_time(self.progress, self.spare, used) {
            self.state.throttle.pause(pause_after(took));
        }
    }
}

/// Free segments that puts can take.
fn spare(state: &StoreState) -> u64 {
    state.with_space(|space| space.free_for_puts())
}

//! Discards free segments.

use raw_block_core::sync;

use crate::state::StoreState;
use crate::state::unwind::OnPanic;

/// Discards one free segment, if the store was opened to do that: one that every checkpoint calls
/// free that is valid or may be. It is not opened before the discard has completed. Returns whether
/// there may be another one.
pub(super) fn discard_free(state: &StoreState) -> bool {
    if !state.options.discard || !state.dispatcher.geometry().discard {
        return false;
    }
    let oldest = sync::lock(&state.checkpointing).oldest_number();
    let Some(segment) = state.with_space(|space| space.begin_discard(oldest)) else {
        return false;
    };
    let (offset, len) = (state.layout.segment_offset(segment), state.layout.segment_size());
    let end = OnPanic(|| state.with_space(|space| space.end_discard(segment)));
    let discarded = state.dispatcher.discard(offset, len);
    drop(end);
    if let Err(error) = &discarded {
        tracing::debug!(device = state.device_name(), segment, %error, "a segment was not discarded");
    }
    state.with_space(|space| space.end_discard(segment));
    true
}

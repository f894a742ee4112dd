//! Writing the headers of segments that were opened.

use raw_block_core::{AlignedBuf, ErrorClass, WriteAt};

use super::placement::Placement;
use crate::Error;
use crate::error::Context;
use crate::format::{self, SegmentFields, SegmentHeader};
use crate::state::StoreState;
use crate::state::space::{OpenedSegment, Space};
use crate::state::unwind::OnPanic;

/// Writes the header of a segment that was opened, and reports how that ended. Returns whether it
/// is written.
pub(crate) fn write(state: &StoreState, opened: &OpenedSegment) -> bool {
    let end = OnPanic(|| state.header_written(opened, false));
    let written = try_write(state, opened);
    drop(end);
    if let Err(error) = &written {
        let (device, segment) = (state.device_name(), opened.segment);
        tracing::warn!(device, segment, %error, "the header of a segment was not written");
        if let Error::Device { error, .. } = error
            && error.class() == ErrorClass::Unknown
        {
            // The device may still carry it out, over the next header.
            state.quarantine(segment, opened.generation, error);
        }
    }
    state.header_written(opened, written.is_ok());
    written.is_ok()
}

/// Opens a segment for puts ahead of need, if there are enough free ones. Returns whether it did.
pub(crate) fn open_ahead(state: &StoreState) -> bool {
    let opened = state.with_space(Space::open_ahead);
    opened.is_some_and(|opened| write(state, &opened))
}

/// Writes the headers of segments again that a power cut tore or lost, so that they are not taken
/// for damage. Nothing depends on it: a recovery finds the same with and without them.
pub(crate) fn write_lost(state: &StoreState, segments: &[u32]) {
    if state.refuses_writes() {
        return;
    }
    for &segment in segments {
        if let Some(opened) = state.with_space(|space| space.lost_header(segment)) {
            write(state, &opened);
        }
    }
}

/// What the header of a segment says that was opened.
pub(crate) fn fields(opened: &OpenedSegment) -> SegmentFields {
    SegmentFields {
        segment: opened.segment,
        generation: opened.generation,
        stream: format::Stream::ALL[opened.stream as usize],
        checkpoint: opened.checkpoint,
    }
}

fn try_write(state: &StoreState, opened: &OpenedSegment) -> Result<(), Error> {
    const CONTEXT: &str = "open a segment";
    let mut block = AlignedBuf::zeroed(state.layout.block_size as usize).context(CONTEXT)?;
    SegmentHeader::encode(&mut block, &state.layout, &fields(opened))?;
    let options = Placement::Stream(opened.stream).options(state.dispatcher.geometry());
    let offset = state.layout.segment_offset(opened.segment);
    let write = WriteAt::new(offset, &block).with_options(options);
    state.dispatcher.write_buffers(&[write]).all().context(CONTEXT)?;
    state.counters.written_bytes.add(block.len() as u64);
    Ok(())
}

//! The headers of all segments.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use super::damages::is_readable;
use crate::Error;
use crate::error::Context;
use crate::format::Damage;
use crate::format::{Layout, SegmentHeader, Stream};

/// Headers that are read at once.
const BATCH: usize = 512;

/// The header of a segment.
#[derive(Clone, Debug)]
pub(super) enum Header {
    /// The segment was opened with this generation and for this stream, after this checkpoint was
    /// committed.
    Valid { generation: u64, stream: Stream, checkpoint: u64 },
    /// There is none: the segment was never opened, or was discarded since.
    Absent,
    /// There was one, and it cannot be read, or is damaged.
    Unusable(Unusable),
}

impl Header {
    /// The number of the checkpoint that it names; 0 if it names none.
    pub(super) fn checkpoint(&self) -> u64 {
        match self {
            Self::Valid { checkpoint, .. } => *checkpoint,
            Self::Absent | Self::Unusable(_) => 0,
        }
    }
}

/// Why a header cannot be used.
#[derive(Clone, Debug)]
pub(super) enum Unusable {
    /// The device cannot read it.
    Unreadable(raw_block_core::Error),
    /// A rule is broken.
    Damaged(Damage),
}

/// Reads the headers of all segments.
///
/// # Errors
/// [`Error::Device`] when the device cannot be used.
pub(super) fn read(dispatcher: &Dispatcher, layout: &Layout) -> Result<Vec<Header>, Error> {
    let block_size = layout.block_size as usize;
    let at_once = BATCH.min(layout.segment_count as usize);
    let mut blocks =
        AlignedBuf::zeroed(at_once * block_size).context("read the headers of segments")?;
    let mut headers = Vec::with_capacity(layout.segment_count as usize);
    for first in (0..layout.segment_count).step_by(BATCH) {
        let mut reads: Vec<_> = (first..layout.segment_count)
            .zip(blocks.chunks_exact_mut(block_size))
            .map(|(segment, block)| ReadAt::new(layout.segment_offset(segment), block))
            .collect();
        let results = dispatcher.read_buffers(&mut reads);
        drop(reads);
        let blocks = (first..layout.segment_count).zip(blocks.chunks_exact(block_size));
        for ((segment, block), result) in blocks.zip(results) {
            headers.push(match is_readable(result)? {
                Ok(()) => header(layout, segment, block),
                Err(error) => Header::Unusable(Unusable::Unreadable(error)),
            });
        }
    }
    Ok(headers)
}

fn header(layout: &Layout, segment: u32, block: &[u8]) -> Header {
    match SegmentHeader::read(block, layout, segment) {
        Ok(header) => Header::Valid {
            generation: header.generation.get(),
            stream: header.stream(),
            checkpoint: header.checkpoint.get(),
        },
        Err(Damage::NotThisStructure { .. }) if block.iter().all(|&byte| byte == 0) => {
            Header::Absent
        }
        Err(Damage::ForeignStore) => Header::Absent,
        Err(damage) => Header::Unusable(Unusable::Damaged(damage)),
    }
}

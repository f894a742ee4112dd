//! The headers of segments, and the slots in them.

use anyhow::Result;
use raw_block_store::format::{SegmentHeader, SlotHeader, SlotView};

use super::{AT_ONCE, Block, Flaw, Reader};

/// After a slot with more blocks than this the next header is read alone.
const SHORT_SLOT: u32 = 32;

impl Reader<'_> {
    /// Reads the headers of these segments. Calls `visit` with the number, the place and the header
    /// of each, or why that cannot be used.
    pub(crate) fn segment_headers(
        &self,
        segments: impl IntoIterator<Item = u32>,
        mut visit: impl FnMut(u32, u64, Result<SegmentHeader, Flaw>) -> Result<()>,
    ) -> Result<()> {
        let place = |segment| (segment, self.layout.segment_offset(segment));
        self.each_block(segments.into_iter().map(place), |segment, offset, block| {
            visit(segment, offset, self.segment_header(segment, block))
        })
    }

    fn segment_header(&self, segment: u32, block: &Block) -> Result<SegmentHeader, Flaw> {
        Ok(*SegmentHeader::read(block.as_ref()?, &self.layout, segment)?)
    }

    /// Searches a segment for slots. Calls `visit` with the block and the header of each, and with
    /// what resembles a header or cannot be read, and why it cannot be used.
    ///
    /// The payloads of slots in this generation are not searched. Slots of another one may be
    /// overwritten in part.
    pub(crate) fn slots(
        &self,
        segment: u32,
        generation: Option<u64>,
        mut visit: impl FnMut(u32, Result<&SlotView<'_>, Flaw>) -> Result<()>,
    ) -> Result<()> {
        let end = self.layout.segment_blocks;
        let (mut next, mut last_slot) = (1, 0);
        while next < end {
            let first = next;
            let count = if last_slot > SHORT_SLOT { 1 } else { AT_ONCE.min((end - next) as usize) };
            let offsets: Vec<_> = (first..end)
                .take(count)
                .map(|block| self.layout.block_offset(segment, block))
                .collect();
            let blocks = self.blocks(&offsets)?;
            last_slot = 0;
            while let Some(block) = blocks.get((next - first) as usize) {
                let at = next;
                next += 1;
                match self.slot(segment, at, block) {
                    Ok(view) => {
                        visit(at, Ok(&view))?;
                        if generation == Some(view.header.generation.get()) {
                            last_slot = view.header.blocks.get();
                            next = at + last_slot;
                        }
                    }
                    Err(flaw) if flaw.is_absence() => {}
                    Err(flaw) => visit(at, Err(flaw))?,
                }
            }
        }
        Ok(())
    }

    fn slot<'b>(&self, segment: u32, at: u32, block: &'b Block) -> Result<SlotView<'b>, Flaw> {
        Ok(SlotHeader::read(block.as_ref()?, &self.layout, segment, at)?)
    }
}

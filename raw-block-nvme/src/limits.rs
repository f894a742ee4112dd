//! What one command may be, and the rule that cuts an op into commands.

use libc::iovec;
use raw_block_core::{Error, ErrorKind};

use crate::identify::{Controller, Namespace, PAGE};
use crate::sysfs::QueueLimits;

/// Blocks that a command can name: its count has 16 bits and begins at 0.
const MAX_BLOCKS: u64 = 1 << 16;
/// No command is longer, in bytes, whatever the device takes: nothing is gained.
const MAX_COMMAND: u64 = 1 << 20;
/// Ranges that a Dataset Management command can have: their number has 8 bits and begins at 0.
const MAX_RANGES: u64 = 1 << 8;
/// The longest command where the kernel does not tell its own limits, in bytes.
const MAX_UNTOLD: u64 = 128 << 10;
/// Segments of a command where the kernel does not tell: what its driver for PCI has at least, and what is needed
/// for `MAX_UNTOLD` from an address inside a page.
const SEGMENTS_UNTOLD: u64 = MAX_UNTOLD / PAGE + 1;

/// What one command may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes in a logical block.
    pub(crate) block: u64,
    /// Bytes that a read or a write moves: a power of two, at least a block.
    pub(crate) transfer: u64,
    /// Bytes that Write Zeroes covers.
    pub(crate) write_zeroes: u64,
    /// Bytes that one range of Dataset Management covers.
    pub(crate) range: u64,
    /// Bytes that all ranges of one Dataset Management command cover.
    pub(crate) deallocate: u64,
    /// Pages of memory that a read or a write touches.
    pub(crate) pages: u64,
    /// Memory may have gaps only at multiples of this, less one: `virt_boundary_mask`; 0 if anywhere.
    pub(crate) gap_mask: u64,
    /// Reads and writes that cross multiples of this many bytes of the namespace are slower; 0 if it does not matter.
    pub(crate) boundary: u64,
}

/// Where in the memory of an op a command begins: in which segment, and how many bytes into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: usize,
    pub(crate) skip: usize,
}

impl Limits {
    /// From what the device, the kernel and the user (`most`, in bytes) say.
    pub(crate) fn new(
        controller: &Controller,
        namespace: &Namespace,
        kernel: Option<&QueueLimits>,
        most: Option<u64>,
    ) -> Result<Self, Error> {
        let block = namespace.block;
        let pages = kernel.map_or(SEGMENTS_UNTOLD, |kernel| kernel.max_segments);
        let told = match kernel {
            Some(kernel) => kernel.max_hw_bytes.min(pages.saturating_sub(1) * PAGE),
            None => MAX_UNTOLD,
        };
        let transfer = [
            controller.max_transfer().unwrap_or(u64::MAX),
            told,
            block.saturating_mul(MAX_BLOCKS),
            MAX_COMMAND,
            most.unwrap_or(u64::MAX),
        ]
        .into_iter()
        .fold(u64::MAX, u64::min);
        if transfer < block {
            let rule = format!(
                "its longest command would be {transfer} bytes, and a block has {block}: raise the limit"
            );
            return Err(Error::new(ErrorKind::InvalidInput, "open", rule));
        }
        // A power of two, so that the commands of a long op are alike and stay aligned.
        let transfer = 1 << transfer.ilog2();
        // MDTS does not concern Write Zeroes, by the letter; the kernel is as cautious.
        let zeroes = controller.max_write_zeroes.unwrap_or(transfer);
        let blocks = |blocks: u64| blocks.saturating_mul(block);
        // The number of blocks in a range has 32 bits.
        let range = controller.max_deallocate_range.unwrap_or(u32::MAX.into());
        let ranges = controller.max_deallocate_ranges.unwrap_or(MAX_RANGES);
        let deallocate = range.saturating_mul(ranges);
        Ok(Self {
            block,
            transfer,
            write_zeroes: zeroes.min(blocks(MAX_BLOCKS)).max(block) / block * block,
            range: blocks(range),
            deallocate: blocks(controller.max_deallocate.unwrap_or(u64::MAX).min(deallocate)),
            pages,
            gap_mask: kernel.map_or(PAGE - 1, |kernel| kernel.gap_mask),
            boundary: blocks(namespace.optimal_boundary),
        })
    }

    /// How much of `len` bytes from byte `offset` of the namespace on one read or write moves, if it may move `most`;
    /// its memory begins at `from`. `take` gets the segments of the command. Returns its length, and where the memory
    /// of what follows begins.
    ///
    /// The lengths of the segments are multiples of a block, and so is what one command moves.
    pub(crate) fn cut(
        &self,
        offset: u64,
        len: u64,
        most: u64,
        segments: &[iovec],
        from: Position,
        mut take: impl FnMut(iovec),
    ) -> (u64, Position) {
        let to_boundary = match self.boundary {
            0 => u64::MAX,
            boundary => boundary - offset % boundary,
        };
        let most = len.min(most).min(to_boundary);
        let (mut taken, mut pages) = (0, 0);
        let mut at = from;
        // The address behind what was taken.
        let mut end = None;
        while taken < most
            && let Some(segment) = segments.get(at.segment)
        {
            let start = segment.iov_base as u64 + at.skip as u64;
            let part = (segment.iov_len - at.skip) as u64;
            if part == 0 {
                at = Position { segment: at.segment + 1, skip: 0 };
                continue;
            }
            if end.is_some_and(|end| end != start && (end | start) & self.gap_mask != 0) {
                break;
            }
            let within = start % PAGE;
            let room = (self.pages.saturating_sub(pages) * PAGE).saturating_sub(within);
            let part = part.min(most - taken).min(room / self.block * self.block);
            // Something has to move, even where the kernel will then copy it.
            let part = if part == 0 && taken == 0 { self.block.min(most) } else { part };
            if part == 0 {
                break;
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most the rest of the segment")]
            let part_len = part as usize;
            take(iovec {
                iov_base: segment.iov_base.cast::<u8>().wrapping_add(at.skip).cast(),
                iov_len: part_len,
            });
            pages += (within + part).div_ceil(PAGE);
            taken += part;
            end = Some(start + part);
            at.skip += part_len;
            if at.skip < segment.iov_len {
                if taken < most {
                    // It did not all fit.
                    break;
                }
            } else {
                at = Position { segment: at.segment + 1, skip: 0 };
            }
        }
        (taken, at)
    }
}

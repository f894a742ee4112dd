//! The limits of one command, and the rule that splits an op into commands.

use libc::iovec;
use raw_block_core::{Error, ErrorKind};

use crate::identify::{Controller, Namespace, PAGE};
use crate::sysfs::QueueLimits;

/// The most blocks of a command: the field has 16 bits and counts from 0.
const MAX_BLOCKS: u64 = 1 << 16;
/// The longest command, in bytes, even where the device accepts more: longer commands gain nothing.
const MAX_COMMAND: u64 = 1 << 20;
/// The most ranges of a Dataset Management command: the field has 8 bits and counts from 0.
const MAX_RANGES: u64 = 1 << 8;
/// The longest command where the limits of the driver are unknown, in bytes.
const DEFAULT_MAX_TRANSFER: u64 = 128 << 10;
/// The most segments of a command where the limits of the driver are unknown. The driver for PCI
/// takes at least that many, and `DEFAULT_MAX_TRANSFER` needs that many from an address inside a
/// page.
const DEFAULT_MAX_SEGMENTS: u64 = DEFAULT_MAX_TRANSFER / PAGE + 1;

/// The limits of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes in a logical block.
    pub(crate) block: u64,
    /// The most bytes of a read or write: a power of two, at least a block.
    pub(crate) transfer: u64,
    /// The most bytes of a Write Zeroes command.
    pub(crate) write_zeroes: u64,
    /// The most bytes of one range of Dataset Management.
    pub(crate) range: u64,
    /// The most bytes of all ranges of one Dataset Management command.
    pub(crate) deallocate: u64,
    /// The most pages of memory that a read or write touches.
    pub(crate) pages: u64,
    /// Memory may have gaps only at multiples of this plus one (`virt_boundary_mask`); 0: anywhere.
    pub(crate) gap_mask: u64,
    /// Reads and writes that cross multiples of this many bytes are slower; 0: no such boundary.
    pub(crate) boundary: u64,
}

/// The first byte of a command in the memory of its op: the index of a segment, and an offset into
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: usize,
    pub(crate) skip: usize,
}

impl Limits {
    /// Combines the limits of the device, the driver and the user (`max_command`, in bytes).
    pub(crate) fn new(
        controller: &Controller,
        namespace: &Namespace,
        driver: Option<&QueueLimits>,
        max_command: Option<u64>,
    ) -> Result<Self, Error> {
        let block = namespace.block;
        let pages = driver.map_or(DEFAULT_MAX_SEGMENTS, |driver| driver.max_segments);
        let driver_max = match driver {
            Some(driver) => driver.max_hw_bytes.min(pages.saturating_sub(1) * PAGE),
            None => DEFAULT_MAX_TRANSFER,
        };
        let transfer = [
            controller.max_transfer().unwrap_or(u64::MAX),
            driver_max,
            block.saturating_mul(MAX_BLOCKS),
            MAX_COMMAND,
            max_command.unwrap_or(u64::MAX),
        ]
        .into_iter()
        .fold(u64::MAX, u64::min);
        if transfer < block {
            let rule = format!(
                "the limit of {transfer} bytes per command is below the block of {block} bytes: raise the limit"
            );
            return Err(Error::new(ErrorKind::InvalidInput, "open", rule));
        }
        // A power of two, so that all commands of a long op are aligned alike.
        let transfer = 1 << transfer.ilog2();
        // The specification does not apply MDTS to Write Zeroes. The kernel applies it, and so does
        // this.
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
            gap_mask: driver.map_or(PAGE - 1, |driver| driver.gap_mask),
            boundary: blocks(namespace.optimal_boundary),
        })
    }

    /// Cuts the first read or write command, of at most `max_command` bytes, off `len` bytes from
    /// byte `offset` of the namespace on; their memory begins at `from`. Passes the segments of the
    /// command to `take`. Returns the length of the command, and the position in memory of the
    /// rest.
    ///
    /// The lengths of the segments are multiples of a block, and so is the length of the command.
    pub(crate) fn cut(
        &self,
        offset: u64,
        len: u64,
        max_command: u64,
        segments: &[iovec],
        from: Position,
        mut take: impl FnMut(iovec),
    ) -> (u64, Position) {
        let to_boundary = match self.boundary {
            0 => u64::MAX,
            boundary => boundary - offset % boundary,
        };
        let max = len.min(max_command).min(to_boundary);
        let (mut taken, mut pages) = (0, 0);
        let mut at = from;
        // One past the last address of the command.
        let mut end = None;
        while taken < max
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
            let space = (self.pages.saturating_sub(pages) * PAGE).saturating_sub(within);
            let part = part.min(max - taken).min(space / self.block * self.block);
            // A command moves at least one block, even if the kernel then copies it.
            let part = if part == 0 && taken == 0 { self.block.min(max) } else { part };
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
                if taken < max {
                    // The rest of the segment does not fit.
                    break;
                }
            } else {
                at = Position { segment: at.segment + 1, skip: 0 };
            }
        }
        (taken, at)
    }
}

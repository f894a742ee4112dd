//! Scanning segments: from slot header to slot header, with a search where one is missing.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use super::damages::{UnreadableBlock, is_readable};
use crate::Error;
use crate::error::Context;
use crate::format::{Layout, SlotHeader, SlotView};
use crate::mutant::{self, Mutant};

/// Bytes of all buffers.
fn buffers_len() -> usize {
    mutant::limit(16 << 20, 64 << 10)
}

/// Segments that are scanned at once, so that the device has several reads.
fn max_lanes() -> usize {
    mutant::limit(32, 3)
}

/// The most bytes of one read.
fn max_read_len() -> usize {
    mutant::limit(4 << 20, 8 << 10)
}

/// A slot with this many blocks or fewer is followed by others in the same read.
const SHORT_SLOT: u32 = 32;

/// A segment to be scanned.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) segment: u32,
    /// Slots of this generation count.
    pub(super) generation: u64,
    /// Whether slots of that generation do not count either, but those of the newest one that is
    /// found: the segment's header cannot be used, and the segment may have been opened again.
    pub(super) adopt_newer: bool,
    /// The scan ends when it has found entries up to this number.
    pub(super) entries: Option<u32>,
    /// Entries below this number are not newer than the checkpoint.
    pub(super) settled: u32,
}

/// What a scan found besides slots.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    /// Whether slots of a newer generation counted, which the scan was to adopt.
    pub(super) adopted: bool,
    /// The generation of the slots that counted.
    pub(super) generation: u64,
    /// Whether there is a slot of a newer generation, which should not exist.
    pub(super) newer: bool,
    /// The number after the last entry.
    pub(super) entries: u32,
    /// The block after the last slot.
    pub(super) end: u32,
    /// Blocks that cannot be read and may hold the header of a slot that was not found.
    pub(super) unreadable: Vec<UnreadableBlock>,
    /// The same, where that slot is not newer than the checkpoint.
    pub(super) settled: Vec<UnreadableBlock>,
    /// Blocks that cannot be read and hold no header.
    pub(super) harmless: Vec<UnreadableBlock>,
}

/// A scan in progress.
struct Lane {
    at: usize,
    scan: Scan,
    found: ScanResult,
    /// The block that is looked at next.
    next: u32,
    /// Blocks of the last slot.
    last_slot: u32,
    /// Blocks that cannot be read since the last slot.
    pending: Vec<UnreadableBlock>,
}

/// Scans segments, several at once. Calls `slot` with each slot that counts.
///
/// # Errors
/// [`Error::Device`] when the device cannot be used, and the error of `slot`.
pub(super) fn scan(
    dispatcher: &Dispatcher,
    layout: &Layout,
    scans: &[Scan],
    mut slot: impl FnMut(&Scan, &SlotView<'_>) -> Result<(), Error>,
) -> Result<Vec<ScanResult>, Error> {
    let mut results: Vec<ScanResult> = scans.iter().map(|_| ScanResult::default()).collect();
    let mut waiting = scans.iter().enumerate();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut buffer = AlignedBuf::default();
    loop {
        while lanes.len() < max_lanes()
            && let Some((at, scan)) = waiting.next()
        {
            lanes.push(Lane::new(at, scan.clone()));
        }
        if lanes.is_empty() {
            return Ok(results);
        }
        if buffer.is_empty() {
            buffer = AlignedBuf::zeroed(buffers_len()).context(SCAN)?;
        }
        let most = (buffers_len() / lanes.len()).min(max_read_len()) / layout.block_size as usize;
        let most = u32::try_from(most.max(1)).unwrap_or(u32::MAX);
        let blocks: Vec<u32> = lanes.iter().map(|lane| lane.blocks_to_read(layout, most)).collect();
        let readable = read(dispatcher, layout, &lanes, &blocks, &mut buffer)?;
        let mut rest = &buffer[..];
        for ((lane, blocks), readable) in lanes.iter_mut().zip(&blocks).zip(readable) {
            let (bytes, left) = rest.split_at(*blocks as usize * layout.block_size as usize);
            rest = left;
            lane.look(layout, bytes, readable, &mut slot)?;
        }
        lanes.retain_mut(|lane| {
            let is_done = lane.is_done(layout);
            if is_done {
                lane.found.unreadable.append(&mut lane.pending);
                lane.found.generation = lane.scan.generation;
                results[lane.at] = std::mem::take(&mut lane.found);
            }
            !is_done
        });
    }
}

const SCAN: &str = "scan a segment";

/// Whether each block of a read can be read; without errors if all can.
type UnreadableBlocks = Vec<(u32, raw_block_core::Error)>;

/// Reads the next blocks of each lane, into consecutive parts of the buffer. Where that fails,
/// reads block by block.
fn read(
    dispatcher: &Dispatcher,
    layout: &Layout,
    lanes: &[Lane],
    blocks: &[u32],
    buffer: &mut [u8],
) -> Result<Vec<UnreadableBlocks>, Error> {
    let block_size = layout.block_size as usize;
    let mut parts = Vec::with_capacity(lanes.len());
    let mut rest = buffer;
    for &blocks in blocks {
        let (part, left) = rest.split_at_mut(blocks as usize * block_size);
        rest = left;
        parts.push(part);
    }
    let offset = |lane: &Lane, block: u32| layout.block_offset(lane.scan.segment, block);
    let mut reads: Vec<_> = lanes
        .iter()
        .zip(&mut parts)
        .map(|(lane, part)| ReadAt::new(offset(lane, lane.next), part))
        .collect();
    let results = dispatcher.read_buffers(&mut reads);
    drop(reads);
    let mut readable = Vec::with_capacity(lanes.len());
    for ((lane, part), result) in lanes.iter().zip(parts).zip(results) {
        let Err(error) = is_readable(result)? else {
            readable.push(Vec::new());
            continue;
        };
        if part.len() == block_size {
            readable.push(vec![(lane.next, error)]);
            continue;
        }
        let mut reads: Vec<_> = (lane.next..)
            .zip(part.chunks_exact_mut(block_size))
            .map(|(block, bytes)| ReadAt::new(offset(lane, block), bytes))
            .collect();
        let results = dispatcher.read_buffers(&mut reads);
        let mut errors = Vec::new();
        for (block, result) in (lane.next..).zip(results) {
            if let Err(error) = is_readable(result)? {
                errors.push((block, error));
            }
        }
        readable.push(errors);
    }
    Ok(readable)
}

impl Lane {
    fn new(at: usize, scan: Scan) -> Self {
        let found = ScanResult { end: 1, ..ScanResult::default() };
        Self { at, scan, found, next: 1, last_slot: 0, pending: Vec::new() }
    }

    /// The last block at which the next slot can begin: no slot is allocated further past an
    /// incomplete one, or where the table lies that has its entry.
    fn limit(&self, layout: &Layout) -> u32 {
        let table = layout.table_block(self.found.entries.saturating_add(1));
        self.found.end.saturating_add(layout.window()).min(table.saturating_sub(1))
    }

    fn is_done(&self, layout: &Layout) -> bool {
        let found_all = self.scan.entries.is_some_and(|entries| self.found.entries >= entries);
        let missing = self.next > self.found.end && Mutant::NoSearchForHeaders.is_on();
        found_all || missing || self.next > self.limit(layout)
    }

    /// How many blocks to read: one after a long slot, as many as possible where slots are short or
    /// a header is missing.
    fn blocks_to_read(&self, layout: &Layout, most: u32) -> u32 {
        let is_search = self.next > self.found.end;
        let wanted = if self.last_slot > SHORT_SLOT && !is_search { 1 } else { most };
        let end = if is_search { self.limit(layout) + 1 } else { layout.segment_blocks };
        wanted.min(end - self.next)
    }

    /// Looks at blocks that were read.
    fn look(
        &mut self,
        layout: &Layout,
        bytes: &[u8],
        unreadable: UnreadableBlocks,
        slot: &mut impl FnMut(&Scan, &SlotView<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let first = self.next;
        let block_size = layout.block_size as usize;
        let mut unreadable = unreadable.into_iter().peekable();
        while let Some(bytes) = bytes.get((self.next - first) as usize * block_size..)
            && bytes.len() >= block_size
            && !self.is_done(layout)
        {
            // Unreadable blocks inside a slot that was found are payload.
            while unreadable.next_if(|(block, _)| *block < self.next).is_some() {}
            if let Some((block, error)) = unreadable.next_if(|(block, _)| *block == self.next) {
                self.pending.push(UnreadableBlock { segment: self.scan.segment, block, error });
                self.next += 1;
                continue;
            }
            let view = SlotHeader::read(&bytes[..block_size], layout, self.scan.segment, self.next);
            match view {
                Ok(view) if self.counts(&view) => {
                    self.take(&view);
                    slot(&self.scan, &view)?;
                }
                _ => self.next += 1,
            }
        }
        Ok(())
    }

    /// Whether a slot belongs to the segment as it is now.
    fn counts(&mut self, view: &SlotView<'_>) -> bool {
        let generation = view.header.generation.get();
        if self.scan.adopt_newer && generation > self.scan.generation {
            // Slots of an older one that was lost may lie before it.
            self.scan.generation = generation;
            (self.found.adopted, self.found.entries) = (true, 0);
        }
        if self.scan.adopt_newer && !self.found.adopted {
            return false;
        }
        self.found.newer |= generation > self.scan.generation;
        let is_its = generation == self.scan.generation || Mutant::SlotGenerationUnchecked.is_on();
        // Numbers grow along the segment.
        is_its && view.header.first_entry.get() >= self.found.entries
    }

    fn take(&mut self, view: &SlotView<'_>) {
        let first = view.header.first_entry.get();
        // Without a gap in the numbers no slot is missing.
        let to = if first <= self.found.entries {
            &mut self.found.harmless
        } else if first <= self.scan.settled {
            &mut self.found.settled
        } else {
            &mut self.found.unreadable
        };
        to.append(&mut self.pending);
        self.last_slot = view.header.blocks.get();
        self.found.entries = first + view.entry_numbers();
        self.next += self.last_slot;
        self.found.end = self.next;
    }
}

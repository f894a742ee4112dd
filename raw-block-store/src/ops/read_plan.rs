//! Which transfers read a batch of objects.

use std::ops::Range;

use raw_block_core::ReadAt;

use crate::format::Layout;
use crate::state::index::Located;

/// An object to read, in a segment that is not opened again in the meantime.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadTarget {
    pub(super) located: Located,
    pub(super) generation: u64,
}

impl ReadTarget {
    /// The slot of the object: its segment, and the block of its header.
    pub(super) fn slot(&self) -> (u32, u32) {
        (self.located.place.segment, self.located.entry.header_block())
    }
}

/// An object that is being read.
pub(super) struct Reading<'a> {
    /// Its position in the batch.
    pub(super) get: usize,
    pub(super) target: ReadTarget,
    /// Gets an inline payload.
    pub(super) inline: &'a mut [u8],
    /// Gets the metadata, unless it is empty.
    pub(super) metadata: &'a mut [u8],
    /// Whether the payload is verified.
    pub(super) verify: bool,
}

/// What a transfer reads.
pub(super) enum ReadPart {
    /// The payload of an object: a position in [`ReadPlan::readings`].
    Payload(usize),
    /// The header of a slot, for objects in it: positions in [`ReadPlan::with_header`].
    Header(Range<usize>),
}

/// The transfers of a batch. The header of a slot is one of them, however many objects need it.
pub(super) struct ReadPlan<'a> {
    pub(super) readings: Vec<Reading<'a>>,
    /// The readings that need the header of their slot.
    pub(super) with_header: Vec<usize>,
    pub(super) reads: Vec<ReadAt<'a>>,
    /// What each transfer of `reads` reads.
    pub(super) parts: Vec<ReadPart>,
}

impl<'a> ReadPlan<'a> {
    /// An empty plan for this many objects.
    pub(super) fn new(objects: usize) -> Self {
        Self {
            readings: Vec::with_capacity(objects),
            with_header: Vec::new(),
            reads: Vec::with_capacity(objects),
            parts: Vec::with_capacity(objects),
        }
    }

    /// Adds the transfer of the payload of the object that is added next.
    pub(super) fn add_payload(&mut self, read: ReadAt<'a>) {
        self.reads.push(read);
        self.parts.push(ReadPart::Payload(self.readings.len()));
    }

    /// Adds an object that needs the header of its slot, or does not.
    pub(super) fn add(&mut self, reading: Reading<'a>, header: bool) {
        if header {
            self.with_header.push(self.readings.len());
        }
        self.readings.push(reading);
    }

    /// Sorts the objects that need headers by slot. Returns how many slots there are.
    pub(super) fn sort_by_slot(&mut self) -> usize {
        let Self { with_header, readings, .. } = self;
        with_header.sort_unstable_by_key(|&reading| readings[reading].target.slot());
        let slot = |&reading: &usize| readings[reading].target.slot();
        with_header.chunk_by(|one, next| slot(one) == slot(next)).count()
    }

    /// Adds the transfer of each header, into a block of `memory`, after
    /// [`sort_by_slot`](Self::sort_by_slot).
    pub(super) fn add_headers(&mut self, layout: &Layout, memory: &'a mut [u8]) {
        let Self { with_header, readings, reads, parts } = self;
        let slot = |&reading: &usize| readings[reading].target.slot();
        let slots = with_header.chunk_by(|one, next| slot(one) == slot(next));
        let mut end = 0;
        for (of_slot, block) in slots.zip(memory.chunks_exact_mut(layout.block_size as usize)) {
            let (segment, number) = slot(&of_slot[0]);
            reads.push(ReadAt::new(layout.block_offset(segment, number), block));
            parts.push(ReadPart::Header(end..end + of_slot.len()));
            end += of_slot.len();
        }
    }
}

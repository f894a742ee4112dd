//! What a scrub verifies: the live entries of the segments, some thousand at a time.

use std::ops::Range;

use crate::mutant;
use crate::state::StoreState;
use crate::state::index::{Located, Place};

/// Entries of a window.
fn window_len() -> usize {
    mutant::limit(4096, 4)
}

/// Live entries of a segment, and where they lie in it.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) segment: u32,
    pub(super) generation: u64,
    /// In the order of their numbers, which is that of their blocks.
    pub(super) entries: Vec<Located>,
    /// In the order of their blocks.
    pub(super) items: Vec<Item>,
}

/// Consecutive blocks of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) block: u32,
    pub(super) blocks: u32,
    pub(super) content: Content,
}

/// What blocks hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    SegmentHeader,
    /// A slot header that names these entries of the window, perhaps with an inline payload.
    SlotHeader(Range<usize>),
    /// The payload of this entry of the window.
    Payload(usize),
}

/// The windows of all segments. None of them keeps its segment from being reclaimed.
pub(super) struct Windows<'a> {
    state: &'a StoreState,
    segment: u32,
    number: u32,
}

impl<'a> Windows<'a> {
    pub(super) fn new(state: &'a StoreState) -> Self {
        Self { state, segment: 0, number: 0 }
    }

    /// The next entries of the segment, at most one window, with its generation.
    fn entries(&mut self) -> Option<(u64, Vec<Located>)> {
        let (state, segment) = (self.state, self.segment);
        let guard = loop {
            let since = state.readers.begin();
            match state.read_segment(segment, since) {
                Some(guard) => break guard,
                None if state.readers.generation(segment) == 0 => return None,
                // Another segment was closed.
                None => {}
            }
        };
        let mut entries = Vec::new();
        let first = self.number;
        let last = state.index.for_live_from(segment, first, window_len(), |number, entry| {
            entries.push(Located { place: Place { segment, number }, entry });
        });
        self.number = last?;
        Some((guard.generation, entries))
    }
}

impl Iterator for Windows<'_> {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        while self.segment < self.state.layout.segment_count {
            let (segment, is_first) = (self.segment, self.number == 0);
            match self.entries() {
                Some((generation, entries)) => {
                    let items = items(&entries, is_first, self.state.layout.block_size);
                    return Some(Window { segment, generation, entries, items });
                }
                None => (self.segment, self.number) = (segment + 1, 0),
            }
        }
        None
    }
}

/// Where entries lie, each header once.
fn items(entries: &[Located], is_first: bool, block_size: u32) -> Vec<Item> {
    let mut items = Vec::new();
    if is_first {
        items.push(Item { block: 0, blocks: 1, content: Content::SegmentHeader });
    }
    let mut first = 0;
    for of_slot in entries.chunk_by(|a, b| a.entry.header_block() == b.entry.header_block()) {
        let content = Content::SlotHeader(first..first + of_slot.len());
        items.push(Item { block: of_slot[0].entry.header_block(), blocks: 1, content });
        for (at, object) in (first..).zip(of_slot) {
            let (block, blocks) =
                (object.entry.block.get(), object.entry.payload_blocks(block_size));
            if blocks > 0 {
                items.push(Item { block, blocks, content: Content::Payload(at) });
            }
        }
        first += of_slot.len();
    }
    items
}

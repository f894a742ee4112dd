//! One segment: its state, its fill position, and its live contents.

use super::in_flight::Slots;
use super::shape::{Demand, Fit, Shape};
pub(crate) use crate::format::Stream;

/// The state of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// It may be opened.
    Free,
    /// It is free, and the device is discarding it.
    Discarding,
    /// It is being filled.
    Open,
    /// Nothing more is allocated in it.
    Full,
    /// A committed checkpoint released it. Its objects may still be in the index, read or pinned.
    Draining,
    /// It is in quarantine and empty: it is not opened again.
    Bad,
}

/// Whether the header of an open or full segment is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    /// Its write is in flight. Nothing in the segment may be published.
    Writing,
    /// It is written.
    Written,
    /// Its write failed. Nothing in the segment counts.
    Failed,
}

/// The live contents of one segment or several. Objects in flight count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Objects.
    pub(crate) objects: u64,
    /// Bytes of their payloads.
    pub(crate) payload_bytes: u64,
    /// Bytes of slot headers for the objects that share slots.
    pub(super) shared_header_bytes: u64,
    /// Blocks of their payloads.
    pub(super) shared_blocks: u64,
    /// Blocks of objects with their own slots, headers included.
    pub(super) other_blocks: u64,
}

impl Live {
    pub(super) fn of(demand: Demand, shape: &Shape) -> Self {
        Self::of_fit(demand, shape.fit(demand))
    }

    pub(super) fn of_fit(demand: Demand, fit: Fit) -> Self {
        let one = Self { objects: 1, payload_bytes: demand.payload_len.into(), ..Self::default() };
        if fit.shared {
            let (header_bytes, blocks) = (fit.header_bytes.into(), fit.blocks.into());
            Self { shared_header_bytes: header_bytes, shared_blocks: blocks, ..one }
        } else {
            Self { other_blocks: 1 + u64::from(fit.blocks), ..one }
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.payload_bytes += other.payload_bytes;
        self.shared_header_bytes += other.shared_header_bytes;
        self.shared_blocks += other.shared_blocks;
        self.other_blocks += other.other_blocks;
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        debug_assert!(self.objects >= other.objects, "an object is dropped twice");
        self.objects = self.objects.saturating_sub(other.objects);
        self.payload_bytes = self.payload_bytes.saturating_sub(other.payload_bytes);
        self.shared_header_bytes =
            self.shared_header_bytes.saturating_sub(other.shared_header_bytes);
        self.shared_blocks = self.shared_blocks.saturating_sub(other.shared_blocks);
        self.other_blocks = self.other_blocks.saturating_sub(other.other_blocks);
    }

    /// Blocks that the objects take when they are moved together: at least this many. An object
    /// without payload counts as a block, because a segment has no more entries than blocks.
    pub(crate) fn blocks_together(&self, shape: &Shape) -> u64 {
        let by_names = self.shared_header_bytes.div_ceil(shape.header_capacity.max(1).into());
        let by_blocks = self.shared_blocks.div_ceil(shape.shared_blocks.max(1).into());
        let blocks = self.shared_blocks + self.other_blocks + by_names.max(by_blocks);
        blocks.max(self.objects)
    }
}

/// The fill position of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) next_block: u32,
    pub(super) entries: u32,
}

impl Fill {
    /// A segment with only its header.
    pub(super) const EMPTY: Self = Self { next_block: 1, entries: 0 };

    /// Blocks that a slot with this number of entries may have in the rest of the segment.
    pub(super) fn left(self, entries: u32, shape: &Shape) -> u32 {
        let entries = self.entries.saturating_add(entries);
        if entries > shape.segment_blocks {
            return 0;
        }
        let used = self.next_block.saturating_add(shape.table_blocks(entries));
        shape.segment_blocks.saturating_sub(used)
    }
}

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) state: SegmentState,
    /// What it is, or was, filled with.
    pub(super) stream: Stream,
    /// The sequence that it got when it was last opened; 0 if it never was.
    pub(super) generation: u64,
    /// The generation before that.
    pub(super) previous_generation: u64,
    pub(super) fill: Fill,
    /// The highest sequence in it, its generation included.
    pub(super) highest: u64,
    pub(super) header: HeaderState,
    pub(super) slots: Slots,
    pub(super) live: Live,
    /// Tombstones in it that no committed checkpoint covers.
    pub(super) tombstones: u32,
    /// The number of the checkpoint that wrote its table; 0 if it has none.
    pub(super) table: u64,
    /// The value of the store's clock when it was opened or last kept as it is, in blocks.
    pub(super) opened_at: u64,
    /// Whether it was kept as it is when it was the oldest.
    pub(super) kept: bool,

    /// The last choice of a checkpoint before which something was moved into it.
    pub(super) moved_before: u64,
    /// Media errors in this generation that a later write confirmed, and in the one before.
    pub(super) errors: u32,
    pub(super) earlier_errors: u32,
    /// In quarantine: it is emptied, and not opened again.
    pub(super) bad: bool,
    /// The next checkpoint releases it with what is live in it.
    pub(super) victim: bool,
    /// What is live in it was to be moved, and that would have yielded too little.
    pub(super) futile: bool,
    /// The same, although only what the policy keeps or is pinned was to be moved: it is not
    /// evicted either.
    pub(super) stuck: bool,
    /// Pinned versions in it.
    pub(super) pins: u32,
    /// Pinned versions in it that were overwritten or deleted.
    pub(super) old_pins: u32,
    /// The number of the checkpoint that released it.
    pub(super) released_by: u64,
    /// While it is free: whether the device discarded it.
    pub(super) discarded: bool,
    /// While it drains: whether a thread is removing its objects from the index.
    pub(super) emptying: bool,
    /// While it drains: whether the index shows nothing in it any more, and since which sequence.
    pub(super) emptied_at: Option<u64>,
    /// While it drains: whether callers stopped waiting for its gets, because they take too long.
    pub(super) overdue: bool,
}

impl Segment {
    /// A segment that was never opened.
    pub(super) fn free() -> Self {
        Self {
            state: SegmentState::Free,
            stream: Stream::New,
            generation: 0,
            previous_generation: 0,
            fill: Fill::EMPTY,
            highest: 0,
            header: HeaderState::Written,
            slots: Slots::default(),
            live: Live::default(),
            tombstones: 0,
            table: 0,
            opened_at: 0,
            kept: false,
            moved_before: 0,
            errors: 0,
            earlier_errors: 0,
            bad: false,
            victim: false,
            futile: false,
            stuck: false,
            pins: 0,
            old_pins: 0,
            released_by: 0,
            discarded: false,
            emptying: false,
            emptied_at: None,
            overdue: false,
        }
    }

    /// Whether nothing in it is live.
    pub(super) fn is_dead(&self) -> bool {
        self.live.objects == 0
    }

    /// Whether the policy chose what is in it to be kept.
    pub(super) fn is_kept(&self) -> bool {
        self.kept || self.stream == Stream::Kept
    }

    /// Whether something in it is in flight, its header included.
    pub(super) fn is_in_flight(&self) -> bool {
        !self.slots.is_empty() || self.header == HeaderState::Writing
    }
}

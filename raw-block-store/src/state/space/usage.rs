//! The use of the space, for statistics.

use super::segment::{Live, SegmentState};
use super::{RESERVE, Space};

/// The use of the space at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) segments: u64,
    pub(crate) free: u64,
    pub(crate) open: u64,
    pub(crate) full: u64,
    pub(crate) draining: u64,
    /// In quarantine, empty or not.
    pub(crate) bad: u64,
    /// With the payloads of what is in flight.
    pub(crate) payload_bytes: u64,
    /// Those in full segments.
    pub(crate) full_payload_bytes: u64,
    /// Bytes that can be put before something is evicted, or the store is full.
    pub(crate) bytes_left: u64,
    pub(crate) pinned_versions: u64,
}

impl Space {
    /// The use of the space.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage {
            segments: self.segments.len() as u64,
            pinned_versions: self.pins.len() as u64,
            ..Usage::default()
        };
        let mut live = Live::default();
        for segment in &self.segments {
            live.add(&segment.live);
            if segment.state == SegmentState::Full {
                usage.full_payload_bytes += segment.live.payload_bytes;
            }
            usage.bad += u64::from(segment.bad);
            *match segment.state {
                SegmentState::Free | SegmentState::Discarding => &mut usage.free,
                SegmentState::Open => &mut usage.open,
                SegmentState::Full => &mut usage.full,
                SegmentState::Draining => &mut usage.draining,
                SegmentState::Bad => continue,
            } += 1;
        }
        usage.payload_bytes = live.payload_bytes;
        // Segments that are never filled, because moves need them.
        let kept = u64::from(RESERVE) + 1 + usage.bad;
        let blocks = u64::from(self.shape.segment_blocks.saturating_sub(2));
        let usable = usage.segments.saturating_sub(kept) * blocks;
        // Garbage that does not justify a move stays.
        let usable = if self.evicts() { usable } else { usable - usable / 16 };
        let left = usable.saturating_sub(live.blocks_together(&self.shape));
        usage.bytes_left = left * u64::from(self.shape.block_size);
        usage
    }
}

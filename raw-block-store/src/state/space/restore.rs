//! Restores the space of a store from what was found on a device.

use super::segment::{Fill, HeaderState, Live, Segment, SegmentState, Stream};
use super::{CommittedCheckpoint, Demand, OpenedSegment, Shape, Space};
use crate::options::EvictionPolicy;
use crate::state::index::{Located, Place};

/// What was found on a device.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpaceImage {
    /// Of each segment, in order.
    pub(crate) segments: Vec<SegmentImage>,
    /// Tombstones that the committed checkpoint does not cover: sequence and place.
    pub(crate) tombstones: Vec<(u64, Place)>,
    pub(crate) committed: CommittedCheckpoint,
    pub(crate) next_sequence: u64,
}

/// What was found of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentImage {
    /// Its last generation; 0 if it was never opened.
    pub(crate) generation: u64,
    /// Whether its entries count. It is full then, or open.
    pub(crate) used: bool,
    /// Whether it is filled further: only after an orderly end.
    pub(crate) open: bool,
    pub(crate) stream: Stream,
    pub(crate) entries: u32,
    pub(crate) next_block: u32,
    /// The highest sequence found in it.
    pub(crate) highest: u64,
    /// The number of the checkpoint that wrote its table; 0 if it has none.
    pub(crate) table: u64,
    /// In quarantine.
    pub(crate) bad: bool,
    /// What is live in it; see [`Space::count_live`].
    pub(crate) live: Live,
}

impl Default for SegmentImage {
    fn default() -> Self {
        Self {
            generation: 0,
            used: false,
            open: false,
            stream: Stream::New,
            entries: 0,
            next_block: 1,
            highest: 0,
            table: 0,
            bad: false,
            live: Live::default(),
        }
    }
}

impl SegmentImage {
    /// Counts a live object.
    pub(crate) fn count_live(&mut self, object: &Located, shape: &Shape) {
        self.live.add(&Live::of(Demand::of(&object.entry), shape));
    }
}

impl Space {
    /// What the header of a full segment says that a recovery found without one.
    pub(crate) fn lost_header(&self, number: u32) -> Option<OpenedSegment> {
        let segment =
            self.segment(number).filter(|of| of.state == SegmentState::Full && !of.bad)?;
        let Segment { generation, stream, .. } = *segment;
        Some(OpenedSegment {
            segment: number,
            generation,
            stream,
            checkpoint: self.committed.number,
        })
    }

    /// Restores the space of a store from what was found on a device.
    pub(crate) fn restore(shape: Shape, eviction: EvictionPolicy, found: SpaceImage) -> Self {
        let mut space = Self::new(shape, eviction, found.committed, found.next_sequence);
        space.free.clear();
        for (number, (segment, found)) in (0..).zip(space.segments.iter_mut().zip(found.segments)) {
            let state = match found {
                SegmentImage { used: true, open: true, .. } => SegmentState::Open,
                SegmentImage { used: true, .. } => SegmentState::Full,
                SegmentImage { bad: true, .. } => SegmentState::Bad,
                _ => SegmentState::Free,
            };
            *segment = Segment {
                state,
                stream: found.stream,
                generation: found.generation,
                bad: found.bad,
                released_by: found_in(found.used, space.committed),
                ..Segment::free()
            };
            match state {
                SegmentState::Free => space.free.push_back(number),
                SegmentState::Bad => {}
                _ => {
                    segment.fill =
                        Fill { next_block: found.next_block.max(1), entries: found.entries };
                    segment.highest = found.highest.max(found.generation);
                    segment.header = HeaderState::Written;
                    segment.live = found.live;
                    segment.table = found.table;
                    space.readers.open(number, found.generation);
                }
            }
            if state == SegmentState::Open {
                space.open[found.stream as usize].push(number);
            }
        }
        for stream in Stream::ALL {
            while space.open_in(stream).len() > shape.open_limit() {
                let last = space.open[stream as usize][0];
                space.seal(last);
            }
        }
        space.restore_ages();
        space.tombstones = found.tombstones.into();
        space.tombstones.make_contiguous().sort_unstable_by_key(|&(sequence, _)| sequence);
        for at in 0..space.tombstones.len() {
            let (_, place) = space.tombstones[at];
            space.count_tombstones(place.segment, 1);
        }
        space
    }

    /// Sets the clock as if the segments in use had been filled sequentially.
    fn restore_ages(&mut self) {
        let used = self.numbered().filter(|(_, segment)| segment.state != SegmentState::Free);
        let mut used: Vec<(u64, u32)> =
            used.map(|(number, segment)| (segment.generation, number)).collect();
        used.sort_unstable();
        for (_, number) in used {
            self.segments[number as usize].opened_at = self.clock;
            self.clock += u64::from(self.shape.segment_blocks);
        }
    }
}

/// The checkpoint in which a free segment is free.
fn found_in(used: bool, committed: CommittedCheckpoint) -> u64 {
    if used { 0 } else { committed.number }
}

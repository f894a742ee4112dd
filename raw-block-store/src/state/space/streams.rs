//! Open segments: which one a slot uses, and when another one is opened.

use super::Space;
use super::allocation::{OpenedSegment, Purpose, Shortage, Source};
use super::segment::{HeaderState, Segment, SegmentState, Stream};
use crate::mutant::Mutant;

impl Space {
    /// A segment with space for a slot of this number of blocks: the fullest open one, or a new
    /// one.
    pub(super) fn fit(
        &mut self,
        blocks: u32,
        source: Source,
        purpose: Purpose,
    ) -> Result<(u32, Option<OpenedSegment>), Shortage> {
        let mut beyond_window = false;
        for &stream in source.streams {
            let mut best: Option<(u32, u32)> = None;
            for &number in self.open_in(stream) {
                let segment = &self.segments[number as usize];
                let left = segment.fill.left(1, &self.shape);
                if left < blocks {
                    continue;
                }
                if purpose != Purpose::Move && !self.is_within_window(segment, blocks) {
                    beyond_window = true;
                } else if best.is_none_or(|(least, _)| left < least) {
                    best = Some((left, number));
                }
            }
            if let Some((_, number)) = best {
                return Ok((number, None));
            }
        }
        if blocks > self.shape.largest_slot() {
            return Err(Shortage::Full);
        }
        let stream = source.streams[source.streams.len() - 1];
        if stream == Stream::New
            && let Some(ahead) = self.ahead.take()
        {
            self.seal_at_limit(stream);
            self.open[stream as usize].push(ahead);
            return Ok((ahead, None));
        }
        let is_at_limit = self.open_in(stream).len() >= self.shape.open_limit();
        if beyond_window && (is_at_limit || self.free.len() <= source.spare) {
            return Err(Shortage::Wait);
        }
        if self.free.len() <= source.spare {
            return Err(self.shortage());
        }
        self.open_segment(stream).ok_or(Shortage::Wait)
    }

    /// Whether a slot may begin at the next block, so that a search for headers ends soon.
    ///
    /// Moves need no window. Nothing else goes to their segments, what is in them counts only if a
    /// checkpoint names it, and that waits for all moves: so no search passes a missing header to
    /// find what counts.
    fn is_within_window(&self, segment: &Segment, blocks: u32) -> bool {
        let Some(lowest) = segment.slots.lowest_block() else { return true };
        let past = segment.fill.next_block - lowest;
        let within = past <= self.shape.window && blocks <= self.shape.window;
        within || Mutant::AllocatedPastWindow.is_on()
    }

    /// Opens a segment for puts ahead of need, if there are enough free ones. The caller writes its
    /// header.
    pub(crate) fn open_ahead(&mut self) -> Option<OpenedSegment> {
        let is_ample = self.free_for_puts() > 0;
        if !self.is_large() || self.ahead.is_some() || !is_ample {
            return None;
        }
        let number = self.free.pop_front()?;
        self.ahead = Some(number);
        self.changed();
        Some(self.open_free(number, Stream::New))
    }

    /// Opens a free segment, and seals the fullest of its stream if as many are open as may be.
    fn open_segment(&mut self, stream: Stream) -> Option<(u32, Option<OpenedSegment>)> {
        let number = self.free.pop_front()?;
        self.seal_at_limit(stream);
        self.open[stream as usize].push(number);
        Some((number, Some(self.open_free(number, stream))))
    }

    fn seal_at_limit(&mut self, stream: Stream) {
        let shape = self.shape;
        if self.open_in(stream).len() >= shape.open_limit() {
            let left = |&&open: &&u32| self.segments[open as usize].fill.left(1, &shape);
            if let Some(&fullest) = self.open_in(stream).iter().min_by_key(left) {
                self.seal(fullest);
            }
        }
    }

    fn open_free(&mut self, number: u32, stream: Stream) -> OpenedSegment {
        let generation = self.give_sequence();
        let segment = &mut self.segments[number as usize];
        *segment = Segment {
            state: SegmentState::Open,
            stream,
            generation,
            previous_generation: segment.generation,
            earlier_errors: segment.errors,
            highest: generation,
            header: HeaderState::Writing,
            opened_at: self.clock,
            released_by: segment.released_by,
            ..Segment::free()
        };
        self.opened_since_choice += 1;
        self.opened_for_puts += u64::from(stream != Stream::Kept);
        self.readers.open(number, generation);
        let checkpoint = self.committed.number;
        OpenedSegment { segment: number, generation, stream, checkpoint }
    }

    /// Allocates nothing more in a segment.
    pub(super) fn seal(&mut self, number: u32) {
        for open in &mut self.open {
            open.retain(|&other| other != number);
        }
        self.ahead.take_if(|ahead| *ahead == number);
        if let Some(segment) = self.segment_mut(number)
            && segment.state == SegmentState::Open
        {
            segment.state = SegmentState::Full;
        }
    }
}

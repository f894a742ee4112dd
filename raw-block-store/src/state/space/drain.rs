//! From a released segment to a free one.

use super::Space;
use super::segment::{Live, Segment, SegmentState};
use crate::mutant::Mutant;

impl Space {
    /// The index shows nothing of a draining segment. Changes that are in flight now may still
    /// report what they replaced in it.
    pub(crate) fn emptied(&mut self, number: u32) {
        let next_sequence = self.next_sequence;
        if let Some(segment) = self.segment_mut(number)
            && segment.state == SegmentState::Draining
        {
            segment.emptied_at = Some(next_sequence);
            segment.emptying = false;
        }
        self.changed();
    }

    /// A draining segment has pinned objects that could not be moved. They stay in the index.
    pub(crate) fn left_pinned(&mut self, number: u32) {
        if let Some(segment) = self.segment_mut(number) {
            segment.emptying = false;
        }
        self.changed();
    }

    /// Which of the segments that a commit released have objects that the index may still show.
    pub(crate) fn emptying(&self, released: &[u32]) -> Vec<u32> {
        let is_emptying = |&&number: &&u32| self.segment(number).is_some_and(|of| of.emptying);
        released.iter().filter(is_emptying).copied().collect()
    }

    /// The draining segments that pinned objects keep.
    pub(crate) fn kept_by_pins(&self) -> Vec<u32> {
        let is_kept = |&&number: &&u32| {
            let segment = &self.segments[number as usize];
            segment.emptied_at.is_none() && !segment.emptying && segment.pins > 0
        };
        self.draining.iter().filter(is_kept).copied().collect()
    }

    /// Takes the draining segments that were opened before this sequence and whose objects are left
    /// in the index, pinned or not: to be [emptied](Self::emptied). With them those that another
    /// thread empties now.
    pub(crate) fn take_all_to_empty(&mut self, before: u64) -> (Vec<u32>, Vec<u32>) {
        let mut taken = (Vec::new(), Vec::new());
        for &number in &self.draining {
            let segment = &mut self.segments[number as usize];
            if segment.generation >= before || segment.emptied_at.is_some() {
                continue;
            }
            if std::mem::replace(&mut segment.emptying, true) {
                taken.1.push(number);
            } else {
                taken.0.push(number);
            }
        }
        taken
    }

    /// Takes a draining segment whose objects are left in the index and not pinned any more. The
    /// caller does with it as after a [commit](Self::commit_checkpoint).
    pub(crate) fn take_to_empty(&mut self) -> Option<u32> {
        let is_left = |&number: &u32| {
            let segment = &self.segments[number as usize];
            segment.emptied_at.is_none() && !segment.emptying && segment.pins == 0
        };
        let number = self.draining.iter().copied().find(is_left)?;
        self.segments[number as usize].emptying = true;
        Some(number)
    }

    /// Whether [`take_drained`](Self::take_drained) may have something to take.
    pub(crate) fn may_have_drained(&self) -> bool {
        let oldest = self.oldest_in_flight();
        self.draining.iter().any(|&number| {
            let segment = &self.segments[number as usize];
            segment.pins == 0 && segment.emptied_at.is_some_and(|at| at <= oldest)
        })
    }

    /// Takes the draining segments that nothing keeps: no change, no get and no pin. The caller
    /// releases their entries in the index, and then reports each with [`freed`](Self::freed).
    pub(crate) fn take_drained(&mut self) -> Vec<u32> {
        let mut drained = Vec::new();
        if self.draining.is_empty() {
            return drained;
        }
        let oldest = self.oldest_in_flight();
        let mut draining = std::mem::take(&mut self.draining);
        draining.retain(|&number| {
            let segment = &self.segments[number as usize];
            let is_left = segment.emptied_at.is_none_or(|at| at > oldest)
                || segment.pins > 0 && !Mutant::ReopenedWhilePinned.is_on()
                || !self.readers.close(number);
            if !is_left {
                drained.push(number);
            }
            is_left
        });
        self.draining = draining;
        self.releasing += drained.len();
        drained
    }

    /// Waits no longer for the gets that keep draining segments from being free: other segments are
    /// reclaimed in their place. Returns whether there were any.
    pub(crate) fn stop_waiting_for_gets(&mut self) -> bool {
        let mut any = false;
        for &number in &self.draining {
            if self.readers.is_closed_and_read(number) {
                let segment = &mut self.segments[number as usize];
                any |= !std::mem::replace(&mut segment.overdue, true);
            }
        }
        if any {
            self.changed();
        }
        any
    }

    /// Draining segments that will be free soon without further work.
    pub(super) fn about_to_be_free(&self) -> usize {
        self.releasing + self.coming().filter(|segment| !segment.overdue).count()
    }

    /// Those that gets keep from being free for long.
    pub(super) fn overdue(&self) -> usize {
        self.coming().filter(|segment| segment.overdue).count()
    }

    fn coming(&self) -> impl Iterator<Item = &Segment> {
        let segments = self.draining.iter().map(|&number| &self.segments[number as usize]);
        segments.filter(|segment| {
            segment.pins == 0 && !segment.bad && (segment.emptying || segment.emptied_at.is_some())
        })
    }

    /// The index has released the entries of a segment that drained: it is free, or empty in
    /// quarantine.
    pub(crate) fn freed(&mut self, number: u32) {
        let Some(segment) = self.segments.get_mut(number as usize) else { return };
        if segment.state != SegmentState::Draining {
            return;
        }
        self.releasing = self.releasing.saturating_sub(1);
        let Segment { generation, released_by, bad, errors, .. } = *segment;
        let state = if bad { SegmentState::Bad } else { SegmentState::Free };
        *segment = Segment { generation, released_by, bad, errors, state, ..Segment::free() };
        debug_assert_eq!(segment.live, Live::default());
        if !bad {
            self.free.push_back(number);
        }
        self.serve_deletes();
        self.changed();
    }

    /// Takes a free segment to be discarded, if there are more than are needed: one that every
    /// checkpoint calls free that is or may be valid, of which `oldest` is the number of the oldest
    /// one.
    pub(crate) fn begin_discard(&mut self, oldest: u64) -> Option<u32> {
        if self.free.len() <= self.wanted_free() as usize {
            return None;
        }
        let may = |&number: &u32| {
            let segment = &self.segments[number as usize];
            segment.generation > 0
                && !segment.discarded
                && (segment.released_by <= oldest || Mutant::DiscardedBeforeAllCheckpoints.is_on())
        };
        let at = self.free.iter().position(may)?;
        let number = self.free.remove(at)?;
        self.segments[number as usize].state = SegmentState::Discarding;
        Some(number)
    }

    /// A discard has ended. A segment is not discarded twice in a row.
    pub(crate) fn end_discard(&mut self, number: u32) {
        if let Some(segment) = self.segment_mut(number)
            && segment.state == SegmentState::Discarding
        {
            segment.state = SegmentState::Free;
            segment.discarded = true;
            self.free.push_back(number);
        }
        self.changed();
    }
}

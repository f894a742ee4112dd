//! Whether compacting is worthwhile: how much is live, and whether reclaims free space.

use super::segment::{Live, SegmentState};
use super::victims::{garbage, least_garbage};
use super::{Demand, Space};
use crate::state::index::Located;

/// Reclaims in a row that free nothing before a store that evicts compacts less, and half of those
/// before another one is full. Moving what has a sixth of garbage frees a segment every sixth time,
/// a sixteenth every sixteenth time.
const MAX_RECLAIMS_WITHOUT_GAIN: u32 = 8;

impl Space {
    /// Blocks of garbage in a segment for which it is compacted.
    ///
    /// A store that does not evict compacts for any garbage that is worth it, until several
    /// reclaims in a row freed nothing: then garbage has to be added first.
    ///
    /// A store that evicts compacts what has a sixth of garbage while it is not
    /// [crowded](Self::is_crowded), so that nothing is evicted; in a crowded one half of a segment
    /// has to be garbage. When several reclaims in a row freed nothing, because objects fill
    /// segments poorly and moving them does not help, it evicts until there is another segment's
    /// worth of garbage.
    pub(super) fn least_to_compact(&self) -> i64 {
        let (live, usable) = self.fill_of_full();
        if !self.evicts() {
            let gains_nothing = usable.saturating_sub_unsigned(live) <= self.garbage_without_gain;
            return if gains_nothing { i64::MAX } else { least_garbage(&self.shape) };
        }
        let blocks = i64::from(self.shape.segment_blocks);
        let gains_nothing =
            usable.saturating_sub_unsigned(live) < self.garbage_without_gain + blocks;
        match (gains_nothing, self.crowded) {
            (true, _) => i64::MAX,
            (false, true) => blocks / 2,
            (false, false) => blocks / 6,
        }
    }

    /// Whether all that was live at the same time, and was not deleted since, does not fit into
    /// three quarters of the store. Compacting would copy nearly full segments then. So a store
    /// that evicts does that only within the budget for moves, and otherwise evicts the oldest
    /// segment. An uncrowded one evicts nothing while compacting frees space.
    ///
    /// Evicted objects still count: if they are put again, they must be evicted again. They stop
    /// counting when so little is live that compacting is nearly free.
    pub(super) fn is_crowded(&mut self) -> bool {
        let mut live = Live::default();
        self.segments.iter().for_each(|segment| live.add(&segment.live));
        let live = live.blocks_together(&self.shape);
        let all = u64::from(self.shape.segments) * u64::from(self.shape.largest_slot());
        self.wanted_live = if live * 4 <= all { live } else { self.wanted_live.max(live) };
        self.evicts() && self.wanted_live * 4 > all * 3
    }

    /// Objects were deleted.
    pub(super) fn note_deleted(&mut self, deleted: &[Located]) {
        let mut live = Live::default();
        for object in deleted {
            live.add(&Live::of(Demand::of(&object.entry), &self.shape));
        }
        let blocks = live.blocks_together(&self.shape);
        self.wanted_live = self.wanted_live.saturating_sub(blocks);
    }

    /// Records whether the reclaim that ends freed space.
    pub(super) fn note_gain(&mut self) {
        let (live, usable) = self.fill_of_full();
        let garbage = usable.saturating_sub_unsigned(live);
        self.garbage_without_gain = self.garbage_without_gain.min(garbage);
        let Some(before) = self.supply_before_reclaim.take() else { return };
        if self.supply() > before {
            self.reclaims_without_gain = 0;
            return;
        }
        self.reclaims_without_gain += 1;
        let most = MAX_RECLAIMS_WITHOUT_GAIN * if self.evicts() { 1 } else { 2 };
        if self.reclaims_without_gain >= most {
            self.reclaims_without_gain = 0;
            self.garbage_without_gain = garbage;
        }
    }

    /// Segments that are free, about to be, or were opened for puts since the store was opened:
    /// what reclaims add to, whatever puts take in the meantime.
    pub(crate) fn supply(&self) -> u64 {
        let coming = self.about_to_be_free() + self.overdue();
        (self.free.len() + coming) as u64 + self.opened_for_puts
    }

    /// The live blocks in full segments, and those that they can have.
    fn fill_of_full(&self) -> (u64, i64) {
        let (mut live, mut usable) = (Live::default(), 0_i64);
        for segment in self.segments.iter().filter(|of| of.state == SegmentState::Full) {
            live.add(&segment.live);
            usable += garbage(&self.shape, segment.fill.entries, 0);
        }
        (live.blocks_together(&self.shape), usable)
    }
}

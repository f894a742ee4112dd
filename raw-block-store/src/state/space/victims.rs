//! Which segments are reclaimed next, and when.

use super::segment::{Segment, SegmentState, Stream};
use super::{RESERVE, Shape, Shortage, Space};
use crate::mutant::{self, Mutant};
use crate::options::EvictionPolicy;
use crate::state::policy::Oldest;

/// The part of a segment that moving must free.
const LEAST_PART: u64 = 16;
/// The headroom, as a part of all segments.
const FREE_PART: u32 = 32;
/// With fewer segments puts may have to wait for a reclaim.
const AHEAD_SEGMENTS: u32 = 64;
/// A checkpoint is taken when this part of the objects was written since the last one.
const CHANGED_PART: u64 = 64;
/// It is not taken for fewer entries.
const LEAST_CHANGED: usize = 1 << 17;

/// A segment to be reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    pub(crate) segment: u32,
    pub(crate) kind: VictimKind,
}

/// What is done with a victim before it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VictimKind {
    /// Nothing in it is live.
    Dead,
    /// All of its objects are moved. If there is no space for them, the reclaim goes on with the
    /// victims that it has. If it has none, a store that evicts treats it as one of
    /// [`Evict`](Self::Evict).
    Compact,
    /// The policy chooses what is moved; the rest is evicted.
    Evict,
}

/// Blocks that are freed by moving `blocks` of live objects with this number of entries out of a
/// segment.
pub(super) fn garbage(shape: &Shape, entries: u32, blocks: u64) -> i64 {
    let usable = i64::from(shape.segment_blocks) - 1 - i64::from(shape.table_blocks(entries));
    usable.saturating_sub_unsigned(blocks)
}

/// Blocks that moving has to free.
pub(super) fn least_garbage(shape: &Shape) -> i64 {
    i64::from(shape.segment_blocks).div_euclid(LEAST_PART as i64).max(1)
}

impl Space {
    /// The next segment to reclaim, if one is worthwhile. It is not offered again before
    /// [`end_reclaim`](Self::end_reclaim).
    pub(crate) fn take_victim(&mut self) -> Option<Victim> {
        self.crowded = self.is_crowded();
        let mut victim = self.choose_victim()?;
        while victim.kind == VictimKind::Evict && self.seal_oldest() {
            victim = self.choose_victim()?;
        }
        self.moves_are_paid = self.crowded || victim.kind == VictimKind::Evict;
        if !self.segments.iter().any(|segment| segment.victim) {
            self.supply_before_reclaim = Some(self.supply());
        }
        if let Some(segment) = self.segment_mut(victim.segment) {
            segment.victim = true;
        }
        Some(victim)
    }

    /// A victim is not reclaimed after all: something in it must stay.
    pub(crate) fn spare_victim(&mut self, number: u32) {
        if let Some(segment) = self.segment_mut(number) {
            segment.victim = false;
        }
    }

    /// A segment is not a victim before something in it changes: an object in it cannot be read.
    pub(crate) fn set_futile(&mut self, number: u32) {
        if let Some(segment) = self.segment_mut(number) {
            segment.futile = true;
        }
    }

    /// The same of a victim from which only what has to be kept was to be moved.
    pub(crate) fn set_stuck(&mut self, number: u32) {
        if let Some(segment) = self.segment_mut(number) {
            segment.stuck = true;
        }
    }

    /// Whether a reclaim that has this many victims takes another one.
    pub(crate) fn wants_victims(&self, victims: usize) -> bool {
        let coming = self.free.len() + victims + self.about_to_be_free();
        coming < self.wanted_free() as usize && victims < self.segments.len()
    }

    /// What the policy needs to know about the oldest segment.
    pub(crate) fn oldest(&self, number: u32) -> Oldest {
        let segment = self.segment(number);
        Oldest {
            opened_at: segment.map_or(0, |segment| segment.opened_at),
            moves_left: self.budget.left(),
            may_be_kept: segment.is_some_and(|segment| !segment.bad),
        }
    }

    /// A victim is not reclaimed after all: most of it would be moved, so it is kept as it is, as
    /// if it had been opened now.
    pub(crate) fn keep_whole(&mut self, number: u32) {
        let clock = self.clock;
        if let Some(segment) = self.segment_mut(number) {
            (segment.opened_at, segment.kept) = (clock, true);
        }
    }

    /// Ends a reclaim, which began at the [version](Self::version) `since`. `progress` says whether
    /// it released or moved something, or covered what was not. Serves the deletes that wait before
    /// another reclaim begins.
    pub(crate) fn end_reclaim(&mut self, progress: bool, since: u64) {
        for segment in &mut self.segments {
            segment.victim = false;
        }
        self.note_gain();
        // What changed in the meantime may help the next one, what is not covered yet may hold
        // garbage, and while enough is free no victim was looked for.
        let is_futile = !progress
            && self.version == since
            && !self.is_anything_uncovered()
            && self.wants_victims(0);
        self.serve_deletes();
        self.changed();
        self.futile_at = is_futile.then_some(self.version);
    }

    /// Whether something is not covered by the committed checkpoint, so that another one makes more
    /// victims, at the latest when no change is in flight.
    pub(crate) fn is_anything_uncovered(&self) -> bool {
        self.uncovered().next().is_some()
    }

    fn uncovered(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| {
            matches!(segment.state, SegmentState::Open | SegmentState::Full)
                && !self.is_covered(segment)
        })
    }

    /// The sequence of the oldest change in flight, if that keeps a checkpoint from covering any
    /// segment that the committed one does not cover.
    pub(crate) fn blocking_change(&self) -> Option<u64> {
        let coverable = self.coverable();
        let is_blocked = self.is_anything_uncovered()
            && self.uncovered().all(|segment| segment.highest > coverable);
        is_blocked.then(|| self.oldest_in_flight())
    }

    /// Whether puts have no segment to open, and none is about to be free.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.free_for_puts() == 0 && self.about_to_be_free() == 0
    }

    /// The wanted number of free segments: the reserve and the headroom, which is a part of all
    /// segments or what is put during one checkpoint.
    pub(crate) fn wanted_free(&self) -> u32 {
        let part = (self.shape.segments / FREE_PART).max(1);
        let ahead = if !self.is_large() {
            0
        } else {
            self.opened_per_checkpoint.min(self.shape.segments / 8)
        };
        RESERVE + part.max(ahead)
    }

    /// Whether puts need not wait for reclaims.
    pub(super) fn is_large(&self) -> bool {
        self.shape.segments >= AHEAD_SEGMENTS
    }

    /// Whether a reclaim is to run before a put has to wait for one.
    pub(crate) fn needs_reclaim(&self) -> bool {
        let is_short = self.wants_victims(0);
        is_short && self.futile_at != Some(self.version)
    }

    /// Whether a checkpoint would make a victim of a segment that is none yet, because the
    /// committed one does not cover it.
    pub(crate) fn gains_by_checkpoint(&self) -> bool {
        let least = least_garbage(&self.shape);
        self.segments.iter().any(|segment| {
            segment.state == SegmentState::Full
                && !segment.is_in_flight()
                && !self.is_covered(segment)
                && segment.old_pins == 0
                && (segment.is_dead() || self.evicts() || self.garbage_in(segment) >= least)
        })
    }

    /// Whether the background worker has something to do; `objects` are live.
    pub(crate) fn wants_worker(&self, objects: u64) -> bool {
        let wants_ahead = self.is_large() && self.ahead.is_none() && self.free_for_puts() > 0;
        wants_ahead || self.needs_reclaim() || self.needs_checkpoint(objects)
    }

    /// Whether a checkpoint is to be taken because much was written since the last one; `objects`
    /// are live.
    pub(crate) fn needs_checkpoint(&self, objects: u64) -> bool {
        let least = mutant::limit(LEAST_CHANGED, 200) as u64;
        self.entries_since_choice >= least.max(objects / CHANGED_PART)
    }

    /// What to do when no segment is left to be opened.
    pub(super) fn shortage(&self) -> Shortage {
        if self.about_to_be_free() > 0 {
            Shortage::Wait
        } else if self.futile_at != Some(self.version) {
            Shortage::Reclaim
        } else if self.overdue() > 0 {
            // Nothing else can be reclaimed, so there is nothing to do but wait for the gets.
            Shortage::Wait
        } else {
            Shortage::Full
        }
    }

    /// Whether the committed checkpoint covers everything in a segment.
    fn is_covered(&self, segment: &Segment) -> bool {
        segment.highest <= self.committed.covered && segment.moved_before <= self.committed_choice
    }

    fn choose_victim(&self) -> Option<Victim> {
        let candidates = || self.numbered().filter(|(_, segment)| self.may_be_victim(segment));
        let by_age = |&(_, segment): &(u32, &Segment)| (segment.opened_at, segment.generation);
        let victim = |kind| move |(segment, _): (u32, &Segment)| Victim { segment, kind };
        let dead = candidates().filter(|(_, segment)| segment.is_dead()).min_by_key(by_age);
        if let Some(dead) = dead {
            return Some(victim(VictimKind::Dead)(dead));
        }
        // A segment in quarantine is emptied when there is space to spare.
        let bad = candidates().find(|(_, segment)| segment.bad);
        if bad.is_some() && self.free.len() > RESERVE as usize {
            return bad.map(victim(VictimKind::Compact));
        }
        let least = self.least_to_compact();
        let compacted = candidates()
            .filter(|(_, segment)| !segment.futile)
            .map(|(number, segment)| (self.garbage_in(segment), number, segment))
            .filter(|&(garbage, _, _)| garbage >= least)
            .max_by_key(|&(garbage, _, segment)| (garbage, std::cmp::Reverse(segment.generation)));
        let oldest_number = candidates().min_by_key(by_age).map(|(number, _)| number);
        // In a crowded store it has to be paid for. What is in the oldest segment is evicted:
        // compacting would make it young again.
        let may_compact = |number: u32, of: &Segment| {
            !self.crowded
                || Some(number) != oldest_number
                    && of.live.blocks_together(&self.shape) <= self.budget.left()
        };
        if let Some((_, number, segment)) = compacted
            && may_compact(number, segment)
        {
            return Some(victim(VictimKind::Compact)((number, segment)));
        }
        let oldest = |kept: Option<bool>| {
            candidates()
                .filter(move |(_, of)| kept.is_none_or(|kept| kept == of.is_kept()))
                .min_by_key(by_age)
        };
        let evicted = match self.eviction {
            EvictionPolicy::None => None,
            EvictionPolicy::Lru | EvictionPolicy::Fifo => oldest(None),
            EvictionPolicy::S3Fifo => {
                // The moved ones are a queue that may grow to nine tenths.
                let full = candidates().count();
                let new = candidates().filter(|(_, of)| !of.is_kept()).count();
                let from_new = new > full / 10 || new == full;
                oldest(Some(!from_new)).or_else(|| oldest(None))
            }
        };
        evicted.map(victim(VictimKind::Evict))
    }

    fn may_be_victim(&self, segment: &Segment) -> bool {
        segment.state == SegmentState::Full
            && !segment.is_in_flight()
            && !segment.victim
            && !segment.stuck
            && (self.evicts() || !segment.futile)
            && (self.is_covered(segment) || Mutant::VictimNotCovered.is_on())
            && (segment.old_pins == 0 || Mutant::VictimWithPinnedVersion.is_on())
    }

    /// Seals an open segment that is older than all full ones: few objects that fit were put into
    /// it, or moved. They are evicted by their age like all others. Returns whether there was one.
    fn seal_oldest(&mut self) -> bool {
        let age = |segment: &Segment| (segment.opened_at, segment.generation);
        let full = self.segments.iter().filter(|of| of.state == SegmentState::Full && !of.stuck);
        let Some(oldest) = full.map(age).min() else { return false };
        let open = self.open_in(Stream::New).iter().chain(self.open_in(Stream::Kept));
        let older = |&&number: &&u32| {
            let segment = &self.segments[number as usize];
            age(segment) < oldest && segment.fill.entries > 0
        };
        let Some(&number) = open.filter(older).min() else { return false };
        self.seal(number);
        true
    }

    /// Blocks that moving what is live in a segment frees.
    fn garbage_in(&self, segment: &Segment) -> i64 {
        let entries = u32::try_from(segment.live.objects).unwrap_or(u32::MAX);
        garbage(&self.shape, entries, segment.live.blocks_together(&self.shape))
    }
}

//! How a device comes to its end: the power is cut, or the process that used it is killed.

use std::mem;
use std::ops::Range;

use super::fault::DeviceFault;
use super::state::{Change, State};

/// What a power cut did to the writes that were not durable: how many of them had which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutReport {
    /// Writes of which nothing is left.
    pub lost: usize,
    /// Writes that are there as a whole.
    pub kept: usize,
    /// Writes of which the front or the back is there, up to or from a logical block.
    pub torn: usize,
    /// Writes of which any of the blocks are there.
    pub scattered: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Mood {
    AllLost,
    AllKept,
    Mixed,
}

pub(super) enum Fate {
    Lost,
    Kept,
    Torn(Range<usize>),
    Scattered(Vec<bool>),
}

impl Mood {
    /// With many writes, that all of them have the same fate would hardly ever happen by chance; but it is
    /// what real devices often do.
    pub(super) fn seeded(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(..8) {
            0 => Self::AllLost,
            1 => Self::AllKept,
            _ => Self::Mixed,
        }
    }

    /// The fate of one write of so many blocks.
    fn decide(self, rng: &mut fastrand::Rng, blocks: usize, atomic: bool) -> Fate {
        let divisible = !atomic && blocks > 1;
        match self {
            Self::AllLost => Fate::Lost,
            Self::AllKept => Fate::Kept,
            Self::Mixed => match rng.u8(..if divisible { 4 } else { 2 }) {
                0 => Fate::Lost,
                1 => Fate::Kept,
                2 => {
                    let at = rng.usize(1..blocks);
                    Fate::Torn(if rng.bool() { 0..at } else { at..blocks })
                }
                _ => Fate::Scattered((0..blocks).map(|_| rng.bool()).collect()),
            },
        }
    }
}

impl Fate {
    pub(super) fn spares(&self, position: usize) -> bool {
        match self {
            Self::Lost => false,
            Self::Kept => true,
            Self::Torn(range) => range.contains(&position),
            Self::Scattered(spared) => spared.get(position).copied().unwrap_or(false),
        }
    }

    fn count(&self, report: &mut CutReport) {
        *match self {
            Self::Lost => &mut report.lost,
            Self::Kept => &mut report.kept,
            Self::Torn(_) => &mut report.torn,
            Self::Scattered(_) => &mut report.scattered,
        } += 1;
    }
}

impl State {
    /// What is in flight and has not taken effect, in a seeded order.
    pub(super) fn take_unfinished(&mut self) -> Vec<Change> {
        self.held.clear();
        let accepted = mem::take(&mut self.accepted).into_values();
        let mut unfinished: Vec<_> = accepted.filter_map(|progress| progress.change).collect();
        unfinished.extend(mem::take(&mut self.late).into_iter().map(|(_, change)| change));
        unfinished.extend(self.take_leftovers());
        self.rng.shuffle(&mut unfinished);
        unfinished
    }

    /// Cuts the power: what is durable from then on is all there is.
    ///
    /// Flushes in flight have no effect. That hides nothing: any outcome that they could have is one of
    /// those without them.
    pub(super) fn power_cut(&mut self) -> CutReport {
        if let Some(report) = self.over {
            return report;
        }
        for change in self.take_unfinished() {
            self.store(change, |_| true);
        }
        let mood = Mood::seeded(&mut self.rng);
        // Now and then all are torn, in their first blocks.
        let all_torn = self.torn_blocks && self.rng.u8(..4) == 0;
        let mut report = CutReport::default();
        for write in mem::take(&mut self.volatile).into_values() {
            let fate = mood.decide(&mut self.rng, write.blocks.len(), write.atomic);
            fate.count(&mut report);
            let may_tear = self.torn_blocks
                && !write.atomic
                && !write.blocks.is_empty()
                && matches!(mood, Mood::Mixed);
            let torn = match may_tear {
                true if all_torn => Some(0),
                true if self.rng.u8(..4) == 0 => Some(self.rng.usize(..write.blocks.len())),
                _ => None,
            };
            for (position, (block, version)) in write.blocks.into_iter().enumerate() {
                if torn == Some(position) {
                    self.image.make_durable(block, version.torn(&mut self.rng));
                } else if fate.spares(position) {
                    self.image.make_durable(block, version);
                }
            }
        }
        self.image.lose_cache();
        self.over = Some(report);
        report
    }

    /// Kills the process: what is in flight happens or does not, the device itself goes on.
    pub(super) fn process_kill(&mut self) {
        if self.over.is_some() {
            return;
        }
        let mood = Mood::seeded(&mut self.rng);
        for change in self.take_unfinished() {
            let fate = self.fate_of(mood, &change);
            self.store(change, |position| fate.spares(position));
        }
        self.end_by_kill();
    }

    /// What becomes of a change that is in flight when the process is killed.
    pub(super) fn fate_of(&mut self, mood: Mood, change: &Change) -> Fate {
        // How many blocks an erasure has is known only when it takes effect: it happens as a whole.
        let (blocks, atomic) = match change {
            Change::Store { blocks, atomic } => (blocks.len(), *atomic),
            _ => (1, true),
        };
        mood.decide(&mut self.rng, blocks, atomic)
    }

    pub(super) fn end_by_kill(&mut self) {
        self.complete_all();
        self.over = Some(CutReport::default());
    }

    /// The device as whoever opens it next finds it.
    pub(super) fn successor(&self) -> Self {
        let mut next = self.clone();
        next.over = None;
        next.cut_after = None;
        next.effects = 0;
        next.faults.retain(DeviceFault::is_permanent);
        next
    }
}

//! The fates of the writes that are not durable when a device ends.

use std::ops::Range;

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
    /// With many writes, that all of them have the same fate would hardly ever happen by chance;
    /// but it is what real devices often do.
    pub(super) fn seeded(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(..8) {
            0 => Self::AllLost,
            1 => Self::AllKept,
            _ => Self::Mixed,
        }
    }

    /// The fate of one write of this many blocks.
    pub(super) fn decide(self, rng: &mut fastrand::Rng, blocks: usize, atomic: bool) -> Fate {
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

    pub(super) fn count(&self, report: &mut CutReport) {
        *match self {
            Self::Lost => &mut report.lost,
            Self::Kept => &mut report.kept,
            Self::Torn(_) => &mut report.torn,
            Self::Scattered(_) => &mut report.scattered,
        } += 1;
    }
}

//! The focus of a scenario: the operations and faults that it has most.

use anyhow::{Context as _, Result};

use super::objects::Sizes;
use super::target::Shape;

/// The operations and faults that a scenario has most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    /// No focus: everything.
    All,
    /// Failing checkpoints.
    Checkpoints,
    /// Concurrent changes of one or two keys by several clients.
    Races,
    /// A full store.
    Space,
    /// Slow writes, while others complete.
    Slow,
    /// Slow reads, while segments are reclaimed.
    Readers,
    /// Failing writes of slots, single and consecutive.
    Retries,
    /// Failing writes of checkpoint headers, with and without effect.
    Headers,
    /// Interrupted openings, several in sequence.
    Openings,
    /// Many small objects between two checkpoints.
    Filling,
    /// Unflushed tables of segments, read by gets with little verification.
    Tables,
    /// Checkpoints that are corrupted while the power is off.
    BitRot,
    /// Segments that are filled further after a close, with rewritten tables.
    Refilling,
    /// Moves of objects, concurrent with checkpoints.
    Moves,
    /// Reads that return other bytes than were written.
    Misreads,
    /// Failing segment headers, and batches of several slots.
    Opened,
    /// Deletes without space for tombstones: quarantined segments take the reserve, or writes to
    /// segments fail because the file system is full.
    Reserve,
}

/// The template from which a scenario begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Half,
    Full,
    Empty,
    /// Full, with quarantined segments in place of the reserve.
    Quarantined,
}

impl Focus {
    pub(super) const ALL: [Self; 17] = [
        Self::All,
        Self::Checkpoints,
        Self::Races,
        Self::Space,
        Self::Slow,
        Self::Readers,
        Self::Retries,
        Self::Headers,
        Self::Openings,
        Self::Filling,
        Self::Tables,
        Self::BitRot,
        Self::Refilling,
        Self::Moves,
        Self::Misreads,
        Self::Opened,
        Self::Reserve,
    ];

    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..25) {
            0..=4 => Self::All,
            5 => Self::Checkpoints,
            6 | 7 => Self::Races,
            8 | 9 => Self::Space,
            10 | 11 => Self::Slow,
            12 => Self::Readers,
            13 | 14 => Self::Retries,
            15 => Self::Headers,
            16 => Self::Openings,
            17 => Self::Filling,
            18 => Self::Tables,
            19 => Self::BitRot,
            20 => Self::Refilling,
            21 => Self::Moves,
            22 => Self::Misreads,
            23 => Self::Opened,
            _ => Self::Reserve,
        }
    }

    /// Finds the focus with this name.
    pub(super) fn of_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|focus| format!("{focus:?}") == name);
        found.with_context(|| format!("there is no focus {name:?}: there are {:?}", Self::ALL))
    }

    /// Returns the focus of the scenario with this seed.
    pub(super) fn of_seed(seed: u64) -> Self {
        Self::draw(&mut fastrand::Rng::with_seed(seed))
    }

    pub(super) fn fill(self, random: &mut fastrand::Rng) -> Fill {
        use Fill::{Empty, Full, Half, Quarantined};
        let from: &[Fill] = match self {
            Self::All => &[Half, Full, Empty, Empty],
            Self::Checkpoints => &[Half, Empty],
            Self::Space => &[Full],
            Self::Moves => &[Half, Full],
            Self::Reserve => &[Quarantined, Quarantined, Half, Empty],
            Self::Headers => &[Full, Empty, Empty, Empty],
            Self::Readers => &[Half, Full, Empty],
            Self::Slow | Self::Retries => &[Half, Full, Empty, Empty, Empty, Empty],
            _ => &[Empty],
        };
        from[random.usize(..from.len())]
    }

    /// Draws the number of keys of a scenario that begins with an empty store.
    pub(super) fn keys(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Races | Self::Misreads => random.usize(1..4),
            Self::Slow | Self::Headers | Self::Openings | Self::BitRot | Self::Retries => {
                random.usize(1..8)
            }
            Self::Filling | Self::Refilling => random.usize(60..200),
            _ => match random.u8(..5) {
                0 | 1 => random.usize(1..4),
                2 | 3 => random.usize(4..12),
                _ => random.usize(12..50),
            },
        }
    }

    pub(super) fn sizes(self, random: &mut fastrand::Rng, shape: Shape, largest: usize) -> Sizes {
        match self {
            Self::Filling | Self::Refilling => Sizes::tiny(shape.block_size),
            Self::Tables | Self::BitRot | Self::Opened => Sizes::blocks(shape.block_size, largest),
            Self::Retries | Self::Slow if random.u8(..3) == 0 => {
                Sizes::large(shape.block_size, largest)
            }
            _ => Sizes::draw(random, shape.block_size, largest),
        }
    }

    /// Draws the number of concurrent clients.
    pub(super) fn clients(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Filling => 2,
            Self::Refilling | Self::Openings | Self::Tables => 1,
            Self::Races | Self::Slow | Self::Readers | Self::Moves => random.usize(2..4),
            _ if random.bool() => 1,
            _ => random.usize(2..4),
        }
    }

    /// The maximum number of steps of a client.
    pub(super) fn steps(self, long: bool) -> usize {
        match self {
            Self::Openings => 3,
            Self::Refilling => 8,
            Self::Filling => 80,
            Self::BitRot => 40,
            _ if long => 60,
            _ => 14,
        }
    }

    /// Draws the number of steps of one client.
    pub(super) fn steps_of(self, most: usize, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Openings if random.u8(..4) > 0 => 0,
            Self::Filling if random.bool() => random.usize(1..4),
            _ => random.usize(1..most),
        }
    }

    /// Whether transfers may take so much time that segments cannot be reclaimed.
    pub(super) fn holds(self) -> bool {
        matches!(self, Self::Slow | Self::Readers | Self::Filling | Self::Reserve)
    }

    /// Draws whether clients inject faults.
    pub(super) fn faults(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Checkpoints | Self::Reserve => random.u8(..4) > 0,
            Self::Retries | Self::Headers | Self::Opened => true,
            Self::Races => random.u8(..6) == 0,
            Self::Openings | Self::Filling | Self::Refilling | Self::Readers | Self::Moves => false,
            _ => random.u8(..3) == 0,
        }
    }

    /// Draws the number of incarnations before the last one.
    pub(super) fn incarnations(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Openings => random.usize(3..16),
            Self::Refilling => random.usize(2..8),
            Self::Filling | Self::Tables | Self::BitRot => random.usize(2..5),
            _ => random.usize(1..5),
        }
    }

    /// Draws the maximum number of writes and flushes before an incarnation is interrupted.
    pub(super) fn cut_within(self, random: &mut fastrand::Rng, long: bool) -> u64 {
        match self {
            // Marking the superblock takes six; a checkpoint follows.
            Self::Openings => [9, 9, 30, 30][random.usize(..4)],
            Self::Filling => 300,
            _ if long => 300,
            _ => 60,
        }
    }

    /// Draws the number of writes and flushes before it is interrupted.
    pub(super) fn cut(self, most: u64, random: &mut fastrand::Rng) -> u64 {
        // An opening flushes, and then writes and flushes each copy of the superblock in turn.
        const COPIES: [u64; 4] = [1, 2, 4, 6];
        match self {
            Self::Openings if random.bool() => COPIES[random.usize(..COPIES.len())],
            _ => random.u64(1..most),
        }
    }

    /// Draws whether the last incarnation fills the store.
    pub(super) fn fills(self, random: &mut fastrand::Rng) -> bool {
        self == Self::Space || random.u8(..4) == 0
    }

    /// Whether half of the interruptions kill the process.
    pub(super) fn is_killed_often(self) -> bool {
        matches!(self, Self::Openings | Self::Filling)
    }

    /// Whether an incarnation is interrupted more often.
    pub(super) fn is_cut_often(self) -> bool {
        self == Self::Openings
    }

    /// Draws whether gets after an opening verify little.
    pub(super) fn verifies_little(self, random: &mut fastrand::Rng) -> bool {
        self == Self::Tables || random.u8(..4) == 0
    }

    /// Draws whether reads may return other bytes than were written.
    pub(super) fn misreads(self, random: &mut fastrand::Rng) -> bool {
        matches!(self, Self::All | Self::Checkpoints | Self::Races | Self::Space)
            && random.u8(..5) == 0
            || self == Self::Misreads
    }
}

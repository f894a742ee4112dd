//! What a scenario tries most.

use anyhow::{Context as _, Result};

use super::objects::Sizes;
use super::target::Shape;

/// What a scenario tries most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    /// Everything.
    All,
    /// Checkpoints that fail.
    Checkpoints,
    /// Changes of one or two keys by several clients at once.
    Races,
    /// A store that is full.
    Space,
    /// Writes that take long, while others complete.
    Slow,
    /// Reads that take long, while segments are reclaimed.
    Readers,
    /// Writes of slots that fail, alone and several in a row.
    Retries,
    /// Writes of the headers of checkpoints that fail, with and without effect.
    Headers,
    /// Openings that are interrupted, again and again.
    Openings,
    /// Many small objects between two checkpoints.
    Filling,
    /// Tables of segments that were never flushed, read by gets that verify little.
    Tables,
    /// Checkpoints that are corrupted while the power is off.
    BitRot,
    /// Segments that are filled further after a close, with tables that are written again.
    Refilling,
    /// Objects that are moved while others take checkpoints.
    Moves,
    /// Reads that find something else than was written.
    Misreads,
    /// Headers of segments that fail, and batches of several slots.
    Opened,
}

/// Which template a scenario begins from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Half,
    Full,
    Empty,
}

impl Focus {
    pub(super) const ALL: [Self; 16] = [
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
    ];

    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..24) {
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
            _ => Self::Opened,
        }
    }

    /// The focus with this name.
    pub(super) fn of_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|focus| format!("{focus:?}") == name);
        found.with_context(|| format!("there is no focus {name:?}: there are {:?}", Self::ALL))
    }

    /// The focus of the scenario with this seed.
    pub(super) fn of_seed(seed: u64) -> Self {
        Self::draw(&mut fastrand::Rng::with_seed(seed))
    }

    pub(super) fn fill(self, random: &mut fastrand::Rng) -> Fill {
        use Fill::{Empty, Full, Half};
        let from: &[Fill] = match self {
            Self::All => &[Half, Full, Empty, Empty],
            Self::Checkpoints => &[Half, Empty],
            Self::Space => &[Full],
            Self::Moves => &[Half, Full],
            Self::Headers => &[Full, Empty, Empty, Empty],
            Self::Readers => &[Half, Full, Empty],
            Self::Slow | Self::Retries => &[Half, Full, Empty, Empty, Empty, Empty],
            _ => &[Empty],
        };
        from[random.usize(..from.len())]
    }

    /// How many keys a scenario has that begins with an empty store.
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

    /// How many clients use the store at once.
    pub(super) fn clients(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Filling => 2,
            Self::Refilling | Self::Openings | Self::Tables => 1,
            Self::Races | Self::Slow | Self::Readers | Self::Moves => random.usize(2..4),
            _ if random.bool() => 1,
            _ => random.usize(2..4),
        }
    }

    /// How many steps a client does, at most.
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

    /// How many steps one of them does.
    pub(super) fn steps_of(self, most: usize, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Openings if random.u8(..4) > 0 => 0,
            Self::Filling if random.bool() => random.usize(1..4),
            _ => random.usize(1..most),
        }
    }

    /// Whether transfers may take so long that segments cannot be reclaimed.
    pub(super) fn holds(self) -> bool {
        matches!(self, Self::Slow | Self::Readers | Self::Filling)
    }

    /// Whether clients inject faults.
    pub(super) fn faults(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Checkpoints => random.u8(..4) > 0,
            Self::Retries | Self::Headers | Self::Opened => true,
            Self::Races => random.u8(..6) == 0,
            Self::Openings | Self::Filling | Self::Refilling | Self::Readers | Self::Moves => false,
            _ => random.u8(..3) == 0,
        }
    }

    /// How many incarnations of the store there are before the last one.
    pub(super) fn incarnations(self, random: &mut fastrand::Rng) -> usize {
        match self {
            Self::Openings => random.usize(3..16),
            Self::Refilling => random.usize(2..8),
            Self::Filling | Self::Tables | Self::BitRot => random.usize(2..5),
            _ => random.usize(1..5),
        }
    }

    /// After how many writes and flushes an incarnation is cut short, at most.
    pub(super) fn cut_within(self, random: &mut fastrand::Rng, long: bool) -> u64 {
        match self {
            // Marking the superblock takes six; then follows a checkpoint.
            Self::Openings => [9, 9, 30, 30][random.usize(..4)],
            Self::Filling => 300,
            _ if long => 300,
            _ => 60,
        }
    }

    /// After how many of them it is cut short.
    pub(super) fn cut(self, most: u64, random: &mut fastrand::Rng) -> u64 {
        // An opening flushes, and then writes and flushes one copy of the superblock after the other.
        const COPIES: [u64; 4] = [1, 2, 4, 6];
        match self {
            Self::Openings if random.bool() => COPIES[random.usize(..COPIES.len())],
            _ => random.u64(1..most),
        }
    }

    /// Whether the store is filled in the end.
    pub(super) fn fills(self, random: &mut fastrand::Rng) -> bool {
        self == Self::Space || random.u8(..4) == 0
    }

    /// Whether the process is killed in half of the cases in which something ends early.
    pub(super) fn is_killed_often(self) -> bool {
        matches!(self, Self::Openings | Self::Filling)
    }

    /// Whether an incarnation may be cut short at that moment, in one of two cases.
    pub(super) fn is_cut_often(self) -> bool {
        self == Self::Openings
    }

    /// Whether what an opening found is read by gets that verify little.
    pub(super) fn verifies_little(self, random: &mut fastrand::Rng) -> bool {
        self == Self::Tables || random.u8(..4) == 0
    }

    /// Whether reads may find something else than was written.
    pub(super) fn misreads(self, random: &mut fastrand::Rng) -> bool {
        matches!(self, Self::All | Self::Checkpoints | Self::Races | Self::Space)
            && random.u8(..5) == 0
            || self == Self::Misreads
    }
}

//! What a scenario tries most.

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
}

impl Focus {
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..8) {
            0..=3 => Self::All,
            4 => Self::Checkpoints,
            5 | 6 => Self::Races,
            _ => Self::Space,
        }
    }
}

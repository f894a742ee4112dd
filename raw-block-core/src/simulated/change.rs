//! What ops do to a device, and how far each of them is.

use std::ops::Range;

use super::image::{Bytes, Version};
use crate::backend::OpKind;

/// A write that took effect and is not durable yet.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) blocks: Vec<(u64, Version)>,
    /// Whether a power cut cannot take it apart.
    pub(super) atomic: bool,
    /// The completion that acknowledged it: none before it was reaped.
    pub(super) completed: Option<u64>,
}

/// What an op does when it takes effect.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Nothing,
    Store {
        blocks: Vec<(u64, Bytes)>,
        atomic: bool,
    },
    /// A range, because the list of its blocks has no bound before it takes effect.
    Erase {
        blocks: Range<u64>,
        kind: OpKind,
    },
    /// Covers what was acknowledged up to this completion.
    Flush {
        covers: u64,
    },
}

/// How far an op came that was accepted and not reaped yet.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// What is still to be done.
    pub(super) change: Option<Change>,
    /// The write that it became.
    pub(super) write: Option<u64>,
    /// Set when it is to fail and take effect after that many more effects.
    pub(super) late: Option<u64>,
}

/// How a device comes to a planned end.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlannedEnd {
    PowerCut,
    Kill,
    KillLeavingWrites,
}

/// A write, or a part of one, of a process that was killed.
#[derive(Clone, Debug)]
pub(super) struct Leftover {
    pub(super) change: Change,
    /// At which stir it takes effect.
    pub(super) due: u64,
}

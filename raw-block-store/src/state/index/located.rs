//! Entries with their places, and the outcome of publishing one.

use crate::format::Entry;

/// A keyed hash of a key.
pub(crate) type KeyHash = [u8; 16];

/// An entry: its segment and its number within that segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) number: u32,
}

/// An entry and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) entry: Entry,
}

impl Located {
    pub(crate) fn sequence(&self) -> u64 {
        self.entry.sequence.get()
    }

    /// Whether the other is the same write of the same object.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.place == other.place && self.entry.sequence == other.entry.sequence
    }
}

/// The outcome of publishing an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// The index shows it, and no longer the object that it replaced.
    Shown { replaced: Option<Located> },
    /// A newer change of its key completed first. Its entry stays as it was: dead.
    Superseded,
}

impl Published {
    /// The object that the index shows no more.
    pub(crate) fn replaced(&self) -> Option<Located> {
        match self {
            Self::Shown { replaced } => *replaced,
            Self::Superseded => None,
        }
    }
}

/// A copy of an object, to be published in place of the object that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    /// Where the object was read.
    pub(crate) from: Place,
    /// The copy, which has the sequence of the object.
    pub(crate) to: Located,
    /// What the policy knows of the copy.
    pub(crate) stamp: super::stamp::Stamp,
}

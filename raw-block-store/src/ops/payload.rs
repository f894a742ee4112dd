//! The payload of a put: one slice, or several.

use std::borrow::Cow;
use std::io::IoSlice;

use raw_block_core::WriteAt;

use crate::format::{PayloadHasher, payload_hash};

/// The payload of a put.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    One(&'a [u8]),
    /// The concatenation of these.
    Gathered(&'a [IoSlice<'a>]),
}

impl<'a> Payload<'a> {
    /// Its length in bytes. One that exceeds `usize` is as long as that.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(payload) => payload.len(),
            Self::Gathered(slices) => {
                slices.iter().fold(0, |len, slice| len.saturating_add(slice.len()))
            }
        }
    }

    /// How many slices it has.
    pub(super) fn slices(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Gathered(slices) => slices.len(),
        }
    }

    /// Its [`payload_hash`].
    pub(super) fn hash(&self) -> u64 {
        match self {
            Self::One(payload) => payload_hash(payload),
            Self::Gathered(slices) => {
                let mut hasher = PayloadHasher::new();
                slices.iter().for_each(|slice| hasher.update(slice));
                hasher.finish()
            }
        }
    }

    /// All of it in one slice: of several, a copy.
    pub(super) fn contiguous(&self) -> Cow<'a, [u8]> {
        match *self {
            Self::One(payload) => Cow::Borrowed(payload),
            Self::Gathered(slices) => {
                Cow::Owned(slices.iter().flat_map(|slice| slice.iter()).copied().collect())
            }
        }
    }

    /// The write of it to this offset of the device.
    pub(super) fn write_at(&self, offset: u64) -> WriteAt<'a> {
        match *self {
            Self::One(payload) => WriteAt::new(offset, payload),
            Self::Gathered(slices) => WriteAt::vectored(offset, slices),
        }
    }
}

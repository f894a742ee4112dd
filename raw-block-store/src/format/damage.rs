//! Why a block that was read is refused, and why a value cannot be encoded.

use thiserror::Error;

/// The rule that a block read from the device breaks.
///
/// Readers check in the order of the variants, so a variant also says which rules the block keeps:
/// `WrongPlace`, for instance, is reported only for a block with a valid checksum.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The magic is absent: the block was never written, or holds something else.
    #[error("not a {expected}: the block does not begin with its magic")]
    NotThisStructure {
        /// Name of the expected structure.
        expected: &'static str,
    },
    /// The bytes are not those that were written: torn, overwritten or corrupted.
    #[error("checksum mismatch: {stored:#x} is stored, the bytes give {computed:#x}")]
    Checksum {
        /// The checksum found on the device.
        stored: u64,
        /// The checksum of the bytes found on the device.
        computed: u64,
    },
    /// Written by software whose format this software does not know.
    #[error("format version {found} is not known, this software reads version {supported}")]
    Version {
        /// The version found on the device.
        found: u32,
        /// The version that this software reads.
        supported: u32,
    },
    /// The store uses incompatible features that this software does not know.
    #[error("unknown incompatible features {bits:#x}: newer software is needed to read this store")]
    UnknownFeatures {
        /// The unknown bits of the incompatible feature word.
        bits: u64,
    },
    /// A valid block that carries the UUID of another store.
    #[error("the block belongs to another store, its UUID differs")]
    ForeignStore,
    /// A valid block of this store that belongs elsewhere: to another slot,
    /// another position or another checkpoint.
    #[error("the block carries the number {found} where {expected} belongs")]
    WrongPlace {
        /// The number that the block carries.
        found: u64,
        /// The number that belongs in this place.
        expected: u64,
    },
    /// A field is out of its bounds or contradicts another one.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// Why the caller's values cannot be written in this format.
///
/// The encoders refuse what the readers would refuse. Nothing was written into the caller's block.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A part does not fit into its space.
    #[error("{what} needs {needed} bytes, more than the available {available}")]
    TooLarge {
        /// What does not fit.
        what: &'static str,
        /// Its length in bytes.
        needed: u64,
        /// The bytes available for it.
        available: u64,
    },
    /// A value is out of its bounds or contradicts another one.
    #[error("cannot be written: {0}")]
    Invalid(&'static str),
}

/// Returns `Err(rule)` if the rule is broken.
pub(crate) fn ensure(kept: bool, rule: &'static str) -> Result<(), &'static str> {
    if kept { Ok(()) } else { Err(rule) }
}

/// The rule that reserved and unused bytes are zero.
pub(crate) fn ensure_zero(bytes: &[u8]) -> Result<(), &'static str> {
    ensure(bytes.iter().all(|byte| *byte == 0), "reserved bytes are not zero")
}

/// Refuses `what` if its length in bytes exceeds the available space.
pub(crate) fn fits(what: &'static str, needed: u64, available: u64) -> Result<(), EncodeError> {
    if needed <= available {
        Ok(())
    } else {
        Err(EncodeError::TooLarge { what, needed, available })
    }
}

/// A length or count, converted to the type of a field.
pub(crate) fn number<T: TryFrom<u64>>(value: u64) -> Result<T, EncodeError> {
    T::try_from(value).map_err(|_| EncodeError::Invalid("a length is out of range"))
}

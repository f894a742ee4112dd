//! The kinds of ops.

/// What an op does.
///
/// Exhaustive on purpose: a new kind is a compile error in every backend, and not an op that a
/// wildcard completes without doing anything. The dispatcher submits discards and write-zeroes only
/// to backends whose [`Geometry`](crate::Geometry) offers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// Makes durable every write that was reaped before this op was submitted.
    Flush,
    /// Lets the device forget a range of any length; it then reads as arbitrary bytes.
    Discard,
    /// Makes a range read as zeroes.
    WriteZeroes,
}

impl OpKind {
    /// The word that error messages use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write-zeroes",
        }
    }

    /// Whether the op moves bytes from or to memory.
    #[must_use]
    pub const fn transfers(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }

    /// Whether the op changes what the device holds.
    #[must_use]
    pub const fn modifies(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }
}

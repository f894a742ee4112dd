//! How far something is that takes long.

/// How far a call is that goes through all slots: a [scrub](crate::Store::scrub), or the recovery of a store that was
/// not closed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Slots that it is done with.
    pub slots_done: u64,
    /// Slots in all.
    pub slots: u64,
}

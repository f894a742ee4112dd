//! How far a long call is.

/// How far a call is that goes through all segments: a [scrub](crate::Store::scrub), or the
/// recovery of a store that was not closed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of segments that are done, whether they had to be read or not.
    pub bytes_done: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

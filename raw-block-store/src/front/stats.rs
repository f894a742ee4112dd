//! What the front was asked, and how it went.

use super::health::FrontHealth;

/// The state of an asynchronous front at one moment, and its counters since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AsyncStats {
    /// Whether the device answers.
    pub health: FrontHealth,
    /// Requests that wait for a worker.
    pub queued: usize,
    /// Requests that a worker executes.
    pub running: usize,
    /// Bytes of memory of the puts and deletes that wait or run.
    pub store_bytes: u64,
    /// Requests that were accepted.
    pub submitted: u64,
    /// Requests that were executed.
    pub executed: u64,
    /// Requests that were answered without being executed: the device was slow or failed, or the
    /// front has ended.
    pub turned_away: u64,
    /// Requests whose deadline passed while they waited.
    pub expired: u64,
    /// Requests that were removed from a queue because their future or completion queue was
    /// dropped.
    pub cancelled: u64,
    /// Requests that were refused because a limit was reached.
    pub overloaded: u64,
}

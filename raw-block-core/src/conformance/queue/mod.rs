//! What a single queue promises.

pub(super) mod accepting;
pub(super) mod lifetime;
pub(super) mod reaping;
pub(super) mod starting;
pub(super) mod transfers;
pub(super) mod wakers;
pub(super) mod waking;

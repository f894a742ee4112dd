//! Checkpoints: writing an image of the index, and reading it back.

pub(crate) mod containers;
pub(crate) mod throttle;

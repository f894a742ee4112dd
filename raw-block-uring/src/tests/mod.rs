//! What can only be tried between our code and the kernel: failures that no device produces when asked to,
//! and rings of another width.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod conformance;
mod errnos;
mod failures;
mod polling;
mod scripted;
mod starting;
mod streams;

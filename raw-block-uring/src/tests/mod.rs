//! Tests with a scripted kernel: failures that no device produces on request, and big rings.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod conformance;
mod errnos;
mod failures;
mod polling;
mod scripted;
mod starting;
mod streams;
mod waking;
mod wrapped;

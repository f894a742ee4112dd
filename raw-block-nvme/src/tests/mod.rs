//! Tests of splitting and encoding against a controller that executes the bytes of each command,
//! and of queues with scripted results.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may")]

mod controller;
mod discarding;
mod encoding;
mod failing;
mod identifying;
mod polling;
mod splitting;
mod stage;

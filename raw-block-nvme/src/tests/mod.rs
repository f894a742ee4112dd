//! Splitting and encoding, held against a controller that carries out what it is sent, byte by byte.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may")]

mod controller;
mod discarding;
mod encoding;
mod failing;
mod identifying;
mod polling;
mod splitting;
mod stage;

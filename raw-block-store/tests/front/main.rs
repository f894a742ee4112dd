//! The asynchronous front of a store.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../common/mod.rs"]
mod common;
mod completions;
mod ends;
mod futures;
mod health;
mod limits;
mod model;
mod runtimes;
mod schedules;
mod submitter;
mod support;

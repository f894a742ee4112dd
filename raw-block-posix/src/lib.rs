//! draft
#![forbid(unsafe_code)]

mod backend;
mod queue;
mod share;
mod transfer;
mod workers;

pub use backend::{PosixBackend, PosixOptions};

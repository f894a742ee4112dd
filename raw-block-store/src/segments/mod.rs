//! The store on segments. It is built beside the store on slots of one size, and takes its place.

pub(crate) mod checkpoint;
pub mod format;
pub mod mutant;
mod open;
mod ops;
pub mod options;
pub(crate) mod placement;
pub(crate) mod reclaim;
pub(crate) mod segment_header;
mod state;
pub mod stats;
mod store;

pub use ops::{Found, Get, Object, Pin, Put};
pub use options::{EvictionPolicy, FormatOptions, OpenOptions};
pub use store::Store;

#[cfg(test)]
mod fixture;

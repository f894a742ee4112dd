//! A store of keyed objects on a raw block device.

pub mod format;

mod checkpoint;
mod delete;
mod engine;
mod error;
mod get;
mod hash;
mod index;
mod options;
mod put;
mod recovery;
mod scratch;
mod space;
mod stats;
mod store;
mod superblocks;

pub use engine::{Engine, open_device};
pub use error::Error;
pub use get::{Found, Get, Object};
pub use options::FormatOptions;
pub use put::Put;
pub use stats::StoreStats;
pub use store::Store;

//! What callers do with objects.

mod delete;
mod get;
mod pin;
mod put;
mod read;
mod stage;
mod tombstones;
mod write;

pub use get::{Found, Get, Object};
pub use pin::Pin;
pub use put::Put;
pub(crate) use tombstones::DeleteQueue;

//! What callers do with objects.

mod delete;
mod delete_queue;
mod escaped;
mod get;
mod list;
mod pin;
mod put;
mod read;
mod stage;
mod tombstones;
mod write;

pub(crate) use delete_queue::DeleteQueue;
pub use get::{Found, Get, Object};
pub use list::ObjectInfo;
pub use pin::Pin;
pub use put::Put;

//! What callers do with objects.

mod attempts;
mod clear;
mod damage;
mod delete;
mod escaped;
mod get;
mod header;
mod list;
mod locate;
mod lookup;
mod payload;
mod pin;
mod put;
mod read;
mod read_plan;
mod request;
mod scrub;
mod selection;
mod stage;
#[cfg(test)]
mod test_store;
mod tombstones;
mod verify;
mod write;

pub use list::ObjectInfo;
pub use pin::Pin;
pub use request::{Get, GetInfo, Object, Put};
pub use scrub::{Finding, ScrubReport};

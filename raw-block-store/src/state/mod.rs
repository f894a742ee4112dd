//! The state that calls and the background thread share.

pub(crate) mod backoff;
mod calls;
pub(crate) mod containers;
mod delete_queue;
mod failing;
pub(crate) mod hash;
pub(crate) mod index;
pub(crate) mod pins;
pub(crate) mod policy;
mod reading;
mod scratch;
pub(crate) mod signal;
mod slots;
pub(crate) mod space;
mod store_state;
pub(crate) mod throttle;
pub(crate) mod unwind;

pub(crate) use calls::CallGuard;
pub(crate) use reading::ReadGuard;
pub(crate) use scratch::Scratch;
pub(crate) use slots::NoSpace;
pub(crate) use store_state::{StateParts, StoreState};

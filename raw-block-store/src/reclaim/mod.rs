//! Reclaiming space: victims are chosen, what is to be kept of them is moved, and a checkpoint
//! releases them.
//!
//! One reclaim runs at a time. Callers that need space in the meantime wait for it. When it ends,
//! the deletes that wait get space first. The background worker runs reclaims before a put has to
//! wait for one.

mod candidates;
mod clear;
mod copy;
mod discard;
mod due;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod kept_tests;
mod moves;
mod run;
#[cfg(test)]
mod tests;
mod victims;
#[cfg(test)]
mod waiting_tests;
mod worker;

pub(crate) use clear::clear;
pub(crate) use due::checkpoint_if_due;
pub(crate) use run::make_space;
pub(crate) use worker::Worker;
#[cfg(feature = "faults")]
pub(crate) use worker::work;

//! A store of keyed objects on a raw block device.
//!
//! [`Store::format`] makes a store, [`Store::open`] opens it; [`Store::put_many`],
//! [`Store::get_many`] and [`Store::delete_many`] work on batches, each of which is one submission
//! to the device. What was put is durable after [`Store::flush`]. Every object carries its key and
//! its checksums: a get returns the exact bytes of some put of that key, or says that there is
//! none, or that it is damaged.
//!
//! Calls block. [`AsyncStore`] is a front for callers that must not: with futures for any executor,
//! or a completion queue for event loops.
//!
//! A store needs an [`IoBackend`](raw_block_core::backend::IoBackend); [`open_backend`] opens one
//! by its path. See [`Store`] for an example, and [`format`](mod@format) for what lies on the
//! device.
//!
//! The types of `raw-block-core` that most programs need are re-exported here, and all others are
//! in [`core`]: one dependency is enough.
//!
//! # Features
//! - `posix`, `uring`, `nvme` (all on by default): the engines that [`open_backend`] can choose
//!   from.
//! - `bytes`: [`Buffer`] takes `Bytes` and `BytesMut`.
//! - `cli`: the program `rawblock`, for operators. Nothing of it is in the library.

pub mod format;

mod batch_result;
mod checkpoint;
mod engine;
mod error;
mod front;
mod io;
#[cfg_attr(
    not(feature = "faults"),
    expect(dead_code, unreachable_pub, reason = "nothing can switch them on")
)]
mod mutant;
mod open;
mod ops;
mod options;
mod reclaim;
mod state;
mod stats;
mod store;

pub use batch_result::BatchResult;
pub use engine::{Engine, open_backend, open_backend_read_only};
pub use error::Error;
pub use front::{
    AsyncOptions, AsyncStats, AsyncStore, Batch, CloseReport, Completion, CompletionQueue,
    Finished, FrontHealth, Outcome, OwnedGet, OwnedPut, Pending, Refused, RequestId,
};
#[cfg(feature = "faults")]
#[doc(hidden)]
pub use mutant::{Mutant, simulate};
pub use ops::{Finding, Get, GetInfo, Object, ObjectInfo, Pin, Put, ScrubReport};
pub use options::{EvictionPolicy, FormatOptions, OpenOptions, Verification};
#[doc(no_inline)]
pub use raw_block_core as core;
#[doc(no_inline)]
pub use raw_block_core::{
    AlignedBuf, Buffer, BufferPool, Direct, Dispatcher, ErrorKind, Geometry, Lease, Region,
};
pub use stats::health::{Health, HealthState};
pub use stats::{Latency, Progress, StoreStats};
pub use store::Store;

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! A store of keyed objects on a raw block device.
//!
//! [`Store::format`] makes a store, [`Store::open`] opens it; [`Store::put_many`], [`Store::get_many`] and
//! [`Store::delete_many`] work on batches, each of which is one submission to the device. What was put is
//! durable after [`Store::flush`]. Every object carries its key and its checksums: a get returns the exact
//! bytes of some put of that key, or says that there is none, or that it is damaged.
//!
//! A store needs an [`IoBackend`](raw_block_core::IoBackend); [`open_device`] opens one by its path. See
//! [`Store`] for an example, and [`format`](mod@format) for what lies on the device.
//!
//! # Features
//! - `posix`, `uring`, `nvme` (all on by default): the engines that [`open_device`] can choose from.
//! - `cli`: the program `rawblock`, for operators. Nothing of it is in the library.

pub mod format;

mod checkpoint;
mod checkpoint_thread;
mod claim;
mod delete;
mod engine;
mod error;
mod eviction;
#[cfg_attr(
    not(feature = "faults"),
    expect(dead_code, unreachable_pub, reason = "nothing can switch them on")
)]
mod fault;
mod fixed;
mod get;
mod hash;
mod index;
mod layout;
mod limited_log;
mod options;
mod pace;
mod pin;
mod progress;
mod put;
mod read_ahead;
mod recovery;
mod scratch;
mod scrub;
#[doc(hidden)]
pub mod segments;
mod shared;
mod signature;
mod slot_buffers;
mod space;
mod stats;
mod store;
mod superblocks;
mod verification;
mod walk;
mod zeroes;

pub use engine::{Engine, open_device, open_device_read_only};
pub use error::Error;
pub use eviction::EvictionPolicy;
#[cfg(feature = "faults")]
#[doc(hidden)]
pub use fault::{Fault, take_checkpoints_in_single_blocks};
pub use get::{Found, Get, Object};
pub use options::{FormatOptions, OpenOptions};
pub use pin::Pin;
pub use progress::Progress;
pub use put::Put;
pub use scrub::{Finding, ScrubReport};
pub use slot_buffers::{SlotBuf, SlotPool};
pub use stats::{Latency, StoreStats};
pub use store::Store;
pub use verification::Verification;
pub use walk::ObjectInfo;

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

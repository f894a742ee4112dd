//! Batched block I/O: everything between a caller and a backend.
//!
//! A caller describes transfers ([`WriteAt`], [`ReadAt`]), the [`Dispatcher`] checks them against
//! the [`Geometry`] of the device, copies what the device cannot take as it is, merges neighbours,
//! and hands the batch to one queue of an [`IoBackend`] in one submission. Each transfer has its
//! own result.
//!
//! This crate comes with one backend, [`MemoryBackend`], to test code on that works on a device.
//! The crates `raw-block-posix` and `raw-block-uring` have those for files and block devices.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use raw_block_core::{Dispatcher, MemoryBackend, OwnedTransfer, AlignedBuf, ReadAt, WriteAt};
//!
//! let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
//!
//! // Borrowed memory: the call returns when the batch is over.
//! device.write_buffers(&[WriteAt::new(0, b"padded to a block").padded_to(512)]).all()?;
//! let mut found = [0; 17];
//! device.read_buffers(&mut [ReadAt::new(0, &mut found).padded_to(512)]).all()?;
//! assert_eq!(&found, b"padded to a block");
//!
//! // Owned memory: the call returns at once, and the ticket gives the buffers back.
//! let batch = vec![OwnedTransfer::new(4096, AlignedBuf::zeroed(4096)?)];
//! let ticket = device.batched_write(batch).map_err(|refused| refused.error)?;
//! for finished in ticket.wait() {
//!     finished.result?;
//! }
//! # Ok::<(), raw_block_core::Error>(())
//! ```
//!
//! # Features
//! `conformance`: the test suite that every backend passes, for authors of backends.
//!
//! `simulated`: an in-memory device that loses power, reorders and fails on request, for programs
//! that keep data on a device.

pub use buffer::{AlignedBuf, BufferPool, Registration};
pub use direct::Direct;
pub use dispatch::{
    BatchResult, Dispatcher, DispatcherOptions, Finished, Refused, Ticket, can_batch,
};
pub use error::{Error, ErrorClass, ErrorKind};
pub use geometry::Geometry;
pub use memory::MemoryBackend;
pub use stats::StatsSnapshot;
pub use transfer::{OwnedTransfer, ReadAt, WriteAt};
pub use write_options::WriteOptions;

pub mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "simulated")]
pub mod simulated;

mod buffer;
mod direct;
mod dispatch;
mod error;
mod geometry;
mod memory;
#[doc(hidden)]
pub mod process;
mod stats;
#[doc(hidden)]
pub mod sync;
mod transfer;
mod write_options;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("lengths in memory and on the device are taken to be equally wide");

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

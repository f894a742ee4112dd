//! Batched block I/O: describe a whole batch of transfers in one call; it reaches the backend in
//! one submission, and each transfer gets its own result.
//!
//! The caller describes transfers ([`WriteAt`], [`ReadAt`]). The [`Dispatcher`] checks them against
//! the [`Geometry`] of the device, stages unaligned memory, merges neighbours, and submits the
//! batch to one queue of an [`IoBackend`](backend::IoBackend).
//!
//! This crate has one backend, [`MemoryBackend`], to test code that uses a device. The crates
//! `raw-block-posix` and `raw-block-uring` have backends for files and block devices,
//! `raw-block-nvme` for NVMe passthrough. The module [`backend`] has what the author of another
//! backend needs.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use raw_block_core::{Dispatcher, MemoryBackend, OwnedTransfer, AlignedBuf, ReadAt, WriteAt};
//!
//! let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
//!
//! // Borrowed memory: the call returns when the batch has completed.
//! device.write_buffers(&[WriteAt::new(0, b"padded to a block").padded_to(512)]).all()?;
//! let mut found = [0; 17];
//! device.read_buffers(&mut [ReadAt::new(0, &mut found).padded_to(512)]).all()?;
//! assert_eq!(&found, b"padded to a block");
//!
//! // Owned memory: the call returns at once, and the ticket returns the memory.
//! let batch = vec![OwnedTransfer::new(4096, AlignedBuf::zeroed(4096)?)];
//! let ticket = device.batched_write(batch).map_err(|refused| refused.error)?;
//! for finished in ticket.wait() {
//!     finished.result?;
//! }
//! # Ok::<(), raw_block_core::Error>(())
//! ```
//!
//! # Memory
//! Batches that borrow their memory take any slices. Batches that own it take a [`Buffer`]: an
//! [`AlignedBuf`] from the heap or from a [`BufferPool`], a `Vec<u8>`, or a [`Lease`] of a
//! [`Region`], which is memory of another owner. The dispatcher copies only what the device cannot
//! transfer directly. Backends of io_uring transfer faster from and to memory with a
//! [`Registration`].
//!
//! # Features
//! `bytes`: owned transfers of `bytes::Bytes` and `bytes::BytesMut`.
//!
//! `conformance`: the test suite that every backend passes, for authors of backends.
//!
//! `simulated`: a device in memory that loses power, reorders ops and fails on request, to test
//! code that stores data on a device.

pub use buffer::{AlignedBuf, Buffer, BufferPool, Lease, Region, Registration};
pub use direct::Direct;
pub use dispatch::{
    BatchResult, Dispatcher, DispatcherOptions, Finished, Refused, Ticket, can_batch,
};
pub use error::{Error, ErrorClass, ErrorKind};
pub use geometry::Geometry;
pub use memory::MemoryBackend;
pub use owned_transfer::OwnedTransfer;
pub use stats::StatsSnapshot;
pub use transfer::{ReadAt, WriteAt};
pub use wake_fd::WakeFd;
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
mod owned_transfer;
#[doc(hidden)]
pub mod process;
mod stats;
#[doc(hidden)]
pub mod sync;
mod transfer;
mod wake_fd;
mod write_options;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("lengths in memory and on the device are taken to be equally wide");

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Block I/O on files and block devices with io_uring: one system call for a batch.
//!
//! [`UringBackend`] opens a file or a block device; a [`Dispatcher`] over it moves batches. A batch
//! that fits the ring is exactly one `io_uring_enter`, which submits all ops and waits for all of
//! them. The device is a registered file. The memory of a [`BufferPool`] can be registered too.
//!
//! On a block device with write streams (Linux 6.16; NVMe with flexible data placement),
//! [`WriteOptions::placement`] selects one of them: handle 0 is stream 1. The geometry reports the
//! number of handles: 0 for a partition, for a regular file, and through the page cache.
//!
//! Needs Linux 5.13 and a process that may use io_uring. Container runtimes often forbid it in
//! their seccomp profile; then [`UringBackend::open`] and [`probe`] fail and name the cause.
//!
//! The types of `raw-block-core` that most programs need are re-exported here, and all others are
//! in [`core`]: one dependency is enough. Backends for other commands, such as NVMe passthrough,
//! build on the rings in [`ring`]; users of files and block devices do not need it.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use raw_block_uring::{AlignedBuf, Dispatcher, ReadAt, UringBackend, UringOptions, WriteAt};
//!
//! # let file = tempfile::NamedTempFile::new()?;
//! # file.as_file().set_len(1 << 20)?;
//! # let path = file.path();
//! let backend = UringBackend::open(path, &UringOptions::new())?;
//! let dispatcher = Dispatcher::new(Arc::new(backend))?;
//! let mut buffer = AlignedBuf::zeroed(8192)?;
//! buffer.fill(7);
//! dispatcher.write_buffers(&[WriteAt::new(0, &buffer), WriteAt::new(65536, &buffer)]).all()?;
//! dispatcher.flush()?;
//! dispatcher.read_buffers(&mut [ReadAt::new(65536, &mut buffer)]).all()?;
//! assert_eq!(dispatcher.stats().submissions, 3); // a batch, a flush, a batch
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod call;
mod entry;
mod in_flight;
mod options;
mod queue;
pub mod ring;
#[cfg(test)]
mod tests;

pub use backend::UringBackend;
pub use options::UringOptions;
#[doc(no_inline)]
pub use raw_block_core as core;
#[doc(no_inline)]
pub use raw_block_core::{
    AlignedBuf, Buffer, BufferPool, Direct, Dispatcher, Error, ErrorKind, Lease, OwnedTransfer,
    ReadAt, Region, Ticket, WriteAt, WriteOptions,
};
pub use ring::flags::GrantedFlags;
pub use ring::setup::probe;

/// Runs the examples of the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

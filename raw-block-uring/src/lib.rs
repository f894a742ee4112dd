//! Block I/O on io_uring: a batch of transfers is one system call.
//!
//! [`UringBackend`] opens a file or a block device; a
//! [`Dispatcher`](raw_block_core::Dispatcher) over it moves batches. A batch that fits the ring is
//! exactly one `io_uring_enter`, which submits all of it and waits for all of it. The device is a
//! registered file; memory of a [`BufferPool`](raw_block_core::BufferPool) can be registered too.
//!
//! On a block device with write streams (Linux 6.16; NVMe with flexible data placement),
//! [`WriteOptions::placement`](raw_block_core::WriteOptions::placement) names one of them: handle 0 is stream 1. The
//! number of handles is in the geometry: 0 for a partition, a regular file, and through the page cache.
//!
//! Needs Linux 5.13 and a process that may use io_uring; container runtimes often forbid it in their
//! seccomp profile, and then [`UringBackend::open`] and [`probe`] say so.
//!
//! Backends of other commands build on [`Ring`], in either [`Width`]; users of files and block devices
//! need nothing of it.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};
//! use raw_block_uring::{UringBackend, UringOptions};
//!
//! # let file = tempfile::NamedTempFile::new()?;
//! # file.as_file().set_len(1 << 20)?;
//! # let path = file.path();
//! let device = Dispatcher::new(Arc::new(UringBackend::open(path, &UringOptions::default())?))?;
//! let mut buffer = AlignedBuf::zeroed(8192)?;
//! buffer.fill(7);
//! device.write_buffers(&[WriteAt::new(0, &buffer), WriteAt::new(65536, &buffer)]).all()?;
//! device.flush()?;
//! device.read_buffers(&mut [ReadAt::new(65536, &mut buffer)]).all()?;
//! assert_eq!(device.stats().submissions, 3); // a batch, a flush, a batch
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod call;
mod device;
mod entry;
mod in_flight;
mod kernel;
mod queue;
mod regions;
mod ring;
mod setup;
mod slots;
#[cfg(test)]
mod tests;
mod unsubmitted;
mod width;

pub use backend::{UringBackend, UringOptions};
pub use device::RingDevice;
pub use kernel::{Enter, Kernel, Linux};
pub use regions::Lookup;
pub use ring::Ring;
pub use setup::{GrantedFlags, probe};
pub use slots::Slots;
pub use width::{Big, Outcome, Standard, Width};

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Block I/O on files and block devices with `pread` and `pwrite`, for systems without `io_uring`.
//!
//! [`PosixBackend`] opens a file or a block device; a [`Dispatcher`] over it moves batches. It
//! needs only plain system calls. Use it where the kernel or the seccomp profile of a container has
//! no `io_uring`, where the file system has no `O_DIRECT`, and as the reference to compare other
//! backends with: with one thread, ops run sequentially on the thread that waits for them.
//!
//! The types of `raw-block-core` that most programs need are re-exported here, and all others are
//! in [`core`]: one dependency is enough.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use raw_block_posix::{Dispatcher, PosixBackend, PosixOptions, ReadAt, WriteAt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = tempfile::NamedTempFile::new()?;
//! file.as_file().set_len(1 << 20)?;
//!
//! let backend = PosixBackend::open(file.path(), &PosixOptions::new())?;
//! let dispatcher = Dispatcher::new(Arc::new(backend))?;
//! dispatcher.write_buffers(&[WriteAt::new(0, b"some bytes").padded_to(4096)]).all()?;
//! dispatcher.flush()?;
//!
//! let mut found = [0; 10];
//! dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found).padded_to(4096)]).all()?;
//! assert_eq!(&found, b"some bytes");
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//! A bounded pool of threads ([`PosixOptions::threads`](field@PosixOptions::threads)), shared by
//! all queues of a backend, executes the ops of a batch in parallel. The thread that waits for the
//! batch takes part; a batch of one op never leaves it. Threads are started on first use, sleep
//! without waking up while there is no work, and end with the backend and its queues. If the system
//! refuses to start a thread, the existing ones do the work.
//!
//! Dropping a queue executes all ops that it accepted. There is no
//! [`event_fd`](core::backend::IoQueue::event_fd), and there is no memory to register.
//!
//! # Requirements
//! - Linux 4.9, for write-zeroes on block devices. If a device or a file system lacks an operation,
//!   the op fails with [`Unsupported`](ErrorKind::Unsupported).
//! - A discard is the ioctl `BLKDISCARD` on a block device that supports it, and a hole in a file.
//! - From Linux 6.1 on, and on file systems that report it (`STATX_DIOALIGN`), the alignment of
//!   direct transfers is that of the device; before, files are used in blocks of 4096 bytes.
//!   Without `O_DIRECT` any byte range can be transferred.
//! - A flush is `fdatasync`. It omits nothing that matters: no op changes the size of the device,
//!   and `fdatasync` makes blocks durable that a file system allocated for a write.
#![forbid(unsafe_code)]

mod backend;
mod options;
mod queue;
mod shared_queue;
mod thread_pool;
mod transfer;

pub use backend::PosixBackend;
pub use options::PosixOptions;
#[doc(no_inline)]
pub use raw_block_core as core;
#[doc(no_inline)]
pub use raw_block_core::{
    AlignedBuf, Buffer, BufferPool, Direct, Dispatcher, Error, ErrorKind, Lease, OwnedTransfer,
    ReadAt, Region, Ticket, WriteAt, WriteOptions,
};

/// Runs the examples of the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

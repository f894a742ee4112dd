//! Block I/O on files and block devices by `pread` and `pwrite`: what runs where `io_uring` does not.
//!
//! A backend for [`raw_block_core`] that needs nothing but plain system calls. It is the one to take
//! where a kernel or the seccomp profile of a container has no `io_uring`, where the file system has no
//! `O_DIRECT`, and as the reference to compare others with: with one thread, ops run one after the
//! other on the thread that waits for them.
//!
//! ```
//! use std::sync::Arc;
//! use raw_block_core::{Dispatcher, ReadAt, WriteAt};
//! use raw_block_posix::{PosixBackend, PosixOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = tempfile::NamedTempFile::new()?;
//! file.as_file().set_len(1 << 20)?;
//!
//! let backend = PosixBackend::open(file.path(), &PosixOptions::default())?;
//! let device = Dispatcher::new(Arc::new(backend))?;
//! device.write_buffers(&[WriteAt::new(0, b"some bytes").padded_to(4096)]).all()?;
//! device.flush()?;
//!
//! let mut found = [0; 10];
//! device.read_buffers(&mut [ReadAt::new(0, &mut found).padded_to(4096)]).all()?;
//! assert_eq!(&found, b"some bytes");
//! # Ok(())
//! # }
//! ```
//!
//! # How a batch gets its depth
//! Threads, shared by all queues of a backend and bounded by [`PosixOptions::threads`], carry out the
//! ops of a batch side by side. The thread that waits for the batch takes part; a batch of one op never
//! leaves it. Threads are started when there is first something for them to do, sleep without waking up
//! while there is nothing, and end with the backend and its queues. Where the system has no more
//! threads, those that there are do the work.
//!
//! Who does not want to wait does not: a caller with a deadline, or one that only looks
//! ([`Ticket::try_wait`](raw_block_core::Ticket::try_wait)), leaves all ops to the other threads. Where
//! there are no others, each such look carries out one op, so that looking often enough ends the batch.
//!
//! Dropping a queue carries out all that it accepted. There is no
//! [`event_fd`](raw_block_core::IoQueue::event_fd), and there is no memory to register.
//!
//! # What the kernel has to offer
//! - Linux 4.9, for write-zeroes on block devices. What a device or a file system lacks ends in
//!   [`Unsupported`](raw_block_core::ErrorKind::Unsupported).
//! - A discard is the ioctl `BLKDISCARD` on a block device, wherever that has the operation, and a hole
//!   in a file.
//! - From Linux 6.1 on, and on file systems that report it (`STATX_DIOALIGN`), the alignment of direct
//!   transfers is that of the device; before, files are used in blocks of 4096 bytes. Without `O_DIRECT`
//!   any byte range can be transferred.
//! - A flush is `fdatasync`. It leaves out nothing that matters: no op changes the size of the device,
//!   and blocks that a file system allocated for a write are part of what it makes durable.
#![forbid(unsafe_code)]

pub use backend::{PosixBackend, PosixOptions};

mod backend;
mod queue;
mod share;
mod transfer;
mod workers;

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

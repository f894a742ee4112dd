//! Block I/O with NVMe passthrough: NVMe commands through io_uring, bypassing the block layer.
//!
//! [`NvmeBackend`] opens the character device of a namespace (`/dev/ngXnY`); a [`Dispatcher`] over
//! it moves batches. The backend reads the limits of the controller and the namespace, splits each
//! op into commands that they accept, and keeps all commands in flight together. The error of a
//! failed command carries the NVMe status ([`Status`]). The device file may also belong to a
//! namespace on another host, over NVMe over Fabrics.
//!
//! Needs Linux 5.19 with io_uring, and before 6.2 the capability `CAP_SYS_ADMIN`.
//!
//! The types of `raw-block-core` that most programs need are re-exported here, and all others are
//! in [`core`]: one dependency is enough.
//!
//! # Examples
//! ```no_run
//! use std::sync::Arc;
//! use raw_block_nvme::{AlignedBuf, Dispatcher, NvmeBackend, NvmeOptions, WriteAt};
//!
//! let backend = Arc::new(NvmeBackend::open("/dev/ng0n1", &NvmeOptions::new())?);
//! println!("{}, {} blocks", backend.controller().model, backend.namespace().blocks);
//! let dispatcher = Dispatcher::new(backend)?;
//! let buffer = AlignedBuf::zeroed(1 << 20)?;
//! dispatcher.write_buffers(&[WriteAt::new(0, &buffer), WriteAt::new(4 << 20, &buffer)]).all()?;
//! dispatcher.flush()?;
//! # Ok::<(), raw_block_nvme::Error>(())
//! ```

mod backend;
mod claim;
mod command;
mod device;
mod entry;
mod identify;
mod in_flight;
mod limits;
mod node;
mod options;
mod placement;
mod polling;
mod queue;
mod retry_pauses;
mod status;
mod sysfs;
#[cfg(test)]
mod tests;
mod translator;
mod verdict;

pub use backend::NvmeBackend;
pub use identify::{Controller, Namespace};
pub use options::NvmeOptions;
pub use placement::ReclaimUnitHandle;
#[doc(no_inline)]
pub use raw_block_core as core;
#[doc(no_inline)]
pub use raw_block_core::{
    AlignedBuf, Buffer, BufferPool, Direct, Dispatcher, Error, ErrorKind, Lease, OwnedTransfer,
    ReadAt, Region, Ticket, WriteAt, WriteOptions,
};
pub use status::{Advice, Status};

/// Runs the examples of the README as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Block I/O by NVMe passthrough: commands of our own, past the kernel's block layer.
//!
//! [`NvmeBackend`] opens the character device of a namespace (`/dev/ngXnY`); a
//! [`Dispatcher`](raw_block_core::Dispatcher) over it moves batches. It asks controller and namespace for their limits,
//! cuts each op into the commands that they take, has all of them in flight at once, and tells what the controller said
//! when one fails ([`Status`]). The same device file can be a namespace on another host, by NVMe over Fabrics.
//!
//! Needs Linux 5.19 with io_uring, and before 6.2 the capability `CAP_SYS_ADMIN`.
//!
//! # Examples
//! ```no_run
//! use std::sync::Arc;
//! use raw_block_core::{AlignedBuf, Dispatcher, WriteAt};
//! use raw_block_nvme::{NvmeBackend, NvmeOptions};
//!
//! let backend = Arc::new(NvmeBackend::open("/dev/ng0n1", &NvmeOptions::default())?);
//! println!("{}, {} blocks", backend.controller().model, backend.namespace().blocks);
//! let device = Dispatcher::new(backend)?;
//! let buffer = AlignedBuf::zeroed(1 << 20)?;
//! device.write_buffers(&[WriteAt::new(0, &buffer), WriteAt::new(4 << 20, &buffer)]).all()?;
//! device.flush()?;
//! # Ok::<(), raw_block_core::Error>(())
//! ```

mod backend;
mod command;
mod identify;
mod in_flight;
mod limits;
mod node;
mod placement;
mod polling;
mod queue;
mod resting;
mod status;
mod sysfs;
#[cfg(test)]
mod tests;
mod translator;
mod verdict;

pub use backend::{NvmeBackend, NvmeOptions};
pub use identify::{Controller, Namespace};
pub use placement::ReclaimUnitHandle;
pub use status::{Advice, Status};

/// The examples of the README are tested like those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

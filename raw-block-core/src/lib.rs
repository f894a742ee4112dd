//! Batched block I/O.
pub use backend::{Completion, IoBackend, IoQueue};
pub use buffer::{AlignedBuf, Arena, BUFFER_ALIGNMENT, BufferPool};
pub use device_file::{DeviceFile, Direct};
pub use dispatch::{
    BatchResult, Dispatcher, DispatcherOptions, Finished, MAX_BATCH, Refused, Ticket,
};
pub use error::{Error, ErrorKind};
pub use geometry::{Geometry, MIN_LOGICAL_BLOCK};
pub use memory::MemoryBackend;
pub use op::{Op, OpKind};
pub use stats::{Stats, StatsSnapshot};
pub use transfer::{OwnedTransfer, ReadAt, Transfer, WriteAt, can_batch};

#[cfg(feature = "conformance")]
pub mod conformance;

mod backend;
mod buffer;
mod device_file;
mod dispatch;
mod error;
mod geometry;
mod memory;
mod op;
mod stats;
mod transfer;

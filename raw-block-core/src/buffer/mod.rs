//! Memory that a device can transfer from and to as it is.

mod aligned;
mod arena;
mod pool;

pub use aligned::AlignedBuf;
pub use arena::{Arena, Registration};
pub use pool::BufferPool;

/// Every buffer starts at a multiple of this many bytes: the page size, which satisfies any device.
pub const BUFFER_ALIGNMENT: usize = 4096;

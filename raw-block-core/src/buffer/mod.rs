//! Memory that a device can transfer from and to as it is.

mod aligned;
mod arena;
mod pool;

pub use aligned::AlignedBuf;
pub use arena::{Arena, Registration};
pub use pool::BufferPool;

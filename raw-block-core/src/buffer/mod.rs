//! Memory that a device can transfer from and to as it is.

mod aligned;
mod arena;
mod pool;
mod registration;
mod slab;

pub use aligned::AlignedBuf;
pub use arena::Arena;
pub use pool::BufferPool;
pub use registration::Registration;

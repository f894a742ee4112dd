//! The memory of transfers.

mod aligned;
mod arena;
mod owned;
mod pool;
mod registration;
mod slab;

pub use aligned::AlignedBuf;
pub use arena::Arena;
pub use owned::Buffer;
pub use pool::BufferPool;
pub use registration::Registration;

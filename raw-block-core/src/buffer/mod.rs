//! The memory of transfers.

mod aligned;
mod arena;
mod owned;
mod pool;
mod region;
mod registration;
mod slab;

pub use aligned::AlignedBuf;
pub use arena::Arena;
pub use owned::Buffer;
pub use pool::BufferPool;
pub use region::{Lease, Region};
pub use registration::Registration;

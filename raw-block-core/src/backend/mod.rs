//! What the author of a backend needs; users of a backend do not.
//!
//! A backend implements [`IoBackend`], which opens queues, and [`IoQueue`], which takes [`Op`]s and
//! returns [`Completion`]s. The contract is stated at [`IoQueue`] and tested by the feature
//! `conformance`. A backend on a file or a block device opens it with [`DeviceFile`].
//!
//! `examples/own_backend.rs` is a complete backend in safe code.

mod batch_memory;
mod device_file;
mod flush_state;
mod op;
mod op_kind;
mod traits;

pub(crate) use batch_memory::{BatchMemory, Segment};
pub use device_file::{DeviceFile, lock_device};
pub use flush_state::FlushState;
pub use op::{Completion, Op};
pub use op_kind::OpKind;
pub use traits::{IoBackend, IoQueue};

pub use crate::buffer::Arena;
pub use crate::stats::Stats;
pub use crate::transfer::Transfer;

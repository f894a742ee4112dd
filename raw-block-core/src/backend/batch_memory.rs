//! The memory of a batch, which its ops keep alive.

use crate::{AlignedBuf, OwnedTransfer};

/// One memory segment: an address and a length, as the kernel takes them.
///
/// Only a pair of numbers: code that dereferences the address proves that it may.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Segment(pub(crate) libc::iovec);

// SAFETY: the address is plain data here; dereferencing it is unsafe and proved where it happens.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

/// The memory that the ops of one batch point into: their segment lists, what was staged, and the
/// transfers of an owned batch.
///
/// Every [`Op`](super::op::Op) holds a reference. While there is one, nothing here moves or is
/// freed; when there is none, no backend can touch the caller's memory any more. So the dispatcher
/// does not count completions to decide that a batch is released: it checks whether it holds the
/// only reference.
#[derive(Debug, Default)]
pub(crate) struct BatchMemory {
    pub(crate) segments: Vec<Segment>,
    pub(crate) staging: AlignedBuf,
    pub(crate) owned: Vec<OwnedTransfer>,
}

//! Memory that a backend has registered.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use super::arena::Arena;
use crate::backend::IoBackend;
use crate::{Error, ErrorKind};

/// Memory that is registered with a backend until this is dropped: that of a
/// [`BufferPool`](crate::BufferPool::register_with), a range of a
/// [`Region`](crate::Region::register_with), or the caller's own.
///
/// The caller's own is memory from another allocator: pinned host memory of a GPU library, a shared
/// segment. Any slice inside it then serves as a registered buffer.
///
/// A registration ends when it is dropped, for transfers that begin later, and with the backend,
/// which it does not keep open. A queue releases the pages when it is next used or closed; until
/// then they count as pinned. The queue of a thread is closed at the latest when the thread ends.
///
/// # Examples
/// ```
/// use std::ptr::NonNull;
/// use std::sync::Arc;
/// use raw_block_core::{MemoryBackend, Registration};
///
/// let mut memory = vec![0_u8; 1 << 20];
/// let range = (NonNull::from(&mut memory[..]).cast(), memory.len());
/// let device = Arc::new(MemoryBackend::new(1 << 20)?);
/// // SAFETY: the vector is neither dropped nor made to grow before the registration.
/// let registration = unsafe { Registration::new(device, &[range]) };
/// assert!(registration.is_err(), "memory has nothing to register");
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[must_use = "dropping a registration ends it"]
pub struct Registration {
    backend: Weak<dyn IoBackend>,
    arena: Arc<Arena>,
}

impl Registration {
    /// Registers ranges of memory, each an address and a number of bytes.
    ///
    /// # Errors
    /// Those of [`IoBackend::register`]; [`ErrorKind::InvalidInput`] when a range is empty. Nothing
    /// is registered then, and transfers work without it.
    ///
    /// # Safety
    /// Until the registration is dropped, every range stays mapped to the pages that it has now: it
    /// is not unmapped, remapped or moved, nor given other pages by `madvise(2)`. Otherwise the
    /// device reads and writes the old pages, and reports success.
    #[expect(clippy::needless_pass_by_value, reason = "only a value coerces to `dyn IoBackend`")]
    pub unsafe fn new(
        backend: Arc<dyn IoBackend>,
        ranges: &[(NonNull<u8>, usize)],
    ) -> Result<Self, Error> {
        if ranges.is_empty() || ranges.iter().any(|&(_, len)| len == 0) {
            let rule = "there is no memory in it: name ranges of at least one byte";
            let error = Error::new(ErrorKind::InvalidInput, "register memory", rule);
            return Err(error.on(backend.name()));
        }
        Self::of(&backend, Arc::new(Arena::borrowed(ranges)))
    }

    /// Registers an arena.
    pub(super) fn of(backend: &Arc<dyn IoBackend>, arena: Arc<Arena>) -> Result<Self, Error> {
        backend.register(Arc::clone(&arena))?;
        Ok(Self { backend: Arc::downgrade(backend), arena })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(backend) = self.backend.upgrade() {
            backend.unregister(&self.arena);
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("ranges", &self.arena.ranges().len())
            .finish_non_exhaustive()
    }
}

//! The pool that lends equal buffers from an arena.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::aligned::AlignedBuf;
use super::arena::Arena;
use super::registration::Registration;
use super::slab::Slab;
use crate::backend::IoBackend;
use crate::{Error, ErrorKind};

/// Lends buffers of one length from one [`Arena`].
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::{BufferPool, MemoryBackend};
///
/// let pool = BufferPool::new(256 << 10, 64)?;
/// let mut buffer = pool.take().expect("64 buffers are free");
/// buffer.fill(7);
/// drop(buffer); // returns to the pool
/// assert_eq!(pool.available(), 64);
///
/// // A backend that has registered memory serves these buffers faster.
/// let device = Arc::new(MemoryBackend::new(1 << 20)?);
/// assert!(pool.register_with(device).is_err(), "memory has nothing to register");
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BufferPool {
    slab: Arc<Slab>,
    buffer_len: usize,
}

impl BufferPool {
    /// A pool of `count` zeroed buffers of `buffer_len` bytes each.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when either is 0 or the product exceeds the address space;
    /// [`ErrorKind::OutOfResources`] when the system has no such memory.
    pub fn new(buffer_len: usize, count: usize) -> Result<Self, Error> {
        let impossible = || {
            Error::new(
                ErrorKind::InvalidInput,
                "create a buffer pool",
                format!(
                    "{count} buffers of {buffer_len} bytes are nothing, or exceed the address space"
                ),
            )
        };
        let stride =
            buffer_len.checked_next_multiple_of(AlignedBuf::ALIGNMENT).ok_or_else(impossible)?;
        let len = stride.checked_mul(count).and_then(NonZeroUsize::new).ok_or_else(impossible)?;
        let slab = Arc::new(Slab::new(Arena::map(len)?, stride, count));
        Ok(Self { slab, buffer_len })
    }

    /// Lends the free buffer with the lowest address, or `None` when all are lent. Buffers whose
    /// length is a multiple of [`AlignedBuf::ALIGNMENT`] are contiguous.
    #[must_use]
    pub fn take(&self) -> Option<AlignedBuf> {
        let (start, loan) = self.slab.take()?;
        // SAFETY: a slot starts at a multiple of the alignment, because the arena and the stride
        // do, and has at least `buffer_len` bytes. `Slab::take` states the rest.
        Some(unsafe { AlignedBuf::lent(start, self.buffer_len, loan) })
    }

    /// The length in bytes of every buffer.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// How many buffers the pool has, lent or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slab.count
    }

    /// How many buffers can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.slab.available()
    }

    /// Registers the pool's memory with a backend until the registration is dropped.
    ///
    /// The backend has the memory until then, also when the pool and its buffers are gone.
    ///
    /// # Errors
    /// Those of [`IoBackend::register`]; the pool works without it, so a caller may go on.
    #[expect(clippy::needless_pass_by_value, reason = "only a value coerces to `dyn IoBackend`")]
    pub fn register_with(&self, backend: Arc<dyn IoBackend>) -> Result<Registration, Error> {
        Registration::of(&backend, Arc::clone(&self.slab.arena))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_buffers_are_aligned_and_do_not_overlap() {
        let pool = BufferPool::new(5000, 3).unwrap();
        let mut lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(lent.len(), 3);
        for (byte, buffer) in (1..).zip(&mut lent) {
            assert_eq!(buffer.as_ptr() as usize % AlignedBuf::ALIGNMENT, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(byte);
        }
        for (byte, buffer) in (1..).zip(&lent) {
            assert!(buffer.iter().all(|&found| found == byte));
        }
    }

    #[test]
    fn buffers_taken_together_are_adjacent_from_a_huge_page_on() {
        let pool = BufferPool::new(4096, 32).unwrap();
        drop([pool.take(), pool.take(), pool.take()]);
        let lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(lent[0].as_ptr() as usize % (2 << 20), 0);
        for (number, buffer) in lent.iter().enumerate() {
            assert_eq!(buffer.as_ptr() as usize, lent[0].as_ptr() as usize + number * 4096);
        }
    }

    #[test]
    fn a_dropped_buffer_can_be_taken_again() {
        let pool = BufferPool::new(4096, 1).unwrap();
        let buffer = pool.take().unwrap();
        assert!(pool.take().is_none());
        drop(buffer);
        assert!(pool.take().is_some());
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let mut buffer = BufferPool::new(4096, 1).unwrap().take().unwrap();
        buffer.fill(9);
        assert_eq!(buffer[4095], 9);
    }

    #[test]
    fn an_impossible_pool_is_an_error() {
        for (len, count) in [(0, 1), (1, 0), (usize::MAX, 2), (1 << 40, 1 << 40)] {
            let error = BufferPool::new(len, count).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{len} x {count}");
        }
    }
}

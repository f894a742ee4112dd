//! One owned, aligned buffer.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::slab::Loan;
use crate::{Error, ErrorKind};

/// An owned buffer that starts at a multiple of [`AlignedBuf::ALIGNMENT`], so that a device can
/// transfer from and to it without a copy.
///
/// It comes from the heap ([`AlignedBuf::zeroed`]) or from a [`BufferPool`](crate::BufferPool), to
/// which it returns when it is dropped. The bytes are always initialised; those of a pool's buffer
/// are what its last user left there.
///
/// # Examples
/// ```
/// use raw_block_core::AlignedBuf;
///
/// let mut buffer = AlignedBuf::zeroed(8192)?;
/// buffer[..5].copy_from_slice(b"hello");
/// assert_eq!(buffer.len(), 8192);
/// assert_eq!(buffer.as_ptr() as usize % 4096, 0);
/// # Ok::<(), raw_block_core::Error>(())
/// ```
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    home: Home,
}

/// Where the memory goes when the buffer is dropped.
enum Home {
    /// There is none: the buffer is empty.
    Nowhere,
    Heap(Layout),
    Pool(#[expect(dead_code, reason = "held for its drop, which ends the loan")] Loan),
}

// SAFETY: the buffer owns its memory exclusively, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access to the buffer only reads its bytes, like a `Box<[u8]>`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// Every buffer starts at a multiple of this many bytes: the page size, which satisfies any
    /// device.
    pub const ALIGNMENT: usize = 4096;

    /// A buffer of `len` zeroes from the heap. `len` may be any number of bytes, also 0.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] when there is no memory.
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        if len == 0 {
            return Ok(Self::default());
        }
        let no_memory = || {
            Error::new(
                ErrorKind::OutOfResources,
                "allocate a buffer",
                format!("there is no memory for {len} bytes"),
            )
        };
        let layout = Layout::from_size_align(len, Self::ALIGNMENT).map_err(|_| no_memory())?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Ok(Self {
            start: NonNull::new(start).ok_or_else(no_memory)?,
            len,
            home: Home::Heap(layout),
        })
    }

    /// The address of the first byte, for memory that is shared with ops: it stays valid for writes
    /// until the bytes are borrowed through `Deref`.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The buffer that a pool lends.
    ///
    /// # Safety
    /// `start` is aligned to [`AlignedBuf::ALIGNMENT`] and names `len` initialised bytes that
    /// nothing else accesses until `loan` is dropped.
    pub(super) unsafe fn lent(start: NonNull<u8>, len: usize, loan: Loan) -> Self {
        Self { start, len, home: Home::Pool(loan) }
    }
}

impl Default for AlignedBuf {
    /// A buffer of length 0, without memory.
    fn default() -> Self {
        Self { start: NonNull::dangling(), len: 0, home: Home::Nowhere }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if let Home::Heap(layout) = self.home {
            // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed only here.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer owns `len` initialised bytes at `start` (dangling only for `len` 0).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pooled = matches!(self.home, Home::Pool(_));
        f.debug_struct("AlignedBuf")
            .field("len", &self.len)
            .field("pooled", &pooled)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_zeroed() {
        for len in [1, 511, 4096, 1 << 20] {
            let buffer = AlignedBuf::zeroed(len).unwrap();
            assert_eq!(buffer.as_ptr() as usize % AlignedBuf::ALIGNMENT, 0);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn an_empty_buffer_has_no_memory_and_no_bytes() {
        assert!(AlignedBuf::zeroed(0).unwrap().is_empty());
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let error = AlignedBuf::zeroed(usize::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfResources);
    }
}

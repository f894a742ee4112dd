//! Aligned memory for headers and copies, kept from one call to the next.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use raw_block_core::AlignedBuf;

use crate::Error;
use crate::error::Context;

/// The longest buffer that is kept, in bytes.
const KEPT: usize = 8 << 20;

/// Idle buffers.
#[derive(Debug, Default)]
pub(crate) struct ScratchPool(Mutex<Vec<AlignedBuf>>);

/// A buffer that returns to its pool. Its contents are unspecified.
pub(crate) struct Scratch<'a> {
    buffer: AlignedBuf,
    len: usize,
    pool: &'a ScratchPool,
}

impl ScratchPool {
    /// A buffer of `len` bytes.
    pub(crate) fn take(&self, len: usize) -> Result<Scratch<'_>, Error> {
        let kept = if len == 0 { AlignedBuf::default() } else { self.take_kept(len) };
        let buffer = if kept.len() >= len {
            kept
        } else {
            drop(kept);
            AlignedBuf::zeroed(len).context("allocate scratch memory")?
        };
        Ok(Scratch { buffer, len, pool: self })
    }

    /// The shortest idle buffer of at least `len` bytes. If there is none, the longest one: a
    /// longer one takes its place, so there are never more than were in use at one time.
    fn take_kept(&self, len: usize) -> AlignedBuf {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = |buffer: &AlignedBuf| match buffer.len() {
            short if short < len => (1, usize::MAX - short),
            long => (0, long),
        };
        let best = (0..kept.len()).min_by_key(|&at| fit(&kept[at]));
        best.map_or_else(AlignedBuf::default, |at| kept.swap_remove(at))
    }
}

impl Deref for Scratch<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() || buffer.len() > KEPT {
            return;
        }
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_by_what_it_fits_best() {
        let pool = ScratchPool::default();
        let (short, long) = (pool.take(4096).unwrap(), pool.take(1 << 20).unwrap());
        let (short_at, long_at) = (short.as_ptr(), long.as_ptr());
        drop((short, long));
        let long = pool.take(8192).unwrap();
        let short = pool.take(512).unwrap();
        assert_eq!((short.as_ptr(), long.as_ptr()), (short_at, long_at));
        assert_eq!((short.len(), long.len()), (512, 8192));
    }

    #[test]
    fn there_are_never_more_than_were_in_use_at_one_time() {
        let pool = ScratchPool::default();
        for blocks in (1..100).chain([3 << 10, 1]) {
            let (first, second) = (pool.take(blocks << 12).unwrap(), pool.take(512).unwrap());
            assert!(first.len() == blocks << 12 && second.len() == 512);
            drop(pool.take(0).unwrap());
        }
        let lengths: Vec<_> = pool.0.lock().unwrap().iter().map(|buffer| buffer.len()).collect();
        assert!(lengths.len() <= 2 && lengths.iter().all(|&len| len <= KEPT), "{lengths:?}");
    }
}

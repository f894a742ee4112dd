//! Aligned memory for headers, kept from one call to the next.

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
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = match kept {
            Some(buffer) if buffer.len() >= len => buffer,
            _ => AlignedBuf::zeroed(len).context("allocate memory for headers")?,
        };
        Ok(Scratch { buffer, len, pool: self })
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
        if buffer.len() > KEPT {
            return;
        }
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

//! Buffers in the shape of a slot: room for the header, and the payload behind it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use raw_block_core::{AlignedBuf, BufferPool, Registration};

use crate::error::Doing;
use crate::{Error, Store};

/// Lends buffers in the shape of a slot, from one piece of memory in huge pages, registered with the device
/// where that has such a thing, until the pool is dropped.
///
/// Header and payload of an object that is put from such a buffer are one piece of memory, so the device
/// gets one address in place of two. Buffers that are taken one after the other lie one behind the other as
/// long as none was given back; a batch of them that goes to neighbouring slots is one piece as a whole.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::MemoryBackend;
/// use raw_block_store::{FormatOptions, Get, Put, Store};
///
/// let device = Arc::new(MemoryBackend::new(64 << 20)?);
/// Store::format(device.clone(), &FormatOptions::for_payloads(256 << 10))?;
/// let store = Store::open(device)?;
///
/// let pool = store.slot_pool(32)?;
/// let mut buffer = pool.take().expect("32 buffers are free");
/// buffer.fill(7);
/// let (room, payload) = buffer.split();
/// store.put_many(&[Put::new(b"chunk", payload).with_room(room)]).remove(0)?;
///
/// let (room, payload) = buffer.split();
/// let found = store.get_many(&mut [Get::new(b"chunk", payload).with_room(room)]).remove(0)?;
/// assert_eq!(found.expect("it was put").payload_len, 256 << 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SlotPool {
    buffers: BufferPool,
    block_size: usize,
    /// Ends with the last clone of the pool.
    _registration: Option<Arc<Registration>>,
}

/// A buffer in the shape of a slot. As a slice it is the payload.
pub struct SlotBuf {
    buffer: AlignedBuf,
    block_size: usize,
}

impl Store {
    /// A pool of `count` buffers in the shape of this store's slots.
    ///
    /// # Errors
    /// [`Error::Device`] when the system has no such memory, or `count` is 0.
    pub fn slot_pool(&self, count: usize) -> Result<SlotPool, Error> {
        const DOING: &str = "make a pool of slot buffers";
        let block_size = self.block_size();
        let len = usize::try_from(self.max_payload()).unwrap_or(usize::MAX);
        let buffers = BufferPool::new(len.saturating_add(block_size), count).doing(DOING)?;
        // Only an optimisation; who wants to know asks the backend's counters.
        let registered = buffers.register_with(Arc::clone(self.device().backend()));
        let registration = registered
            .inspect_err(|error| tracing::debug!(%error, "the slot buffers are not registered"));
        Ok(SlotPool { buffers, block_size, _registration: registration.ok().map(Arc::new) })
    }
}

impl SlotPool {
    /// Lends a buffer, or `None` when all are out. Its contents are what its last user left there.
    #[must_use]
    pub fn take(&self) -> Option<SlotBuf> {
        Some(SlotBuf { buffer: self.buffers.take()?, block_size: self.block_size })
    }

    /// How many buffers the pool has, lent or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.buffers.count()
    }

    /// How many buffers can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.buffers.available()
    }
}

impl SlotBuf {
    /// The room for the header, and the payload directly behind it, for
    /// [`Put::with_room`](crate::Put::with_room) and [`Get::with_room`](crate::Get::with_room).
    #[must_use]
    pub fn split(&mut self) -> (&mut [u8], &mut [u8]) {
        self.buffer.split_at_mut(self.block_size)
    }
}

impl Deref for SlotBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.block_size..]
    }
}

impl DerefMut for SlotBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.split().1
    }
}

impl fmt::Debug for SlotBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotBuf").field("len", &self.len()).finish_non_exhaustive()
    }
}

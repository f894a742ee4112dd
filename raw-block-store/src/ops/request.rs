//! What callers put, what they get, and what comes back.

use std::io::IoSlice;
use std::ops::Range;

use raw_block_core::AlignedBuf;

use super::payload::Payload;
use crate::state::index::Located;
use crate::state::space::Demand;

/// An object to put.
///
/// # Examples
/// ```
/// use raw_block_store::Put;
///
/// let put = Put::new(b"layer 0", &[1; 1000]).with_metadata(b"f16, 500");
/// # let _ = put;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    pub(super) key: &'a [u8],
    pub(super) metadata: &'a [u8],
    pub(super) payload: Payload<'a>,
}

impl<'a> Put<'a> {
    /// An object without metadata.
    ///
    /// The key has at least one byte. A payload that is aligned like a device buffer, and whose
    /// length is a multiple of the block size, is written without a copy.
    #[must_use]
    pub fn new(key: &'a [u8], payload: &'a [u8]) -> Self {
        Self { key, metadata: &[], payload: Payload::One(payload) }
    }

    /// An object without metadata, whose payload is the concatenation of these slices: for memory
    /// that is not contiguous, such as the layers of a chunk. A get returns it in one piece.
    ///
    /// A slice is written without a copy if it is aligned like a device buffer and the slices
    /// before it fill whole blocks of the device. If it ends within a block, that part of it is
    /// copied, and so are the next slices up to one that ends with a block. A payload that fits the
    /// header block of its slot is always copied.
    ///
    /// # Examples
    /// ```
    /// use std::io::IoSlice;
    ///
    /// use raw_block_store::Put;
    /// # use std::sync::Arc;
    /// # use raw_block_store::core::MemoryBackend;
    /// # use raw_block_store::{FormatOptions, Store};
    /// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
    /// # Store::format(backend.clone(), &FormatOptions::default())?;
    /// # let store = Store::open(backend)?;
    ///
    /// let (keys, values) = (vec![1; 4096], vec![2; 8192]);
    /// let layer = [IoSlice::new(&keys), IoSlice::new(&values)];
    /// store.put_many(&[Put::gather(b"layer 0", &layer)]).all()?;
    /// assert_eq!(store.get(b"layer 0")?.unwrap().payload(), [keys, values].concat());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn gather(key: &'a [u8], payload: &'a [IoSlice<'a>]) -> Self {
        Self { key, metadata: &[], payload: Payload::Gathered(payload) }
    }

    /// The same with a small description of the payload, for the caller's own use. Key and metadata
    /// together fit into a block less 128 bytes.
    #[must_use]
    pub fn with_metadata(self, metadata: &'a [u8]) -> Self {
        Self { metadata, ..self }
    }

    /// What it needs of a slot. The lengths were checked.
    pub(super) fn demand(&self) -> Demand {
        let names = self.key.len() + self.metadata.len();
        Demand {
            names: u32::try_from(names).unwrap_or(u32::MAX),
            payload_len: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
        }
    }
}

/// An object to get, and where to put it.
///
/// # Examples
/// ```
/// use raw_block_store::Get;
///
/// let (mut payload, mut metadata) = ([0; 4096], [0; 64]);
/// let get = Get::new(b"layer 0", &mut payload).with_metadata(&mut metadata);
/// # let _ = get;
/// ```
#[derive(Debug)]
pub struct Get<'a> {
    pub(super) key: &'a [u8],
    pub(super) payload: &'a mut [u8],
    /// Empty if the metadata is left out.
    pub(super) metadata: &'a mut [u8],
}

impl<'a> Get<'a> {
    /// A get of the payload alone, into the front of `payload`.
    ///
    /// Memory that is aligned like a device buffer, for a payload whose length is a multiple of the
    /// device's block, is read into without a copy.
    #[must_use]
    pub fn new(key: &'a [u8], payload: &'a mut [u8]) -> Self {
        Self { key, payload, metadata: &mut [] }
    }

    /// The same with the metadata, into the front of `metadata`. If that is empty, it is left out.
    ///
    /// Metadata lies in the header of the object's slot. That is another block to read, and another
    /// transfer if the object shares the slot.
    #[must_use]
    pub fn with_metadata(self, metadata: &'a mut [u8]) -> Self {
        Self { metadata, ..self }
    }
}

/// What a get found.
///
/// # Examples
/// ```
/// use raw_block_store::Get;
/// # use std::sync::Arc;
/// # use raw_block_store::core::MemoryBackend;
/// # use raw_block_store::{FormatOptions, Store};
/// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
/// # Store::format(backend.clone(), &FormatOptions::default())?;
/// # let store = Store::open(backend)?;
/// store.put(b"key", b"payload")?;
/// let mut payload = [0; 16];
/// let found = store.get_many(&mut [Get::new(b"key", &mut payload)]).all()?;
/// let info = found[0].unwrap();
/// assert_eq!((info.payload_len, info.metadata_len), (7, 0));
/// assert_eq!(&payload[..info.payload_len], b"payload");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetInfo {
    /// Length in bytes of the payload, which is in the front of the caller's buffer.
    pub payload_len: usize,
    /// Length in bytes of the metadata.
    pub metadata_len: usize,
}

impl GetInfo {
    pub(super) fn of(located: &Located) -> Self {
        Self {
            payload_len: located.entry.payload_len.get() as usize,
            metadata_len: located.entry.metadata_len.get().into(),
        }
    }
}

/// A whole object, in its own memory.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// # use raw_block_store::core::MemoryBackend;
/// # use raw_block_store::{FormatOptions, Store};
/// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
/// # Store::format(backend.clone(), &FormatOptions::default())?;
/// # let store = Store::open(backend)?;
/// store.put(b"key", b"payload")?;
/// let object = store.get(b"key")?.unwrap();
/// assert_eq!(object.payload(), b"payload");
/// assert!(object.metadata().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Object {
    pub(super) buffer: AlignedBuf,
    pub(super) metadata: Vec<u8>,
    pub(super) payload: Range<usize>,
}

impl Object {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }
}

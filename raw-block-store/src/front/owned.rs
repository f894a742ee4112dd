//! Puts and gets that own their memory.

use raw_block_core::Buffer;

/// An object to put, which owns its memory.
///
/// # Examples
/// ```
/// use raw_block_store::{AlignedBuf, OwnedPut};
///
/// let put = OwnedPut::new(b"layer 0", AlignedBuf::zeroed(4096)?).with_metadata(b"f16");
/// assert_eq!((put.key(), put.metadata()), (&b"layer 0"[..], &b"f16"[..]));
/// # Ok::<(), raw_block_store::core::Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedPut {
    key: Vec<u8>,
    metadata: Vec<u8>,
    payload: Vec<Buffer>,
}

impl OwnedPut {
    /// An object without metadata. See [`Put::new`](crate::Put::new).
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>, payload: impl Into<Buffer>) -> Self {
        Self::gather(key, [payload])
    }

    /// An object without metadata, whose payload is the concatenation of these pieces of memory.
    /// See [`Put::gather`](crate::Put::gather).
    #[must_use]
    pub fn gather(
        key: impl Into<Vec<u8>>,
        payload: impl IntoIterator<Item = impl Into<Buffer>>,
    ) -> Self {
        let payload = payload.into_iter().map(Into::into).collect();
        Self { key: key.into(), metadata: Vec::new(), payload }
    }

    /// The same with metadata. See [`Put::with_metadata`](crate::Put::with_metadata).
    #[must_use]
    pub fn with_metadata(self, metadata: impl Into<Vec<u8>>) -> Self {
        Self { metadata: metadata.into(), ..self }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// The pieces of the payload.
    #[must_use]
    pub fn payload(&self) -> &[Buffer] {
        &self.payload
    }

    /// The memory of the payload, in its order.
    #[must_use]
    pub fn into_payload(self) -> Vec<Buffer> {
        self.payload
    }

    /// Bytes of memory that it owns.
    pub(super) fn bytes(&self) -> u64 {
        let payload = self.payload.iter().map(|piece| piece.len() as u64).sum::<u64>();
        payload + (self.key.len() + self.metadata.len()) as u64
    }
}

/// An object to get, which owns the memory for it.
///
/// # Examples
/// ```
/// use raw_block_store::{AlignedBuf, OwnedGet};
///
/// let get = OwnedGet::new(b"layer 0", AlignedBuf::zeroed(4096)?).with_metadata(64);
/// assert_eq!((get.payload().len(), get.metadata().len()), (4096, 64));
/// # Ok::<(), raw_block_store::core::Error>(())
/// ```
#[derive(Debug)]
pub struct OwnedGet {
    key: Vec<u8>,
    payload: Buffer,
    metadata: Vec<u8>,
}

impl OwnedGet {
    /// A get of the payload alone, into the front of `payload`. See [`Get::new`](crate::Get::new).
    ///
    /// Read-only memory, such as `Bytes`, counts as empty.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>, payload: impl Into<Buffer>) -> Self {
        Self { key: key.into(), payload: payload.into(), metadata: Vec::new() }
    }

    /// The same with the metadata, of which there is memory for `len` bytes. See
    /// [`Get::with_metadata`](crate::Get::with_metadata).
    #[must_use]
    pub fn with_metadata(self, len: usize) -> Self {
        Self { metadata: vec![0; len], ..self }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The memory for the payload, all of it.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The memory for the metadata, all of it.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// The memory for the payload.
    #[must_use]
    pub fn into_payload(self) -> Buffer {
        self.payload
    }

    /// Bytes of memory that it owns.
    pub(super) fn bytes(&self) -> u64 {
        (self.key.len() + self.payload.len() + self.metadata.len()) as u64
    }

    /// The key, and the memory for payload and metadata.
    pub(super) fn parts(&mut self) -> (&[u8], &mut [u8], &mut [u8]) {
        let Self { key, payload, metadata } = self;
        (key, payload.as_mut_slice().unwrap_or_default(), metadata)
    }
}

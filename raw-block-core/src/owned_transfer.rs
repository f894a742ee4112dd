//! Transfers that own their memory.

use std::iter;

use crate::backend::{OpKind, Segment};
use crate::{Buffer, Error, ErrorKind, WriteOptions};

/// A transfer that owns its memory, for [`batched_write`](crate::Dispatcher::batched_write) and
/// [`batched_read`](crate::Dispatcher::batched_read): one [`Buffer`], or several that are
/// contiguous on the device.
///
/// # Examples
/// ```
/// use raw_block_core::{AlignedBuf, OwnedTransfer};
///
/// let transfer = OwnedTransfer::new(4096, AlignedBuf::zeroed(512)?);
/// let transfer = transfer.with_payload_len(500).padded_to(512);
/// assert_eq!((transfer.payload_len, transfer.total_len), (500, 512));
///
/// let (header, payload) = (AlignedBuf::zeroed(512)?, vec![7; 1000]);
/// let transfer = OwnedTransfer::vectored(8192, [header.into(), payload.into()]).padded_to(2048);
/// assert_eq!((transfer.payload_len, transfer.total_len), (1512, 2048));
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct OwnedTransfer {
    /// Where the range begins on the device, in bytes.
    pub offset: u64,
    /// The first memory segment.
    pub buffer: Buffer,
    /// The other segments, in sequence; most transfers have none.
    pub more: Vec<Buffer>,
    /// How many bytes are the payload: the front of the first segment, or all of it and the front
    /// of the others.
    pub payload_len: usize,
    /// How many bytes of the device are moved: the payload and its padding.
    pub total_len: u64,
    /// Per-write options; a read ignores them.
    pub options: WriteOptions,
}

impl OwnedTransfer {
    /// A transfer of the whole `buffer`, from byte `offset` on.
    #[must_use]
    pub fn new(offset: u64, buffer: impl Into<Buffer>) -> Self {
        let buffer = buffer.into();
        Self {
            offset,
            payload_len: buffer.len(),
            total_len: buffer.len() as u64,
            buffer,
            more: Vec::new(),
            options: WriteOptions::new(),
        }
    }

    /// A transfer of several segments, contiguous on the device from byte `offset` on. Without any,
    /// it is padding alone.
    ///
    /// More than [`MAX_SEGMENTS`](crate::WriteAt::MAX_SEGMENTS) are refused with
    /// [`ErrorKind::InvalidInput`].
    #[must_use]
    pub fn vectored(offset: u64, segments: impl IntoIterator<Item = Buffer>) -> Self {
        let mut segments = segments.into_iter();
        let mut transfer = Self::new(offset, segments.next().unwrap_or_default());
        transfer.more = segments.collect();
        let len = transfer.memory_len();
        transfer.with_payload_len(len)
    }

    /// The same transfer with only the first `len` bytes of its memory as its payload, and without
    /// padding.
    #[must_use]
    pub fn with_payload_len(mut self, len: usize) -> Self {
        self.payload_len = len;
        self.total_len = len as u64;
        self
    }

    /// The same transfer with `total_len` bytes on the device: the payload and its padding.
    #[must_use]
    pub fn padded_to(mut self, total_len: u64) -> Self {
        self.total_len = total_len;
        self
    }

    /// The same transfer with these options.
    #[must_use]
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    fn memory(&self) -> impl Iterator<Item = &Buffer> {
        iter::once(&self.buffer).chain(&self.more)
    }

    /// The length of all segments in bytes. `Bytes` may share memory, so the sum may exceed the
    /// address space.
    fn memory_len(&self) -> usize {
        self.memory().fold(0, |sum, buffer| sum.saturating_add(buffer.len()))
    }

    /// Checks that the memory holds the payload, and for a read that it can be written.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub(crate) fn check_memory(&self, kind: OpKind) -> Result<(), Error> {
        let invalid = |rule| {
            let error = Error::new(ErrorKind::InvalidInput, kind.name(), rule);
            Err(error.at(self.offset, self.total_len))
        };
        let (payload, memory) = (self.payload_len, self.memory_len());
        if payload > memory {
            return invalid(format!(
                "the payload of {payload} bytes exceeds its memory of {memory} bytes"
            ));
        }
        if kind == OpKind::Read
            && let Some(segment) = self.memory().position(Buffer::is_read_only)
        {
            return invalid(format!(
                "memory segment {segment} is read-only: read into other memory, such as `BytesMut`"
            ));
        }
        Ok(())
    }

    /// The memory segments of the payload, which [`Buffer::segment`] describes.
    pub(crate) fn payload(&mut self) -> impl Iterator<Item = Segment> {
        let mut left = self.payload_len;
        iter::once(&mut self.buffer).chain(&mut self.more).map(move |buffer| {
            let Segment(mut segment) = buffer.segment();
            segment.iov_len = segment.iov_len.min(left);
            left -= segment.iov_len;
            Segment(segment)
        })
    }
}

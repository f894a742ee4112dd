//! What callers describe: transfers between a range of the device and their memory.

use std::io::{IoSlice, IoSliceMut};

use crate::WriteOptions;
use crate::backend::OpKind;

/// A write of the concatenation of `N` memory segments, or of a list of them, to one range of the
/// device.
///
/// The segments together are the *payload*. The device is written up to `total_len`, which is the
/// payload padded with zeroes.
///
/// # Examples
/// ```
/// use std::io::IoSlice;
///
/// use raw_block_core::WriteAt;
/// use raw_block_core::backend::Transfer;
///
/// let one = WriteAt::new(4096, b"a payload").padded_to(4096);
/// assert_eq!((one.payload_len(), one.total_len()), (9, 4096));
///
/// let two = WriteAt::gather(8192, [&[1; 4096], &[2; 4096]]);
/// assert_eq!(two.total_len(), 8192);
///
/// let list: Vec<_> = (0..20).map(|_| IoSlice::new(&[3; 512])).collect();
/// let batch = [one, WriteAt::vectored(16384, &list)];
/// assert_eq!(batch[1].total_len(), 20 * 512);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WriteAt<'a, const N: usize = 1> {
    offset: u64,
    total_len: u64,
    options: WriteOptions,
    segments: Segments<'a, N>,
}

/// The memory of a write.
#[derive(Clone, Copy, Debug)]
enum Segments<'a, const N: usize> {
    Array([IoSlice<'a>; N]),
    List(&'a [IoSlice<'a>]),
}

impl<'a> WriteAt<'a> {
    /// The maximum number of segments of one write.
    pub const MAX_SEGMENTS: usize = 1 << 20;

    /// A write of `payload` at byte `offset`.
    #[must_use]
    pub fn new(offset: u64, payload: &'a [u8]) -> Self {
        Self::gather(offset, [payload])
    }

    /// A write of a list of segments, contiguous on the device from byte `offset` on. One batch may
    /// have lists of different lengths.
    ///
    /// A list of more than [`MAX_SEGMENTS`](Self::MAX_SEGMENTS) is refused with
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    #[must_use]
    pub fn vectored(offset: u64, segments: &'a [IoSlice<'a>]) -> Self {
        Self {
            offset,
            total_len: total_len(segments.iter().map(|segment| segment.len())),
            options: WriteOptions::new(),
            segments: Segments::List(segments),
        }
    }
}

impl<'a, const N: usize> WriteAt<'a, N> {
    /// A write of several segments, contiguous on the device from byte `offset` on.
    #[must_use]
    pub fn gather(offset: u64, segments: [&'a [u8]; N]) -> Self {
        Self {
            offset,
            total_len: total_len(segments.iter().map(|segment| segment.len())),
            options: WriteOptions::new(),
            segments: Segments::Array(segments.map(IoSlice::new)),
        }
    }

    /// The same write, padded with zeroes to `total_len` bytes.
    #[must_use]
    pub fn padded_to(mut self, total_len: u64) -> Self {
        self.total_len = total_len;
        self
    }

    /// The same write with these options.
    #[must_use]
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }
}

/// A read of one range of the device into `N` memory segments in sequence.
///
/// The segments together are the *payload*; the device is read up to `total_len`, and what is read
/// past the payload is discarded.
///
/// # Examples
/// ```
/// use raw_block_core::ReadAt;
/// use raw_block_core::backend::Transfer;
///
/// let (mut header, mut payload) = ([0; 4096], [0; 100]);
/// let read = ReadAt::scatter(0, [&mut header, &mut payload]).padded_to(8192);
/// assert_eq!((read.payload_len(), read.total_len()), (4196, 8192));
/// ```
#[derive(Debug)]
pub struct ReadAt<'a, const N: usize = 1> {
    offset: u64,
    total_len: u64,
    segments: [IoSliceMut<'a>; N],
}

impl<'a> ReadAt<'a> {
    /// A read from byte `offset` into `payload`.
    #[must_use]
    pub fn new(offset: u64, payload: &'a mut [u8]) -> Self {
        Self::scatter(offset, [payload])
    }
}

impl<'a, const N: usize> ReadAt<'a, N> {
    /// A read into several segments, contiguous on the device from byte `offset` on.
    #[must_use]
    pub fn scatter(offset: u64, segments: [&'a mut [u8]; N]) -> Self {
        Self {
            offset,
            total_len: total_len(segments.iter().map(|segment| segment.len())),
            segments: segments.map(IoSliceMut::new),
        }
    }

    /// The segments, for what was read into them.
    pub(crate) fn segments_mut(&mut self) -> [&mut [u8]; N] {
        self.segments.each_mut().map(|segment| &mut **segment)
    }

    /// The same read, of `total_len` bytes on the device.
    #[must_use]
    pub fn padded_to(mut self, total_len: u64) -> Self {
        self.total_len = total_len;
        self
    }
}

fn total_len(lengths: impl Iterator<Item = usize>) -> u64 {
    lengths.fold(0, |sum, len| sum.saturating_add(len as u64))
}

mod sealed {
    pub trait Sealed {}
}

/// A read or a write of borrowed memory: [`WriteAt`](crate::WriteAt) and [`ReadAt`](crate::ReadAt).
/// Sealed.
///
/// # Examples
/// ```
/// use raw_block_core::WriteAt;
/// use raw_block_core::backend::Transfer;
///
/// fn padding(transfer: &impl Transfer) -> u64 {
///     transfer.total_len() - transfer.payload_len()
/// }
/// assert_eq!(padding(&WriteAt::new(0, &[1; 500]).padded_to(512)), 12);
/// ```
pub trait Transfer: sealed::Sealed {
    /// Read or write.
    #[doc(hidden)]
    const KIND: OpKind;

    /// Where the range begins on the device, in bytes.
    fn offset(&self) -> u64;

    /// How many bytes of the device are moved.
    fn total_len(&self) -> u64;

    /// The memory segments: initialised, valid while the transfer is borrowed; for a read,
    /// exclusively the transfer's.
    #[doc(hidden)]
    fn iovecs(&self) -> &[libc::iovec];

    /// Per-write options.
    fn options(&self) -> WriteOptions {
        WriteOptions::new()
    }

    /// The length of the payload in bytes: that of all segments.
    fn payload_len(&self) -> u64 {
        total_len(self.iovecs().iter().map(|segment| segment.iov_len))
    }
}

impl<const N: usize> sealed::Sealed for WriteAt<'_, N> {}
impl<const N: usize> Transfer for WriteAt<'_, N> {
    const KIND: OpKind = OpKind::Write;

    fn offset(&self) -> u64 {
        self.offset
    }

    fn total_len(&self) -> u64 {
        self.total_len
    }

    fn options(&self) -> WriteOptions {
        self.options
    }

    fn iovecs(&self) -> &[libc::iovec] {
        let segments = match &self.segments {
            Segments::Array(segments) => &segments[..],
            Segments::List(segments) => segments,
        };
        // SAFETY: `IoSlice` is ABI compatible with `iovec` on Unix (std documents it).
        unsafe { std::slice::from_raw_parts(segments.as_ptr().cast(), segments.len()) }
    }
}

impl<const N: usize> sealed::Sealed for ReadAt<'_, N> {}
impl<const N: usize> Transfer for ReadAt<'_, N> {
    const KIND: OpKind = OpKind::Read;

    fn offset(&self) -> u64 {
        self.offset
    }

    fn total_len(&self) -> u64 {
        self.total_len
    }

    fn iovecs(&self) -> &[libc::iovec] {
        // SAFETY: `IoSliceMut` is ABI compatible with `iovec` on Unix (std documents it).
        unsafe { std::slice::from_raw_parts(self.segments.as_ptr().cast(), N) }
    }
}

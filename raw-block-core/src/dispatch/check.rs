//! Which transfers are valid, and which of them need no copy.

use super::layout::Alignment;
use crate::backend::{OpKind, Transfer};
use crate::{Error, ErrorKind, Geometry, WriteAt, WriteOptions};

/// Checks a transfer with a payload of `payload_len` bytes in `segments` segments.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when the payload exceeds the total length, or there are more than
/// [`WriteAt::MAX_SEGMENTS`] segments; those of [`Geometry::check_range`] and, for a write,
/// [`Geometry::check_options`].
#[inline]
pub(super) fn check_transfer(
    kind: OpKind,
    offset: u64,
    (payload_len, segments): (u64, usize),
    total_len: u64,
    options: WriteOptions,
    geometry: &Geometry,
) -> Result<(), Error> {
    let invalid = |rule| {
        let error = Error::new(ErrorKind::InvalidInput, kind.name(), rule);
        Err(error.at(offset, total_len))
    };
    if payload_len > total_len {
        let rule =
            format!("the payload of {payload_len} bytes exceeds the total length: increase it");
        return invalid(rule);
    }
    if segments > WriteAt::MAX_SEGMENTS {
        let most = WriteAt::MAX_SEGMENTS;
        let rule = format!("{segments} memory segments exceed the maximum of {most}: join some");
        return invalid(rule);
    }
    geometry.check_range(kind, offset, total_len)?;
    if kind == OpKind::Write {
        geometry.check_options(options).map_err(|error| error.at(offset, total_len))?;
    }
    Ok(())
}

/// Returns whether a batch goes to the device exactly as it is described, without a copy: the
/// dispatcher accepts every transfer and stages none of its bytes.
///
/// A batch for which it returns `false` is still one submission: the unaligned parts are copied
/// through aligned memory.
///
/// # Examples
/// ```
/// use raw_block_core::{AlignedBuf, Geometry, WriteAt, can_batch};
///
/// let geometry = Geometry::new(1 << 20, 4096)?;
/// let buffer = AlignedBuf::zeroed(8192)?;
/// assert!(can_batch(&[WriteAt::new(0, &buffer)], &geometry));
/// assert!(!can_batch(&[WriteAt::new(0, &buffer[..5000]).padded_to(8192)], &geometry));
/// assert!(!can_batch(&[WriteAt::new(0, &buffer[512..4608])], &geometry));
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[must_use]
pub fn can_batch<T: Transfer>(batch: &[T], geometry: &Geometry) -> bool {
    let alignment = Alignment::of(geometry);
    batch.iter().all(|transfer| {
        let (payload, total) = (transfer.payload_len(), transfer.total_len());
        let (options, segments) = (transfer.options(), transfer.iovecs());
        let memory = (payload, segments.len());
        check_transfer(T::KIND, transfer.offset(), memory, total, options, geometry).is_ok()
            && payload == total
            && segments.iter().all(|segment| alignment.direct_len(segment) == segment.iov_len)
    })
}

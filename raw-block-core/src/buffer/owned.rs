//! Owned memory of any kind.

use std::fmt;
use std::ops::Deref;

use super::aligned::AlignedBuf;
use super::region::Lease;
use crate::backend::Segment;

/// The owned memory of a transfer: an [`AlignedBuf`], also of a [`BufferPool`](crate::BufferPool),
/// a `Vec<u8>`, a [`Lease`] of a [`Region`](crate::Region), or with the feature `bytes` `Bytes` and
/// `BytesMut`.
///
/// It dereferences to its bytes. `From` makes a buffer of each kind of memory; a pattern, or
/// `TryFrom`, returns it as it was. No alignment is promised: the dispatcher stages what the device
/// cannot transfer directly.
///
/// # Examples
/// ```
/// use raw_block_core::{AlignedBuf, Buffer};
///
/// let mut buffer = Buffer::from(vec![1, 2, 3]);
/// buffer.as_mut_slice().expect("a vector is writable").reverse();
/// assert_eq!(buffer[..], [3, 2, 1]);
///
/// let buffer = AlignedBuf::try_from(buffer).expect_err("it is a vector");
/// let bytes = Vec::try_from(buffer).expect("it is a vector");
/// assert_eq!(bytes, [3, 2, 1]);
/// ```
#[non_exhaustive]
pub enum Buffer {
    /// Aligned memory, from the heap or from a pool.
    Aligned(AlignedBuf),
    /// The bytes of a vector up to its length, not its spare capacity.
    Vec(Vec<u8>),
    /// A part of the memory of another owner.
    Leased(Lease),
    /// Shared memory, read-only: a read into it is refused. Also that of another owner
    /// (`Bytes::from_owner`).
    #[cfg(feature = "bytes")]
    Bytes(bytes::Bytes),
    /// The bytes up to the length, not the spare capacity.
    #[cfg(feature = "bytes")]
    BytesMut(bytes::BytesMut),
}

impl Buffer {
    /// The bytes, to change them. `None` if the memory is read-only, as that of `Bytes` is.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Aligned(memory) => Some(memory),
            Self::Vec(memory) => Some(memory),
            Self::Leased(memory) => Some(memory),
            #[cfg(feature = "bytes")]
            Self::Bytes(_) => None,
            #[cfg(feature = "bytes")]
            Self::BytesMut(memory) => Some(memory),
        }
    }

    /// Whether the bytes cannot be changed, so that no read into them is possible.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Aligned(_) | Self::Vec(_) | Self::Leased(_) => false,
            #[cfg(feature = "bytes")]
            Self::Bytes(_) => true,
            #[cfg(feature = "bytes")]
            Self::BytesMut(_) => false,
        }
    }

    /// The address and the length of the bytes, for ops.
    ///
    /// The bytes stay there until the buffer is dropped, also when it is moved: every kind of
    /// memory has its bytes on the heap, in an arena, or with another owner, and none inside the
    /// value itself. The address is valid for reads, and unless the buffer is
    /// [read-only](Self::is_read_only) for writes, until the bytes are borrowed through the buffer.
    pub(crate) fn segment(&mut self) -> Segment {
        let iov_len = self.len();
        let start = match self {
            Self::Aligned(memory) => memory.start().as_ptr(),
            Self::Vec(memory) => memory.as_mut_ptr(),
            Self::Leased(memory) => memory.start().as_ptr(),
            #[cfg(feature = "bytes")]
            Self::Bytes(memory) => memory.as_ptr().cast_mut(),
            #[cfg(feature = "bytes")]
            Self::BytesMut(memory) => memory.as_mut_ptr(),
        };
        Segment(libc::iovec { iov_base: start.cast(), iov_len })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Aligned(memory) => memory,
            Self::Vec(memory) => memory,
            Self::Leased(memory) => memory,
            #[cfg(feature = "bytes")]
            Self::Bytes(memory) => memory,
            #[cfg(feature = "bytes")]
            Self::BytesMut(memory) => memory,
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Buffer {
    /// A buffer of length 0, without memory.
    fn default() -> Self {
        Self::Aligned(AlignedBuf::default())
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Aligned(_) => "Aligned",
            Self::Vec(_) => "Vec",
            Self::Leased(_) => "Leased",
            #[cfg(feature = "bytes")]
            Self::Bytes(_) => "Bytes",
            #[cfg(feature = "bytes")]
            Self::BytesMut(_) => "BytesMut",
        };
        f.debug_struct("Buffer").field("kind", &kind).field("len", &self.len()).finish()
    }
}

macro_rules! convert {
    ($kind:ident, $memory:ty) => {
        impl From<$memory> for Buffer {
            fn from(memory: $memory) -> Self {
                Self::$kind(memory)
            }
        }

        impl TryFrom<Buffer> for $memory {
            /// The buffer, as it was, if it is of another kind.
            type Error = Buffer;

            fn try_from(buffer: Buffer) -> Result<Self, Buffer> {
                match buffer {
                    Buffer::$kind(memory) => Ok(memory),
                    other => Err(other),
                }
            }
        }
    };
}

convert!(Aligned, AlignedBuf);
convert!(Vec, Vec<u8>);
convert!(Leased, Lease);
#[cfg(feature = "bytes")]
convert!(Bytes, bytes::Bytes);
#[cfg(feature = "bytes")]
convert!(BytesMut, bytes::BytesMut);

#[cfg(test)]
mod tests {
    use std::panic::{RefUnwindSafe, UnwindSafe};

    use super::*;
    use crate::{OwnedTransfer, Region};

    /// One buffer of each kind, with these bytes.
    fn each_kind(bytes: &[u8]) -> Vec<Buffer> {
        let mut aligned = AlignedBuf::zeroed(bytes.len()).unwrap();
        aligned.copy_from_slice(bytes);
        vec![
            aligned.into(),
            bytes.to_vec().into(),
            #[cfg(feature = "bytes")]
            bytes::Bytes::copy_from_slice(bytes).into(),
            #[cfg(feature = "bytes")]
            bytes::BytesMut::from(bytes).into(),
        ]
    }

    #[test]
    fn memory_may_move_between_threads_and_survive_a_panic() {
        fn check<T: Send + Sync + UnwindSafe + RefUnwindSafe + 'static>() {}
        check::<Buffer>();
        check::<Region>();
        check::<OwnedTransfer>();
    }

    #[test]
    fn moving_a_buffer_does_not_move_its_bytes() {
        for bytes in [&[7; 3][..], &[7; 5000]] {
            for mut buffer in each_kind(bytes) {
                let Segment(segment) = buffer.segment();
                let moved = Box::new(buffer);
                assert_eq!(moved.as_ptr(), segment.iov_base.cast_const().cast(), "{moved:?}");
                assert_eq!((moved.len(), &moved[..]), (segment.iov_len, bytes));
            }
        }
    }

    #[test]
    fn only_read_only_memory_cannot_be_changed() {
        for mut buffer in each_kind(&[1, 2]) {
            let read_only = buffer.is_read_only();
            assert_eq!(read_only, format!("{buffer:?}").contains("\"Bytes\""));
            match buffer.as_mut_slice() {
                Some(bytes) => bytes[1] = 3,
                None => assert!(read_only),
            }
            assert_eq!(buffer[..], if read_only { [1, 2] } else { [1, 3] });
        }
    }

    #[test]
    fn memory_comes_back_as_the_kind_that_it_was() {
        let mut vec = Vec::with_capacity(100);
        vec.extend([1, 2, 3]);
        let buffer = AlignedBuf::try_from(Buffer::from(vec)).unwrap_err();
        assert_eq!(Vec::try_from(buffer).unwrap().capacity(), 100);
        let buffer = Vec::try_from(Buffer::default()).unwrap_err();
        assert!(AlignedBuf::try_from(buffer).unwrap().is_empty());
    }

    #[test]
    fn the_debug_form_of_a_buffer_has_no_contents() {
        for buffer in each_kind(b"secret") {
            let text = format!("{buffer:?}");
            assert!(text.contains("len: 6") && !text.contains("115"), "{text}");
        }
    }

    #[test]
    fn an_empty_buffer_of_any_kind_has_no_bytes() {
        for mut buffer in each_kind(&[]) {
            assert_eq!(buffer.segment().0.iov_len, 0);
            assert!(buffer.is_empty());
        }
    }
}

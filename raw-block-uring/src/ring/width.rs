//! The two sizes of the entries of a ring.

use io_uring::{IoUring, cqueue, squeue};

/// The size of the entries of a ring: [`Standard`] or [`Big`].
///
/// A ring is generic over it, so that one code path serves both. Only the code that builds entries
/// names a width.
///
/// # Examples
/// ```
/// use raw_block_uring::ring::{Big, Standard, Width};
///
/// fn entry_bytes<W: Width>() -> usize {
///     size_of::<W::Entry>()
/// }
///
/// assert_eq!((entry_bytes::<Standard>(), entry_bytes::<Big>()), (64, 128));
/// ```
pub trait Width: Send + Sync + 'static {
    /// A submission queue entry.
    type Entry: squeue::EntryMarker + Send;
    /// A completion queue entry.
    type Completion: cqueue::EntryMarker + Send;

    /// The contents of a completion.
    fn outcome(completion: &Self::Completion) -> Outcome;
}

/// A ring of the `io_uring` crate with entries of a width.
pub(crate) type RawRing<W> = IoUring<<W as Width>::Entry, <W as Width>::Completion>;

/// The contents of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The result: for most commands a count, or a negative `errno`.
    pub result: i32,
    /// The 16 bytes that only a big completion has; zero in a standard one.
    pub extra: [u64; 2],
}

/// Submission entries of 64 bytes and completion entries of 16: for files and block devices.
#[derive(Clone, Copy, Debug)]
pub struct Standard;

impl Width for Standard {
    type Entry = squeue::Entry;
    type Completion = cqueue::Entry;

    fn outcome(completion: &cqueue::Entry) -> Outcome {
        Outcome { result: completion.result(), extra: [0; 2] }
    }
}

/// Submission entries of 128 bytes and completion entries of 32: for commands with more fields than
/// a transfer, such as NVMe passthrough. Needs Linux 5.19.
#[derive(Clone, Copy, Debug)]
pub struct Big;

impl Width for Big {
    type Entry = squeue::Entry128;
    type Completion = cqueue::Entry32;

    fn outcome(completion: &cqueue::Entry32) -> Outcome {
        Outcome { result: completion.result(), extra: *completion.big_cqe() }
    }
}

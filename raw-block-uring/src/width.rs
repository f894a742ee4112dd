//! The two widths that the entries of a ring come in.

use io_uring::{IoUring, cqueue, squeue};

/// How wide the entries of a ring are.
///
/// One code path serves both: everything about a ring is generic over its width, and only whoever builds
/// the entries of a width names it.
pub trait Width: Send + Sync + 'static {
    /// A submission queue entry.
    type Entry: squeue::EntryMarker + Send;
    /// A completion queue entry.
    type Completion: cqueue::EntryMarker + Send;

    /// What a completion says.
    fn outcome(completion: &Self::Completion) -> Outcome;
}

/// A ring of the kernel with entries of a width.
pub(crate) type RawRing<W> = IoUring<<W as Width>::Entry, <W as Width>::Completion>;

/// What a completion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The result: for most commands a count, or a negative `errno`.
    pub result: i32,
    /// The 16 bytes that only a wide completion has; zero in a narrow one.
    pub extra: [u64; 2],
}

/// Submissions of 64 bytes and completions of 16: for files and block devices.
#[derive(Clone, Copy, Debug)]
pub struct Standard;

impl Width for Standard {
    type Entry = squeue::Entry;
    type Completion = cqueue::Entry;

    fn outcome(completion: &cqueue::Entry) -> Outcome {
        Outcome { result: completion.result(), extra: [0; 2] }
    }
}

/// Submissions of 128 bytes and completions of 32: for commands that carry more than a transfer, as
/// passthrough does. Needs Linux 5.19.
#[derive(Clone, Copy, Debug)]
pub struct Big;

impl Width for Big {
    type Entry = squeue::Entry128;
    type Completion = cqueue::Entry32;

    fn outcome(completion: &cqueue::Entry32) -> Outcome {
        Outcome { result: completion.result(), extra: *completion.big_cqe() }
    }
}

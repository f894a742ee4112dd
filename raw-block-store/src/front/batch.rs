//! What callers submit, and what comes back.

use std::fmt;
use std::time::Instant;

use super::owned::OwnedGet;
use crate::{Error, GetInfo};

/// Objects or keys that are submitted in one request, and complete together.
///
/// Calls take anything that converts to it: a vector or an array has no deadline.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// use raw_block_store::Batch;
///
/// let keys = [b"layer 0".to_vec(), b"layer 1".to_vec()];
/// let batch = Batch::new(keys).by(Instant::now() + Duration::from_millis(20));
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<R> {
    pub(super) items: Vec<R>,
    pub(super) deadline: Option<Instant>,
}

impl<R> Batch<R> {
    /// A batch without a deadline.
    #[must_use]
    pub fn new(items: impl Into<Vec<R>>) -> Self {
        Self { items: items.into(), deadline: None }
    }

    /// The same batch with a deadline.
    ///
    /// A request that is still queued then completes with
    /// [`Error::DeadlinePassed`](crate::Error::DeadlinePassed). One that has begun completes with
    /// its result, however late: until then the device may access its memory.
    #[must_use]
    pub fn by(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The number of objects or keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none. An empty batch completes like any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<R> From<Vec<R>> for Batch<R> {
    fn from(items: Vec<R>) -> Self {
        Self::new(items)
    }
}

impl<R, const N: usize> From<[R; N]> for Batch<R> {
    fn from(items: [R; N]) -> Self {
        Self::new(items)
    }
}

/// An object or a key of a batch that has completed: what was submitted, with its memory, and its
/// result.
#[derive(Clone, Debug)]
#[must_use = "each object of the batch may have failed"]
pub struct Finished<R, T> {
    /// What was submitted. After a get that found nothing, or failed, the contents of its memory
    /// are unspecified.
    pub item: R,
    /// What came of it.
    pub result: Result<T, Error>,
}

impl Finished<OwnedGet, Option<GetInfo>> {
    /// The payload, if the object was found.
    #[must_use]
    pub fn payload(&self) -> Option<&[u8]> {
        let info = self.result.as_ref().ok()?.as_ref()?;
        self.item.payload().get(..info.payload_len)
    }

    /// The metadata, if the object was found and memory for it was submitted.
    #[must_use]
    pub fn metadata(&self) -> Option<&[u8]> {
        let info = self.result.as_ref().ok()?.as_ref()?;
        self.item.metadata().get(..info.metadata_len)
    }
}

/// A request that was not accepted, and why.
#[derive(Clone, thiserror::Error)]
#[error("{error}")]
#[non_exhaustive]
pub struct Refused<R> {
    /// Why it was not accepted.
    pub error: Error,
    /// The objects or keys, as they were submitted.
    pub items: Vec<R>,
}

impl<R> fmt::Debug for Refused<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .field("items", &self.items.len())
            .finish()
    }
}

//! The results of a batch.

use std::ops::Deref;

use crate::Error;

/// The result of each transfer of a batch, in the order of the batch.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::{Dispatcher, ErrorKind, MemoryBackend, WriteAt};
///
/// let dispatcher = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
/// let block = [7; 512];
/// let written = dispatcher.write_buffers(&[WriteAt::new(0, &block), WriteAt::new(1, &block)]);
/// assert!(written[0].is_ok());
/// assert_eq!(written.all().unwrap_err().kind(), ErrorKind::Misaligned);
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "each transfer of the batch may have failed"]
pub struct BatchResult(pub(super) Vec<Result<(), Error>>);

impl BatchResult {
    pub(super) fn refused(error: &Error, transfers: usize) -> Self {
        Self(vec![Err(error.clone()); transfers])
    }

    /// `Ok` if every transfer succeeded.
    ///
    /// # Errors
    /// The first error in the order of the batch.
    pub fn all(self) -> Result<(), Error> {
        self.0.into_iter().collect()
    }
}

impl Deref for BatchResult {
    type Target = [Result<(), Error>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl IntoIterator for BatchResult {
    type Item = Result<(), Error>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

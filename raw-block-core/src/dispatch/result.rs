//! How the transfers of a batch went.

use std::ops::Deref;

use crate::Error;

/// The result of each transfer of a batch, in the order of the batch.
#[derive(Debug, Default)]
#[must_use = "each transfer of the batch may have failed"]
pub struct BatchResult(pub(super) Vec<Result<(), Error>>);

impl BatchResult {
    pub(super) fn refused(error: &Error, transfers: usize) -> Self {
        Self(vec![Err(error.clone()); transfers])
    }

    /// `Ok` if every transfer went well.
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

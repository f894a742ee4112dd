//! The results of a batch.

use std::ops::{Deref, DerefMut};

use crate::Error;

/// The result of each object of a batch, in the order of the batch.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use raw_block_store::core::MemoryBackend;
/// use raw_block_store::{FormatOptions, Get, Put, Store};
///
/// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
/// # Store::format(backend.clone(), &FormatOptions::default())?;
/// # let store = Store::open(backend)?;
/// store.put_many(&[Put::new(b"a", b"1"), Put::new(b"b", b"22")]).all()?;
///
/// let (mut a, mut c) = ([0; 8], [0; 8]);
/// let found = store.get_many(&mut [Get::new(b"a", &mut a), Get::new(b"c", &mut c)]);
/// for object in &found {
///     match object {
///         Ok(Some(info)) => println!("{} bytes", info.payload_len),
///         Ok(None) => println!("no object"),
///         Err(error) => println!("{error}"),
///     }
/// }
/// assert!(found.all()?[1].is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "each object of the batch may have failed"]
pub struct BatchResult<T>(Vec<Result<T, Error>>);

impl<T> BatchResult<T> {
    /// What the batch returned for each object, if none of them failed.
    ///
    /// # Errors
    /// The first error in the order of the batch.
    pub fn all(self) -> Result<Vec<T>, Error> {
        self.0.into_iter().collect()
    }
}

impl<T> From<Vec<Result<T, Error>>> for BatchResult<T> {
    fn from(results: Vec<Result<T, Error>>) -> Self {
        Self(results)
    }
}

impl<T> FromIterator<Result<T, Error>> for BatchResult<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, Error>>>(results: I) -> Self {
        Self(results.into_iter().collect())
    }
}

impl<T> Deref for BatchResult<T> {
    type Target = Vec<Result<T, Error>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for BatchResult<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<T> IntoIterator for BatchResult<T> {
    type Item = Result<T, Error>;
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a BatchResult<T> {
    type Item = &'a Result<T, Error>;
    type IntoIter = std::slice::Iter<'a, Result<T, Error>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

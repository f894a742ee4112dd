//! A table of the entries in flight; the index of a value is the user data of its entry.

/// A slab of fixed size: inserting and removing values allocates nothing.
///
/// # Examples
/// ```
/// use raw_block_uring::ring::InFlightTable;
///
/// let mut table = InFlightTable::new(1);
/// let index = table.insert("a read").unwrap();
/// assert_eq!(table.insert("a write"), Err("a write"));
/// assert_eq!(table.remove(index), Some("a read"));
/// ```
#[derive(Debug)]
pub struct InFlightTable<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> InFlightTable<T> {
    /// An empty table for up to `capacity` values.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { values: (0..capacity).map(|_| None).collect(), free: (0..capacity).rev().collect() }
    }

    /// The number of values that fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.values.len()
    }

    /// The number of values in the table.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Stores `value` and returns its index.
    ///
    /// # Errors
    /// Returns `value` if the table is full.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(index) = self.free.pop() else { return Err(value) };
        self.values[index as usize] = Some(value);
        Ok(index)
    }

    /// The value at an index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.values.get(index as usize)?.as_ref()
    }

    /// The value at an index, mutable.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.values.get_mut(index as usize)?.as_mut()
    }

    /// Removes the value at an index and returns it.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.values.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }
}

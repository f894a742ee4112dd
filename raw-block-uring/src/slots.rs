//! What the kernel has: a slab whose index travels as the user data of the ring.

/// A table of what is in flight. Its size is fixed, so nothing allocates once it is made.
#[derive(Debug)]
pub struct Slots<T> {
    taken: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// A table of `capacity` free slots.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { taken: (0..capacity).map(|_| None).collect(), free: (0..capacity).rev().collect() }
    }

    /// How many slots there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.taken.len()
    }

    /// How many slots are taken.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    /// Keeps `value`, under the index that is returned.
    ///
    /// # Errors
    /// `value`, when every slot is taken.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(index) = self.free.pop() else { return Err(value) };
        self.taken[index as usize] = Some(value);
        Ok(index)
    }

    /// What is in a slot.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.taken.get(index as usize)?.as_ref()
    }

    /// What is in a slot.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.taken.get_mut(index as usize)?.as_mut()
    }

    /// Takes out what is over.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.taken.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }
}

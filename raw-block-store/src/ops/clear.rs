//! Removing all objects.

use crate::Error;
use crate::Store;
use crate::reclaim;

impl Store {
    /// Removes every object, at the cost of one checkpoint, whatever the store holds.
    ///
    /// Every object whose put returned before this call is gone when it returns, durably: that
    /// takes no [`flush`](Self::flush). An object that is put in the meantime may be gone or not.
    /// Pinned objects are removed too, and stay readable by their pins, which keep their segments.
    ///
    /// If the checkpoint fails, nothing is removed; after a crash it may turn out to have happened,
    /// for all objects together. It waits for puts and deletes in flight, and for a reclaim in
    /// progress.
    ///
    /// # Errors
    /// [`Error::Device`] when the checkpoint cannot be written, or the superblock, which names it:
    /// then the objects are gone, but may come back if that checkpoint is lost. [`Error::Closed`].
    pub fn clear(&self) -> Result<(), Error> {
        let _call = self.state.begin_call()?;
        reclaim::clear(&self.state)
    }
}

#[cfg(test)]
mod tests;

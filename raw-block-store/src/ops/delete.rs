//! Deleting objects.

use super::tombstones::DELETE;
use crate::BatchResult;
use crate::Error;
use crate::Store;
use crate::mutant::Mutant;
use crate::reclaim;

impl Store {
    /// Deletes one object. Returns whether there was one with this key. See
    /// [`delete_many`](Self::delete_many).
    ///
    /// # Errors
    /// Those of [`delete_many`](Self::delete_many).
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.delete_many(&[key]).pop().unwrap_or(Ok(false))
    }

    /// Deletes the objects with these keys. Deletes of several threads at the same time are written
    /// together, some hundred keys to a block.
    ///
    /// Each key has its own result, in the order of the batch: whether there was an object with it,
    /// also a damaged one. A deletion takes effect for every get that begins afterwards, and is
    /// durable after the next [`flush`](Self::flush). The deletion of a key without an object is
    /// written too, because a put of that key may be in flight. What failed may have happened, or
    /// turn out to have after a crash.
    ///
    /// A full store can delete: a part of its space is reserved for that. Where pins or quarantined
    /// segments take the reserve, each deletion takes a checkpoint. Each result is an error of
    /// these kinds: [`Error::Device`] when the device fails, [`Error::OutOfMemory`], and
    /// [`Error::OutOfSpace`] when there is no space and such checkpoints keep failing.
    pub fn delete_many(&self, keys: &[&[u8]]) -> BatchResult<bool> {
        let state = &*self.state;
        let _call = match state.begin_change(DELETE) {
            Ok(call) => call,
            Err(error) => return vec![Err(error); keys.len()].into(),
        };
        if keys.is_empty() {
            return Vec::new().into();
        }
        reclaim::checkpoint_if_due(state);
        let mut hashes: Vec<_> = keys.iter().map(|key| self.hash(key)).collect();
        if Mutant::AbsentDeletesUnrecorded.is_on() {
            hashes.retain(|hash| state.index.find(hash).is_some());
            let mut results = vec![Ok(false); keys.len() - hashes.len()];
            if !hashes.is_empty() {
                results.extend(state.deletes.delete(&hashes, |keys| state.write_tombstones(keys)));
            }
            return results.into();
        }
        state.deletes.delete(&hashes, |hashes| state.write_tombstones(hashes)).into()
    }
}

#[cfg(test)]
mod tests;

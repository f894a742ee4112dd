//! Deleting objects.

use raw_block_core::OpKind;

use super::tombstones::Deleted;
use crate::Error;
use crate::Store;
use crate::error::Doing;
use crate::mutant::Mutant;

impl Store {
    /// Deletes one object, if there is one. See [`delete_many`](Self::delete_many).
    ///
    /// # Errors
    /// Those of [`delete_many`](Self::delete_many).
    pub fn delete(&self, key: &[u8]) -> Result<(), Error> {
        self.delete_many(&[key]).into_iter().collect()
    }

    /// Deletes the objects with these keys. A key that is not there counts as deleted.
    ///
    /// Each key has its own result, in the order of the batch. What succeeded is durable after the next
    /// [`flush`](Self::flush). What failed may turn out to have happened after a crash.
    ///
    /// A full store can delete: a part of its space is reserved for that. Each result is an error of these kinds:
    /// [`Error::Device`] when the device fails, [`Error::OutOfSpace`] when pins or quarantined segments take the
    /// reserve.
    #[must_use = "each deletion may have failed"]
    pub fn delete_many(&self, keys: &[&[u8]]) -> Vec<Result<(), Error>> {
        const DELETE: &str = "delete an object";
        if keys.is_empty() {
            return Vec::new();
        }
        let accepted = self.state.check_process().and_then(|()| {
            self.state.dispatcher.check_accepted(OpKind::Write).doing(DELETE)?;
            self.state.check_writes(DELETE)
        });
        if let Err(error) = accepted {
            return vec![Err(error); keys.len()];
        }
        let Deleted { count, error } = {
            let mut hashes: Vec<_> = keys.iter().map(|key| self.hash(key)).collect();
            if Mutant::AbsentDeletesUnrecorded.is_on() {
                hashes.retain(|hash| self.state.index.find(hash).is_some());
            }
            if hashes.is_empty() { Deleted::default() } else { self.state.delete_keys(&hashes) }
        };
        let result = |at| match &error {
            Some(error) if at >= count => Err(error.clone()),
            _ => Ok(()),
        };
        (0..keys.len()).map(result).collect()
    }
}

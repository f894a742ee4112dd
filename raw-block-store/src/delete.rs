//! Deleting objects: records in the delete log, and nothing written over the objects themselves.

use raw_block_core::WriteAt;

use crate::error::Doing;
use crate::fault::Fault;
use crate::format::{DeleteLogBlock, DeleteRecord};
use crate::shared::Deleting;
use crate::space::LogPlace;
use crate::{Error, Store, fixed};

impl Store {
    /// Deletes a batch of keys, with one submission to the device as far as the delete log has room.
    ///
    /// Each key has its own result, in the order of the batch: whether there was an object with it. A
    /// deletion takes effect for every get that begins afterwards, and is durable after the next
    /// [`flush`](Self::flush). A key that is not there is recorded too, because a put of it may be under
    /// way.
    ///
    /// Each result is an error only of kind [`Error::Device`]: then the object is still there, and after
    /// a crash it may turn out to be deleted.
    #[must_use = "each deletion may have failed"]
    pub fn delete_many(&self, keys: &[&[u8]]) -> Vec<Result<bool, Error>> {
        let per_block = self.records_per_log_block();
        let mut results = Vec::with_capacity(keys.len());
        while results.len() < keys.len() {
            let rest = &keys[results.len()..];
            let deleting = match self.shared.begin_delete(rest.len() as u64, per_block as u64) {
                Ok(deleting) => deleting,
                Err(error) => {
                    results.extend(rest.iter().map(|_| Err(error.clone())));
                    break;
                }
            };
            let blocks = &deleting.place.blocks;
            let room = usize::try_from(blocks.end - blocks.start).unwrap_or(0) * per_block;
            let now = &rest[..rest.len().min(room)];
            match self.log(now, deleting) {
                Ok(done) => results.extend(done),
                Err(error) => results.extend(now.iter().map(|_| Err(error.clone()))),
            }
        }
        self.spare_the_next();
        results
    }

    /// Writes the records of `keys`, then removes what they delete.
    fn log(
        &self,
        keys: &[&[u8]],
        mut deleting: Deleting<'_>,
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        if Fault::AbsentDeletesUnrecorded.is_on() && !keys.iter().any(|key| self.contains(key)) {
            return Ok(keys.iter().map(|_| Ok(false)).collect());
        }
        let block_size = self.block_size();
        let per_block = self.records_per_log_block();
        let LogPlace { first_sequence, blocks: places, oldest } = deleting.place.clone();
        let records: Vec<_> = (first_sequence..)
            .zip(keys)
            .map(|(sequence, key)| DeleteRecord {
                key_hash: self.hash(key),
                sequence: sequence.into(),
            })
            .collect();
        let mut blocks = self.scratch.take(records.len().div_ceil(per_block) * block_size)?;
        let mut writes = Vec::new();
        for ((index, block), records) in
            places.zip(blocks.chunks_exact_mut(block_size)).zip(records.chunks(per_block))
        {
            let checkpoint = deleting.checkpoint;
            DeleteLogBlock::encode(block, &self.shared.layout, index, checkpoint, records)?;
            let log = self.shared.layout.delete_log_offset.get();
            writes.push(WriteAt::new(log + index * block_size as u64, block));
        }
        let written = fixed::write(&self.shared.device, &writes);

        let mut results = Vec::with_capacity(keys.len());
        for (result, records) in written.into_iter().zip(records.chunks(per_block)) {
            match result.doing("delete an object") {
                Ok(()) => {
                    for DeleteRecord { key_hash, sequence } in records {
                        let dead = self.shared.index.delete(key_hash, sequence.get(), oldest);
                        results.push(Ok(dead.is_some()));
                        deleting.retired.extend(dead);
                    }
                }
                Err(error) => results.extend(records.iter().map(|_| Err(error.clone()))),
            }
        }
        let retired = &deleting.retired;
        self.shared.counters.deletes.add(retired.len() as u64);
        self.shared.eviction.note_puts(std::iter::empty(), retired.iter().map(|place| place.slot));
        Ok(results)
    }
}

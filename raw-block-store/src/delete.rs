//! Deleting objects: records in the delete log, and nothing written over the objects themselves.

use raw_block_core::WriteAt;

use crate::error::Doing;
use crate::format::{DeleteLogBlock, DeleteRecord};
use crate::{Error, Store};

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
            let changing = self.changing();
            let blocks = self.space().take_log(rest.len().div_ceil(per_block) as u64);
            if blocks.is_empty() {
                drop(changing);
                if let Err(error) = self.checkpoint_unless(|space| Ok(space.has_log_blocks())) {
                    results.extend(rest.iter().map(|_| Err(error.clone())));
                }
                continue;
            }
            let room = usize::try_from(blocks.end - blocks.start).unwrap_or(0) * per_block;
            let now = &rest[..rest.len().min(room)];
            match self.log(blocks.start, now) {
                Ok(done) => results.extend(done),
                Err(error) => results.extend(now.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }

    /// Writes the records of `keys` to the blocks from `first_block` on, then removes what they delete.
    fn log(&self, first_block: u64, keys: &[&[u8]]) -> Result<Vec<Result<bool, Error>>, Error> {
        let block_size = self.block_size();
        let per_block = self.records_per_log_block();
        let first_sequence = self.space().take_sequences(keys.len() as u64);
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
            (first_block..).zip(blocks.chunks_exact_mut(block_size)).zip(records.chunks(per_block))
        {
            DeleteLogBlock::encode(block, &self.layout, index, records)?;
            let offset = self.layout.delete_log_offset.get() + index * block_size as u64;
            writes.push(WriteAt::new(offset, block));
        }
        let written = self.device.write_buffers(&writes);

        let mut results = Vec::with_capacity(keys.len());
        let mut retired = Vec::new();
        let mut index = self.index_mut();
        for (result, records) in written.into_iter().zip(records.chunks(per_block)) {
            match result.doing("delete an object") {
                Ok(()) => {
                    for record in records {
                        let dead = index.delete(&record.key_hash, record.sequence.get());
                        results.push(Ok(dead.is_some()));
                        retired.extend(dead);
                    }
                }
                Err(error) => results.extend(records.iter().map(|_| Err(error.clone()))),
            }
        }
        drop(index);
        self.counters.deletes.add(retired.len() as u64);
        self.space().retire(retired);
        Ok(results)
    }
}

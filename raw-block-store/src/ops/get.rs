//! Getting objects: a batch is one submission, and reads only the payloads where it can.

use std::time::Instant;

use raw_block_core::AlignedBuf;

use super::locate::{generation, locate};
use super::read::BatchReader;
use super::read_plan::ReadTarget;
use super::request::{Get, GetInfo, Object};
use crate::BatchResult;
use crate::Error;
use crate::Store;
use crate::error::Context;
use crate::mutant;
use crate::state::index::Located;

/// Objects that are read at once. A longer batch goes in parts.
const MAX_SUBMISSION: usize = 1024;

impl Store {
    /// Gets one object into newly allocated memory; `None` if there is none with this key.
    ///
    /// # Errors
    /// Those of [`get_many`](Self::get_many).
    pub fn get(&self, key: &[u8]) -> Result<Option<Object>, Error> {
        let _call = self.state.begin_call()?;
        let hash = self.hash(key);
        loop {
            let Some(Located { entry, .. }) = self.state.index.find(&hash) else {
                self.state.counters.misses.add(1);
                return Ok(None);
            };
            let len = (entry.payload_len.get() as usize).max(1);
            let mut buffer = AlignedBuf::zeroed(len).context("allocate memory for an object")?;
            let mut metadata = vec![0; entry.metadata_len.get().into()];
            let get = Get::new(key, &mut buffer).with_metadata(&mut metadata);
            match self.get_many(&mut [get]).remove(0) {
                // Overwritten since the lengths were looked up, by something longer.
                Err(Error::BufferTooSmall { .. }) => {}
                Ok(Some(found)) if found.metadata_len > metadata.len() => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(None),
                Ok(Some(found)) => {
                    metadata.truncate(found.metadata_len);
                    return Ok(Some(Object { buffer, metadata, payload: 0..found.payload_len }));
                }
            }
        }
    }

    /// Gets a batch of objects. One that fits the queue of the device is one submission.
    ///
    /// Each key has its own result, in the order of the batch: what was found, or `None` for a key
    /// that is not there. The checksum of each payload was verified, unless
    /// [`OpenOptions::verification`](crate::OpenOptions::verification) says otherwise. Unless an
    /// object was found, the contents of its buffers are unspecified.
    ///
    /// The errors of results are [`Error::Damaged`] when the object is there and fails a check
    /// twice (in a store that evicts, a damaged object is a miss), [`Error::BufferTooSmall`],
    /// [`Error::Device`], and [`Error::Closed`].
    pub fn get_many(&self, gets: &mut [Get<'_>]) -> BatchResult<Option<GetInfo>> {
        let began = Instant::now();
        let mut results = Vec::with_capacity(gets.len());
        for batch in gets.chunks_mut(mutant::limit(MAX_SUBMISSION, 8)) {
            if let Err(error) = self.get_batch(batch, &mut results) {
                results.extend(batch.iter().map(|_| Err(error.clone())));
            }
        }
        self.state.counters.get_latency.add_since(began);
        results.into()
    }

    /// Looks up, reads and verifies a batch; appends a result for each, or none and returns an
    /// error.
    fn get_batch(
        &self,
        gets: &mut [Get<'_>],
        results: &mut Vec<Result<Option<GetInfo>, Error>>,
    ) -> Result<(), Error> {
        let state = &*self.state;
        let _call = state.begin_call()?;
        let hashes: Vec<_> = gets.iter().map(|get| self.hash(get.key)).collect();
        let (located, guards) = locate(state, &hashes);
        let mut targets: Vec<Option<ReadTarget>> = Vec::with_capacity(gets.len());
        for located in &located {
            targets.push(located.map(|located| ReadTarget {
                located,
                generation: generation(&guards, located.place.segment),
            }));
        }
        BatchReader::new(state).run(gets, &targets, results)?;
        let now = state.policy.now();
        let first = results.len() - gets.len();
        for (result, located) in results[first..].iter().zip(&located) {
            if let (Ok(Some(_)), Some(located)) = (result, located) {
                state.index.note_use(located.place, now);
            }
        }
        Ok(())
    }
}

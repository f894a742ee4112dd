//! Getting objects: a batch is one submission, and reads the payloads alone.

use std::ops::Range;
use std::time::Instant;

use raw_block_core::AlignedBuf;

use super::read::{BatchReader, ReadTarget};
use crate::BatchResult;
use crate::Error;
use crate::Store;
use crate::error::Context;
use crate::mutant;
use crate::state::index::{KeyHash, Located};
use crate::state::{ReadGuard, StoreState};

/// Objects that are read at once. A longer batch goes in parts.
const MAX_SUBMISSION: usize = 1024;

/// An object to get, and where to put it.
///
/// # Examples
/// ```
/// use raw_block_store::Get;
///
/// let (mut payload, mut metadata) = ([0; 4096], [0; 64]);
/// let get = Get::new(b"layer 0", &mut payload).with_metadata(&mut metadata);
/// # let _ = get;
/// ```
#[derive(Debug)]
pub struct Get<'a> {
    key: &'a [u8],
    pub(super) payload: &'a mut [u8],
    /// Empty if the metadata is left out.
    pub(super) metadata: &'a mut [u8],
}

impl<'a> Get<'a> {
    /// A get of the payload alone, into the front of `payload`.
    ///
    /// Memory that is aligned like a device buffer, for a payload whose length is a multiple of the device's
    /// block, is read into without a copy.
    #[must_use]
    pub fn new(key: &'a [u8], payload: &'a mut [u8]) -> Self {
        Self { key, payload, metadata: &mut [] }
    }

    /// The same with the metadata, into the front of `metadata`. If that is empty, it is left out.
    ///
    /// Metadata lies in the header of the object's slot. That is another block to read, and another transfer if the
    /// object shares the slot.
    #[must_use]
    pub fn with_metadata(self, metadata: &'a mut [u8]) -> Self {
        Self { metadata, ..self }
    }
}

/// What a get found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetInfo {
    /// Length in bytes of the payload, which is in the front of the caller's buffer.
    pub payload_len: usize,
    /// Length in bytes of the metadata.
    pub metadata_len: usize,
}

impl GetInfo {
    pub(super) fn of(located: &Located) -> Self {
        Self {
            payload_len: located.entry.payload_len.get() as usize,
            metadata_len: located.entry.metadata_len.get().into(),
        }
    }
}

/// A whole object.
#[derive(Debug)]
pub struct Object {
    buffer: AlignedBuf,
    metadata: Vec<u8>,
    payload: Range<usize>,
}

impl Object {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }
}

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
    /// Each key has its own result, in the order of the batch: what was found, or `None` for a key that
    /// is not there. The checksum of each payload was verified. In place of the result:
    /// [`Error::Damaged`] when the object is there and fails a check twice, [`Error::BufferTooSmall`],
    /// [`Error::Device`]. In a store that evicts, a damaged object is a miss. Unless an object was found, the contents
    /// of its buffers are unspecified.
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

    /// Looks up, reads and verifies a batch; appends a result for each, or none and returns an error.
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

/// Looks up keys, and begins to read the segments where their objects are.
pub(super) fn locate<'a>(
    state: &'a StoreState,
    hashes: &[KeyHash],
) -> (Vec<Option<Located>>, Vec<ReadGuard<'a>>) {
    let mut located = Vec::with_capacity(hashes.len());
    let mut guards: Vec<ReadGuard<'a>> = Vec::new();
    loop {
        let since = state.readers.begin();
        located.clear();
        state.index.find_many(hashes, &mut located);
        let all = located.iter().flatten().all(|found: &Located| {
            let segment = found.place.segment;
            if guards.iter().rev().any(|guard| guard.segment == segment) {
                return true;
            }
            let guard = state.read_segment(segment, since);
            guard.map(|guard| guards.push(guard)).is_some()
        });
        if all {
            return (located, guards);
        }
        // A segment was closed in the meantime.
        guards.clear();
    }
}

pub(super) fn generation(guards: &[ReadGuard<'_>], segment: u32) -> u64 {
    let guard = guards.iter().find(|guard| guard.segment == segment);
    guard.map_or(0, |guard| guard.generation)
}

//! Putting objects: a batch is one submission, header and payload of an object one vectored write.

use raw_block_core::WriteAt;

use crate::error::Doing;
use crate::format::{ObjectEntry, SlotFields, SlotHeader};
use crate::options::key_limit;
use crate::shared::Putting;
use crate::space::Place;
use crate::{Error, Store};

/// Objects that are handed to the device at once. A longer batch goes in parts.
pub(crate) const MAX_SUBMISSION: usize = 1024;

/// An object to put.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// The key: at least one byte.
    pub key: &'a [u8],
    /// A small description of the payload, for the caller's own use. Key and metadata together fit into
    /// a block less 128 bytes.
    pub metadata: &'a [u8],
    /// The payload. One that is aligned like a device buffer, and whose length is a multiple of the
    /// block size, is written without a copy.
    pub payload: &'a [u8],
}

impl<'a> Put<'a> {
    /// An object without metadata.
    #[must_use]
    pub fn new(key: &'a [u8], payload: &'a [u8]) -> Self {
        Self { key, metadata: &[], payload }
    }
}

impl Store {
    /// Puts one object. See [`put_many`](Self::put_many).
    ///
    /// # Errors
    /// Those of [`put_many`](Self::put_many).
    pub fn put(&self, key: &[u8], payload: &[u8]) -> Result<(), Error> {
        self.put_many(&[Put::new(key, payload)]).into_iter().collect()
    }

    /// Puts a batch of objects. One that fits the queue of the device is one submission.
    ///
    /// Each object has its own result, in the order of the batch. One that succeeded replaces the object
    /// that had its key, for every get that begins afterwards; it is durable after the next
    /// [`flush`](Self::flush). One that failed leaves the older object in place, and after a crash may
    /// turn out to have happened, whole. If a key appears twice in the batch, the later one wins.
    ///
    /// Each result is an error of these kinds: [`Error::Key`] and [`Error::PayloadTooLarge`] when the
    /// object does not fit, [`Error::Full`] when no slot is free, [`Error::Device`] when the device
    /// fails.
    #[must_use = "each object may have failed"]
    pub fn put_many(&self, puts: &[Put<'_>]) -> Vec<Result<(), Error>> {
        let mut results: Vec<_> = puts.iter().map(|put| self.check(put)).collect();
        let mut fitting = Vec::with_capacity(puts.len());
        fitting.extend((0..puts.len()).filter(|&index| results[index].is_ok()));
        for batch in fitting.chunks(MAX_SUBMISSION) {
            let mut rest = batch;
            while !rest.is_empty() {
                let putting = match self.shared.begin_put(rest.len()) {
                    Ok(putting) => putting,
                    Err(error) => {
                        fail(&mut results, rest, &error);
                        break;
                    }
                };
                let (now, later) = rest.split_at(putting.places.len());
                if let Err(error) = self.write(puts, now, putting, &mut results) {
                    fail(&mut results, now, &error);
                }
                rest = later;
            }
        }
        self.spare_the_next();
        results
    }

    fn check(&self, put: &Put<'_>) -> Result<(), Error> {
        let (key_len, metadata_len) = (put.key.len(), put.metadata.len());
        let limit = key_limit(self.shared.layout.block_size.get());
        if key_len == 0 || key_len.saturating_add(metadata_len) > limit {
            return Err(Error::Key { key_len, metadata_len, limit });
        }
        let room = self.max_payload();
        if put.payload.len() as u64 > room && !self.fits_inline(put) {
            return Err(Error::PayloadTooLarge { len: put.payload.len(), limit: room });
        }
        Ok(())
    }

    fn fits_inline(&self, put: &Put<'_>) -> bool {
        let (key_len, metadata_len) = (put.key.len(), put.metadata.len());
        let block_size = self.shared.layout.block_size.get();
        crate::format::fits_inline(key_len, metadata_len, put.payload.len() as u64, block_size)
    }

    /// Writes the objects `batch` of `puts` and publishes those that succeeded.
    ///
    /// # Errors
    /// When nothing was written.
    fn write(
        &self,
        puts: &[Put<'_>],
        batch: &[usize],
        putting: Putting<'_>,
        results: &mut [Result<(), Error>],
    ) -> Result<(), Error> {
        let (block_size, places) = (self.block_size(), &putting.places);
        let mut headers = self.scratch.take(batch.len() * block_size)?;
        let mut entries = Vec::with_capacity(batch.len());
        for ((&index, &place), block) in
            batch.iter().zip(places).zip(headers.chunks_exact_mut(block_size))
        {
            entries.push(self.encode(&puts[index], place, putting.checkpoint, block)?);
        }
        let mut writes = Vec::with_capacity(batch.len());
        for (((&index, place), entry), header) in
            batch.iter().zip(places).zip(&entries).zip(headers.chunks_exact(block_size))
        {
            let behind = if self.is_inline(entry) { &[] } else { puts[index].payload };
            let total_len = (block_size + behind.len()).next_multiple_of(block_size);
            let write = WriteAt::gather(self.slot_offset(place.slot), [header, behind]);
            writes.push(write.padded_to(total_len as u64));
        }
        let written = self.shared.device.write_buffers(&writes);

        let mut put = Vec::with_capacity(batch.len());
        let mut retired = Vec::with_capacity(batch.len());
        for (((result, &index), &place), entry) in
            written.into_iter().zip(batch).zip(places).zip(entries)
        {
            match result.doing("put an object") {
                Ok(()) => {
                    put.push((place.slot, entry.key_hash));
                    self.unverified.remove(place.slot);
                    retired.extend(self.shared.index.publish(place.slot, entry));
                }
                Err(error) => {
                    results[index] = Err(error);
                    retired.push(place);
                }
            }
        }
        self.shared.counters.puts.add(put.len() as u64);
        let replaced = retired.iter().map(|place| place.slot);
        self.shared.eviction.note_puts(put.into_iter(), replaced);
        putting.end(retired);
        Ok(())
    }

    /// Builds the header block of an object, with the payload if it fits there.
    fn encode(
        &self,
        put: &Put<'_>,
        place: Place,
        checkpoint: u64,
        block: &mut [u8],
    ) -> Result<ObjectEntry, Error> {
        let fields = SlotFields {
            slot: place.slot,
            sequence: place.sequence,
            checkpoint,
            key_hash: self.hash(put.key),
            key: put.key,
            metadata: put.metadata,
            payload: put.payload,
        };
        Ok(SlotHeader::encode(block, &self.shared.layout, &fields)?)
    }
}

/// Gives the objects `batch` the same error.
fn fail(results: &mut [Result<(), Error>], batch: &[usize], error: &Error) {
    for &index in batch {
        results[index] = Err(error.clone());
    }
}

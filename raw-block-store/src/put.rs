//! Putting objects: a batch is one submission, header and payload of an object one vectored write.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use raw_block_core::{ErrorClass, WriteAt};

use crate::error::Doing;
use crate::fault::Fault;
use crate::format::{ObjectEntry, SlotFields, SlotHeader};
use crate::index::Located;
use crate::options::key_limit;
use crate::shared::Putting;
use crate::space::Place;
use crate::{Error, Store};

/// Objects that are handed to the device at once. A longer batch goes in parts.
pub(crate) const MAX_SUBMISSION: usize = 1024;

/// An object to put.
///
/// # Examples
/// ```
/// use raw_block_store::Put;
///
/// let put = Put::new(b"layer 0", &[1; 1000]).with_metadata(b"f16, 500");
/// # let _ = put;
/// ```
pub struct Put<'a> {
    key: &'a [u8],
    metadata: &'a [u8],
    payload: &'a [u8],
    /// Empty, or room for the header. Taken while a batch is under way.
    room: Cell<&'a mut [u8]>,
}

impl<'a> Put<'a> {
    /// An object without metadata.
    ///
    /// The key has at least one byte. A payload that is aligned like a device buffer, and whose length is a
    /// multiple of the block size, is written without a copy.
    #[must_use]
    pub fn new(key: &'a [u8], payload: &'a [u8]) -> Self {
        Self { key, metadata: &[], payload, room: Cell::default() }
    }

    /// The same with a small description of the payload, for the caller's own use. Key and metadata together
    /// fit into a block less 128 bytes.
    #[must_use]
    pub fn with_metadata(self, metadata: &'a [u8]) -> Self {
        Self { metadata, ..self }
    }

    /// The same with memory for the header of the object: as long as a block, aligned like a device buffer.
    ///
    /// Where it lies directly in front of the payload, as in a [`SlotBuf`](crate::SlotBuf), the object is one
    /// piece of memory to the device. Its contents are unspecified afterwards. Memory of another length is
    /// not used.
    #[must_use]
    pub fn with_room(self, room: &'a mut [u8]) -> Self {
        Self { room: Cell::new(room), ..self }
    }
}

impl fmt::Debug for Put<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, metadata, payload, room: _ } = self;
        f.debug_struct("Put")
            .field("key", key)
            .field("metadata", metadata)
            .field("payload", payload)
            .finish_non_exhaustive()
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
    /// A slot whose write failed with [`ErrorClass::Unknown`](raw_block_core::ErrorClass::Unknown) is
    /// quarantined: it is not written again before the device is opened again.
    ///
    /// Each result is an error of these kinds: [`Error::Key`] and [`Error::PayloadTooLarge`] when the
    /// object does not fit, [`Error::Full`] when no slot is free, [`Error::Device`] when the device
    /// fails.
    #[must_use = "each object may have failed"]
    pub fn put_many(&self, puts: &[Put<'_>]) -> Vec<Result<(), Error>> {
        let began = Instant::now();
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
        self.shared.counters.put_latency.add_since(began);
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
        let mut scratch = self.scratch.take(batch.len() * block_size)?;
        let mut rooms = Vec::with_capacity(batch.len());
        let mut entries = Vec::with_capacity(batch.len());
        for ((&index, &place), scratch) in
            batch.iter().zip(places).zip(scratch.chunks_exact_mut(block_size))
        {
            let put = &puts[index];
            let room = put.room.take();
            let header = if room.len() == block_size { &mut *room } else { scratch };
            entries.push(self.encode(put, place, putting.checkpoint, header)?);
            rooms.push(room);
        }
        let mut writes = Vec::with_capacity(batch.len());
        for ((((&index, place), entry), room), scratch) in
            batch.iter().zip(places).zip(&entries).zip(&rooms).zip(scratch.chunks_exact(block_size))
        {
            let header = if room.len() == block_size { &**room } else { scratch };
            let behind = if self.is_inline(entry) { &[] } else { puts[index].payload };
            let total_len = (block_size + behind.len()).next_multiple_of(block_size);
            let write = WriteAt::gather(self.slot_offset(place.slot), [header, behind]);
            writes.push(write.padded_to(total_len as u64));
        }
        let written = self.shared.device.write_buffers(&writes);
        for (&index, room) in batch.iter().zip(rooms) {
            puts[index].room.set(room);
        }

        let mut put = Vec::with_capacity(batch.len());
        let mut retired = Vec::with_capacity(batch.len());
        for (((result, &index), &place), entry) in
            written.into_iter().zip(batch).zip(places).zip(entries)
        {
            match result {
                Ok(()) => {
                    self.unverified.remove(place.slot);
                    put.push(Located { slot: place.slot, entry });
                }
                Err(error) => {
                    if error.class() == ErrorClass::Unknown && !Fault::UnknownSlotReused.is_on() {
                        self.shared.quarantine(&error);
                    } else {
                        retired.push(place);
                    }
                    results[index] = Err(error).doing("put an object");
                }
            }
        }
        self.shared.index.publish_many(&put, &mut retired);
        self.shared.counters.puts.add(put.len() as u64);
        let put = put.iter().map(|located| (located.slot, located.entry.key_hash));
        let replaced = retired.iter().map(|place| place.slot);
        self.shared.eviction.note_puts(put, replaced);
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

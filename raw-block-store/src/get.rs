//! Getting objects: a batch is one submission, header and payload of an object one vectored read.

use std::ops::Range;
use std::time::Instant;

use raw_block_core::{AlignedBuf, ReadAt};

use crate::error::Doing;
use crate::fault::Fault;
use crate::format::{Damage, ObjectEntry, SlotHeader};
use crate::index::Located;
use crate::put::MAX_SUBMISSION;
use crate::{Error, Store, Verification};

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
    payload: &'a mut [u8],
    /// Empty if the metadata is left out.
    metadata: &'a mut [u8],
    /// Empty, or room for the header.
    room: &'a mut [u8],
}

impl<'a> Get<'a> {
    /// A get of the payload alone, into the front of `payload`.
    ///
    /// Memory that is aligned like a device buffer, for a payload whose length is a multiple of the device's
    /// block, is read into without a copy.
    #[must_use]
    pub fn new(key: &'a [u8], payload: &'a mut [u8]) -> Self {
        Self { key, payload, metadata: &mut [], room: &mut [] }
    }

    /// The same with the metadata, into the front of `metadata`. If that is empty, it is left out.
    #[must_use]
    pub fn with_metadata(self, metadata: &'a mut [u8]) -> Self {
        Self { metadata, ..self }
    }

    /// The same with memory for the header of the object, as [`Put::with_room`](crate::Put::with_room) has it.
    #[must_use]
    pub fn with_room(self, room: &'a mut [u8]) -> Self {
        Self { room, ..self }
    }
}

/// What a get found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Length in bytes of the payload, which is in the front of the caller's buffer.
    pub payload_len: usize,
    /// Length in bytes of the metadata.
    pub metadata_len: usize,
}

/// A whole object.
#[derive(Debug)]
pub struct Object {
    /// The header block, and the payload behind it.
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

/// An object on its way from the device.
struct Reading<'a> {
    key: &'a [u8],
    /// Gets the metadata, unless it is empty.
    metadata: &'a mut [u8],
    /// Gets a payload that lies in the header.
    inline: &'a mut [u8],
    located: &'a Located,
    checks: Verification,
    /// The place of its result.
    result: usize,
}

impl Store {
    /// Gets one object into newly allocated memory; `None` if there is none with this key.
    ///
    /// # Errors
    /// Those of [`get_many`](Self::get_many).
    pub fn get(&self, key: &[u8]) -> Result<Option<Object>, Error> {
        const DOING: &str = "make room for an object";
        self.shared.check_process()?;
        let hash = self.hash(key);
        loop {
            let Some(Located { entry, .. }) = self.shared.index.find(&hash) else {
                self.shared.counters.misses.add(1);
                return Ok(None);
            };
            let payload_at = self.block_size();
            let room = payload_at + entry.payload_len.get() as usize;
            let mut buffer = AlignedBuf::zeroed(room).doing(DOING)?;
            let mut metadata = vec![0; entry.metadata_len.get().into()];
            let (room, payload) = buffer.split_at_mut(payload_at);
            let get = Get::new(key, payload).with_metadata(&mut metadata).with_room(room);
            match self.get_many(&mut [get]).remove(0) {
                // Overwritten since the lengths were looked up, by something longer.
                Err(Error::BufferTooSmall { .. }) => {}
                Ok(Some(found)) if found.metadata_len > metadata.len() => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(None),
                Ok(Some(found)) => {
                    metadata.truncate(found.metadata_len);
                    let payload = payload_at..payload_at + found.payload_len;
                    return Ok(Some(Object { buffer, metadata, payload }));
                }
            }
        }
    }

    /// Gets a batch of objects. One that fits the queue of the device is one submission.
    ///
    /// Each key has its own result, in the order of the batch: what was found, or `None` for a key that
    /// is not there. Key, sequence and checksums of each object were verified. In place of the result:
    /// [`Error::Damaged`] when the object is there and fails a check, [`Error::BufferTooSmall`],
    /// [`Error::Device`]. Unless an object was found, the contents of its buffers are unspecified.
    #[must_use = "each object may be missing or damaged"]
    pub fn get_many(&self, gets: &mut [Get<'_>]) -> Vec<Result<Option<Found>, Error>> {
        let began = Instant::now();
        let mut results = Vec::with_capacity(gets.len());
        for batch in gets.chunks_mut(MAX_SUBMISSION) {
            let from = results.len();
            if let Err(error) = self.read(batch, &mut results) {
                results.truncate(from);
                results.extend(batch.iter().map(|_| Err(error.clone())));
            }
        }
        self.shared.counters.get_latency.add_since(began);
        results
    }

    /// Looks up, reads and verifies a batch; appends a result for each.
    fn read(
        &self,
        gets: &mut [Get<'_>],
        results: &mut Vec<Result<Option<Found>, Error>>,
    ) -> Result<(), Error> {
        self.shared.check_process()?;
        let _getting = self.shared.begin_get();
        let hashes: Vec<_> = gets.iter().map(|get| self.hash(get.key)).collect();
        let mut located = Vec::with_capacity(gets.len());
        self.shared.index.find_many(&hashes, &mut located);
        let got = results.len();
        self.read_at(gets, &located, results)?;
        let hits =
            results[got..].iter().zip(&located).filter(|(result, _)| matches!(result, Ok(Some(_))));
        self.shared.eviction.note_gets(hits.filter_map(|(_, located)| Some((*located)?.slot)));
        Ok(())
    }

    /// Reads and verifies a batch of objects, which stay where they are meanwhile.
    pub(crate) fn read_at(
        &self,
        gets: &mut [Get<'_>],
        located: &[Option<Located>],
        results: &mut Vec<Result<Option<Found>, Error>>,
    ) -> Result<(), Error> {
        let block_size = self.block_size();
        let mut scratch = self.scratch.take(gets.len() * block_size)?;
        let mut reads = Vec::with_capacity(gets.len());
        let mut readings = Vec::with_capacity(gets.len());
        let from = results.len();
        for ((located, get), scratch) in
            located.iter().zip(gets).zip(scratch.chunks_exact_mut(block_size))
        {
            let result = results.len();
            results.push(Ok(None));
            let Some(located @ Located { slot, entry }) = located else { continue };
            if let Err(error) = check_buffers(get, entry) {
                results[result] = Err(error);
                continue;
            }
            let Get { key, payload, metadata, room } = get;
            let checks = self.checks(*slot);
            let with_header =
                self.is_inline(entry) || !metadata.is_empty() || checks != Verification::None;
            let (skipped, header) = if !with_header {
                (block_size, &mut [][..])
            } else if room.len() == block_size {
                (0, &mut **room)
            } else {
                (0, scratch)
            };
            let payload = &mut payload[..entry.payload_len.get() as usize];
            let (behind, inline) =
                if self.is_inline(entry) { (&mut [][..], payload) } else { (payload, &mut [][..]) };
            let total_len = (header.len() + behind.len()).next_multiple_of(block_size);
            let read = ReadAt::scatter(self.slot_offset(*slot) + skipped as u64, [header, behind]);
            reads.push(read.padded_to(total_len as u64));
            readings.push(Reading { key, metadata, inline, located, checks, result });
        }
        // Objects are checked while others are still on their way.
        self.shared.device.read_buffers_with(&mut reads, |index, read| {
            let reading = &mut readings[index];
            results[reading.result] = read
                .doing("get an object")
                .and_then(|[header, behind]| self.complete(reading, header, behind));
        });
        results[from..].iter().for_each(|result| self.count(result));
        Ok(())
    }

    /// What is checked of the object in a slot.
    fn checks(&self, slot: u64) -> Verification {
        if self.unverified.holds(slot) { Verification::Full } else { self.verification }
    }

    /// Checks an object that was read, and completes the caller's buffers.
    fn complete(
        &self,
        reading: &mut Reading<'_>,
        header: &[u8],
        behind: &[u8],
    ) -> Result<Option<Found>, Error> {
        let Reading { key, metadata, inline, located: Located { slot, entry }, checks, .. } =
            reading;
        let metadata_len = usize::from(entry.metadata_len.get());
        let found = Found { payload_len: entry.payload_len.get() as usize, metadata_len };
        if header.is_empty() {
            return Ok(Some(found));
        }
        let offset = self.slot_offset(*slot);
        let damaged = |structure, damage| Error::Damaged { structure, offset, damage };
        let view = SlotHeader::read(header, &self.shared.layout, *slot)
            .map_err(|damage| damaged("the header of an object", damage))?;
        if view.header.entry != *entry && !Fault::OtherSlotsAccepted.is_on() {
            let rule = Damage::Inconsistent("it is another object than the index names");
            return Err(damaged("the header of an object", rule));
        }
        if view.key != *key {
            // Two keys with one 128-bit hash: the one that was put last is there.
            return Ok(None);
        }
        let payload = if let Some(payload) = view.inline_payload {
            inline.copy_from_slice(payload);
            payload
        } else {
            behind
        };
        if *checks == Verification::Full && !Fault::PayloadUnchecked.is_on() {
            view.header
                .verify_payload(payload)
                .map_err(|damage| damaged("the payload of an object", damage))?;
            self.unverified.remove(*slot);
        }
        if !metadata.is_empty() {
            metadata[..metadata_len].copy_from_slice(view.metadata);
        }
        Ok(Some(found))
    }

    fn count(&self, result: &Result<Option<Found>, Error>) {
        let counters = &self.shared.counters;
        match result {
            Ok(Some(_)) => counters.hits.add(1),
            Ok(None) => counters.misses.add(1),
            Err(error @ Error::Damaged { .. }) => {
                let device = self.shared.device.backend().device();
                tracing::warn!(device, %error, "an object failed its checks");
                counters.failed_checks.add(1);
            }
            Err(_) => {}
        }
    }
}

fn check_buffers(get: &Get<'_>, entry: &ObjectEntry) -> Result<(), Error> {
    let needed = entry.payload_len.get() as usize;
    if get.payload.len() < needed {
        return Err(Error::BufferTooSmall { what: "payload", needed, given: get.payload.len() });
    }
    let needed = usize::from(entry.metadata_len.get());
    if !get.metadata.is_empty() && get.metadata.len() < needed {
        return Err(Error::BufferTooSmall { what: "metadata", needed, given: get.metadata.len() });
    }
    Ok(())
}

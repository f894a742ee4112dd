//! Listing all objects.

use std::fmt;
use std::ops::ControlFlow;

use raw_block_core::ReadAt;

use super::escaped::Escaped;
use super::header::slot_header;
use super::locate::{generation, locate};
use crate::Error;
use crate::Store;
use crate::error::Context;
use crate::format::SlotView;
use crate::mutant;
use crate::state::StoreState;
use crate::state::index::{KeyHash, Located, Place};
use crate::stats::limited_log::{log_count, log_first};

const LIST: &str = "list objects";
/// Bytes of slot headers that are read at once.
const BATCH_LEN: usize = 2 << 20;
/// Objects whose headers are read at once.
const BATCH: usize = 512;

/// What is known of an object without its payload.
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// # use std::sync::Arc;
/// # use raw_block_store::core::MemoryBackend;
/// # use raw_block_store::{FormatOptions, Store};
/// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
/// # Store::format(backend.clone(), &FormatOptions::default())?;
/// # let store = Store::open(backend)?;
/// store.put(b"key", b"payload")?;
/// let mut bytes = 0;
/// store.list(|object| {
///     bytes += object.payload_len;
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(bytes, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The caller's metadata.
    pub metadata: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// The segment that has it.
    pub segment: u32,
    /// Where the payload begins on the device, in bytes: the block of the slot header if the
    /// payload takes no block.
    pub offset: u64,
}

impl fmt::Debug for ObjectInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectInfo")
            .field("key", &format_args!("{}", Escaped(self.key)))
            .field("metadata", &format_args!("{}", Escaped(self.metadata)))
            .field("payload_len", &self.payload_len)
            .field("segment", &self.segment)
            .field("offset", &self.offset)
            .finish()
    }
}

/// How much is listed at once.
#[derive(Clone, Copy)]
struct Limits {
    /// Keys that are collected, and then visited in the order of their places.
    window: usize,
    /// Objects whose headers are read together.
    batch: usize,
}

impl Store {
    /// Calls `visit` with what is known of every object, until it breaks.
    ///
    /// Objects come in no order; some ten thousand at a time are read in the order of their places.
    /// Every key that has an object during the whole call comes exactly once, with its newest
    /// object or one that was replaced in the meantime; it does not matter whether the object is
    /// moved. Keys that are put or deleted in the meantime come or not. An object that is damaged,
    /// or whose slot header is damaged or cannot be read, is left out; of the latter each is
    /// counted as a failed check, and the first ten are logged.
    ///
    /// Takes some MiB of memory, and blocks neither changes nor reclaims: `visit` may use the
    /// store.
    ///
    /// # Errors
    /// [`Error::Device`] when the device refuses reads, or there is no memory for buffers.
    pub fn list(&self, visit: impl FnMut(ObjectInfo<'_>) -> ControlFlow<()>) -> Result<(), Error> {
        let fitting = (BATCH_LEN / self.state.layout.block_size as usize).clamp(1, BATCH);
        let limits = Limits { window: mutant::limit(1 << 16, 8), batch: mutant::limit(fitting, 4) };
        self.list_within(limits, visit)
    }

    fn list_within(
        &self,
        limits: Limits,
        visit: impl FnMut(ObjectInfo<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let state = &*self.state;
        drop(state.begin_call()?);
        let mut listing = Listing { store: self, limits, visit, failed: 0 };
        let parts = state.index.parts();
        let (mut part, mut keys) = (0, Vec::new());
        let mut result = Ok(ControlFlow::Continue(()));
        while part < parts && matches!(result, Ok(ControlFlow::Continue(()))) {
            keys.clear();
            while part < parts && keys.len() < limits.window {
                state.index.keys_of(part, parts, &mut keys);
                part += 1;
            }
            // A part is in one window, and a key in one part.
            keys.sort_unstable();
            keys.dedup();
            result = listing.window(&keys);
        }
        log_count(listing.failed, state.device_name(), "the list");
        result.map(drop)
    }
}

/// A list in progress.
struct Listing<'a, V> {
    store: &'a Store,
    limits: Limits,
    visit: V,
    /// Objects whose headers are damaged or cannot be read.
    failed: usize,
}

impl<V: FnMut(ObjectInfo<'_>) -> ControlFlow<()>> Listing<'_, V> {
    /// Visits the objects of these keys.
    fn window(&mut self, keys: &[KeyHash]) -> Result<ControlFlow<()>, Error> {
        let mut located = Vec::with_capacity(keys.len());
        self.store.state.index.find_many(keys, &mut located);
        let found = located.iter().flatten().map(|object| (object.place, object.entry.key_hash));
        let mut places: Vec<(Place, KeyHash)> = found.collect();
        drop(located);
        places.sort_unstable();
        for batch in places.chunks(self.limits.batch) {
            let keys: Vec<KeyHash> = batch.iter().map(|&(_, key)| key).collect();
            if self.batch(&keys)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Looks up keys again, reads the headers of their objects, and visits them.
    fn batch(&mut self, keys: &[KeyHash]) -> Result<ControlFlow<()>, Error> {
        let state = &*self.store.state;
        let call = state.begin_call()?;
        let (located, guards) = locate(state, keys);
        let is_intact = |object: &&Located| !state.index.is_damaged(object.place);
        let mut objects: Vec<Located> =
            located.iter().flatten().filter(is_intact).copied().collect();
        objects.sort_unstable_by_key(|object| object.place);
        let header_of = |object: &Located| (object.place.segment, object.entry.header_block());
        let mut places: Vec<(u32, u32)> = objects.iter().map(header_of).collect();
        places.dedup();
        let block_size = state.layout.block_size as usize;
        let mut blocks = state.scratch.take(places.len() * block_size)?;
        let generation = |segment| generation(&guards, segment);
        let errors = read_headers(state, &places, &mut blocks, generation)?;
        let views: Vec<_> = places
            .iter()
            .zip(blocks.chunks_exact(block_size))
            .map(|(&place, block)| slot_header(state, block, place, generation(place.0)))
            .collect();
        // `visit` may wait for what would keep a segment from being freed, or for the store to be
        // closed.
        drop((guards, call));
        let mut header = 0;
        for object in &objects {
            while places[header] != header_of(object) {
                header += 1;
            }
            let view = match &errors[header] {
                None => views[header].clone(),
                Some(error) => Err(error.clone()),
            };
            if self.object(object, view).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn object(&mut self, located: &Located, view: Result<SlotView<'_>, Error>) -> ControlFlow<()> {
        let state = &*self.store.state;
        let (segment, entry) = (located.place.segment, &located.entry);
        let offset = state.layout.block_offset(segment, entry.block.get());
        match view.and_then(|view| self.store.object_in(&view, located)) {
            Ok(object) => (self.visit)(ObjectInfo {
                key: object.key,
                metadata: object.metadata,
                payload_len: entry.payload_len.get().into(),
                segment,
                offset,
            }),
            Err(error) => {
                log_first(self.failed, || {
                    let device = state.device_name();
                    tracing::warn!(device, %error, "an object cannot be listed");
                });
                self.failed += 1;
                state.counters.failed_checks.add(1);
                ControlFlow::Continue(())
            }
        }
    }
}

/// Reads slot headers; those that cannot be read or fail their checks once more. Returns the error
/// of each that cannot be read.
fn read_headers(
    state: &StoreState,
    places: &[(u32, u32)],
    blocks: &mut [u8],
    generation: impl Fn(u32) -> u64,
) -> Result<Vec<Option<Error>>, Error> {
    let block_size = state.layout.block_size as usize;
    let offset = |&(segment, block): &(u32, u32)| state.layout.block_offset(segment, block);
    let mut reads: Vec<ReadAt<'_>> = places
        .iter()
        .zip(blocks.chunks_exact_mut(block_size))
        .map(|(place, block)| ReadAt::new(offset(place), block))
        .collect();
    let results = state.dispatcher.read_buffers(&mut reads);
    drop(reads);
    let mut errors = Vec::with_capacity(places.len());
    for ((place, block), result) in
        places.iter().zip(blocks.chunks_exact_mut(block_size)).zip(results)
    {
        let mut result = result;
        if result.is_err() || slot_header(state, block, *place, generation(place.0)).is_err() {
            let mut again = [ReadAt::new(offset(place), block)];
            result = state.dispatcher.read_buffers(&mut again).all();
        }
        errors.push(match result {
            Err(error) if !error.kind().is_io() => return Err(error).context(LIST),
            result => result.context(LIST).err(),
        });
    }
    Ok(errors)
}

#[cfg(test)]
mod tests;

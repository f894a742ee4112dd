//! Objects that stay readable.

use std::fmt;
use std::time::Instant;

use super::read::BatchReader;
use super::read_plan::ReadTarget;
use super::request::{Get, GetInfo};
use crate::Error;
use crate::Store;
use crate::format::Damage;
use crate::state::pins::PinId;

/// Keeps a version of an object until it is dropped: it is not evicted, and it can be read also
/// after it was overwritten or deleted.
///
/// A version that was overwritten or deleted keeps its segment from being reclaimed, so pins are
/// for objects that are about to be read.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_store::core::MemoryBackend;
/// use raw_block_store::{FormatOptions, Store};
///
/// let device = Arc::new(MemoryBackend::new(16 << 20)?);
/// Store::format(device.clone(), &FormatOptions::default())?;
/// let store = Store::open(device)?;
/// store.put(b"key", b"older")?;
/// let pin = store.pin(b"key").unwrap();
/// store.put(b"key", b"newer")?;
///
/// let mut payload = [0; 5];
/// pin.read(&mut payload, &mut [])?;
/// assert_eq!(&payload, b"older");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pin<'a> {
    store: &'a Store,
    key: Box<[u8]>,
    pin: PinId,
    found: GetInfo,
}

impl Store {
    /// Pins an object; `None` if there is none with this key, or it is damaged.
    #[must_use = "the object is pinned for as long as this lives"]
    pub fn pin(&self, key: &[u8]) -> Option<Pin<'_>> {
        if self.state.is_inherited() {
            return None;
        }
        let hash = self.hash(key);
        // What the index shows while the space is locked cannot be evicted before it is pinned. If
        // it is replaced or moved at the same time, that is reported to the space afterwards, and
        // the space knows the pin.
        let (pin, found) = self.state.with_space(|space| {
            let located = self.state.index.find(&hash)?;
            let is_damaged = self.state.index.is_damaged(located.place);
            (!is_damaged).then(|| (space.pin(&located), GetInfo::of(&located)))
        })?;
        Some(Pin { store: self, key: key.into(), pin, found })
    }
}

impl Pin<'_> {
    /// Length of the payload in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.found.payload_len
    }

    /// Length of the metadata in bytes.
    #[must_use]
    pub fn metadata_len(&self) -> usize {
        self.found.metadata_len
    }

    /// Reads the object, which counts as a use. `metadata` may be empty: then it is left out.
    ///
    /// # Errors
    /// Those of [`Store::get_many`].
    pub fn read(&self, payload: &mut [u8], metadata: &mut [u8]) -> Result<GetInfo, Error> {
        let began = Instant::now();
        let state = &*self.store.state;
        let _call = state.begin_call()?;
        let Some((located, guard)) = state.read_pinned(self.pin) else {
            unreachable!("a pin keeps its object")
        };
        let mut results = Vec::with_capacity(1);
        let get = Get::new(&self.key, payload).with_metadata(metadata);
        let target = ReadTarget { located, generation: guard.generation };
        BatchReader::new(state).run(&mut [get], &[Some(target)], &mut results)?;
        if state.index.live(located.place) == Some(located.entry) {
            state.index.note_use(located.place, state.policy.now());
        }
        state.counters.get_latency.add_since(began);
        // A get misses what is damaged in a store that evicts. The pin says what it is.
        let damaged = || {
            let offset =
                state.layout.block_offset(located.place.segment, located.entry.block.get());
            let damage = Damage::Inconsistent("it failed its checks");
            Error::Damaged { structure: "an object", offset, damage }
        };
        results.pop().unwrap_or(Ok(None))?.ok_or_else(damaged)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !self.store.state.is_inherited() {
            self.store.state.unpin(self.pin);
        }
    }
}

impl fmt::Debug for Pin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("payload_len", &self.payload_len())
            .field("metadata_len", &self.metadata_len())
            .finish_non_exhaustive()
    }
}

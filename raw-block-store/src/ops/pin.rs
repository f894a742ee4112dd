//! Objects that stay readable.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::lookup::Lookup;
use super::read::BatchReader;
use super::read_plan::ReadTarget;
use super::request::{Get, GetInfo};
use crate::Error;
use crate::Store;
use crate::format::Damage;
use crate::state::StoreState;
use crate::state::index::{KEYS_AT_ONCE, Located};
use crate::state::pins::PinId;

/// Keeps a version of an object until it is dropped: it is not evicted, and it can be read also
/// after it was overwritten or deleted.
///
/// A version that was overwritten or deleted keeps its segment from being reclaimed, so pins are
/// for objects that are about to be read.
///
/// A pin owns what it needs: any thread can keep it, also after the store is gone. Once the store
/// was closed or dropped, reads fail with [`Error::Closed`], and the pin keeps only the backend and
/// the memory of the index. Drop it before the device is opened again.
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
/// let pin = store.pin(b"key")?.expect("it was put");
/// store.put(b"key", b"newer")?;
///
/// let mut payload = [0; 5];
/// pin.read(&mut payload, &mut [])?;
/// assert_eq!(&payload, b"older");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the object is pinned for as long as this lives"]
pub struct Pin {
    state: Arc<StoreState>,
    pin: PinId,
    found: GetInfo,
}

impl Store {
    /// Pins an object; `None` if there is none with this key, or it is damaged. The object is not
    /// read, and pinning is no use of it.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Device`] in a forked child.
    pub fn pin(&self, key: &[u8]) -> Result<Option<Pin>, Error> {
        let state = &self.state;
        let _call = state.begin_call()?;
        let hash = self.hash(key);
        let pinned = state.with_space(|space| {
            let object = state.find_intact(&hash)?;
            Some((space.pin(&object), object))
        });
        Ok(pinned.map(|(pin, object)| Pin::new(state, pin, &object)))
    }

    /// Pins the longest prefix of these keys that is present: the objects before the first key that
    /// is absent or whose object is damaged, in the order of the keys. As [`pin`](Self::pin), in
    /// one pass over the index.
    ///
    /// Each object was present when it was pinned. Later keys are looked up after earlier ones are
    /// pinned.
    ///
    /// # Errors
    /// Those of [`pin`](Self::pin); nothing is pinned.
    ///
    /// # Examples
    /// Loading the chunks of a prompt that the store has:
    /// ```
    /// # use std::sync::Arc;
    /// # use raw_block_store::core::MemoryBackend;
    /// # use raw_block_store::{FormatOptions, Put, Store};
    /// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
    /// # Store::format(backend.clone(), &FormatOptions::default())?;
    /// # let store = Store::open(backend)?;
    /// store.put_many(&[Put::new(b"a", b"11"), Put::new(b"b", b"22")]).all()?;
    ///
    /// let pins = store.pin_prefix(&[b"a", b"b", b"c"])?;
    /// assert_eq!(pins.len(), 2);
    /// // Nothing evicts the chunks until they are read.
    /// let mut prompt = [0; 4];
    /// for (pin, chunk) in pins.iter().zip(prompt.chunks_exact_mut(2)) {
    ///     pin.read(chunk, &mut [])?;
    /// }
    /// assert_eq!(&prompt, b"1122");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pin_prefix(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Pin>, Error> {
        let state = &self.state;
        let _call = state.begin_call()?;
        let mut lookup = Lookup::new(self);
        let mut pins = Vec::new();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            lookup.hash(keys);
            pins.reserve(keys.len());
            let first = pins.len();
            state.with_space(|space| {
                let objects = lookup.find().map_while(|object| object);
                pins.extend(objects.map(|object| Pin::new(state, space.pin(&object), &object)));
            });
            if pins.len() - first < keys.len() {
                break;
            }
        }
        Ok(pins)
    }
}

impl Pin {
    /// A pin that the space has noted. An object that the index shows while the space is locked
    /// cannot be evicted before it is pinned. If it is replaced or moved at the same time, that is
    /// reported to the space afterwards, and the space knows the pin.
    fn new(state: &Arc<StoreState>, pin: PinId, object: &Located) -> Self {
        Self { state: Arc::clone(state), pin, found: GetInfo::of(object) }
    }

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
        let state = &*self.state;
        let _call = state.begin_call()?;
        let Some((located, guard)) = state.read_pinned(self.pin) else {
            unreachable!("a pin keeps its object")
        };
        let mut results = Vec::with_capacity(1);
        let get = Get::new(&[], payload).with_metadata(metadata);
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

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.state.is_inherited() {
            self.state.unpin(self.pin);
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("payload_len", &self.payload_len())
            .field("metadata_len", &self.metadata_len())
            .finish_non_exhaustive()
    }
}

//! Objects that stay where they are.

use std::fmt;
use std::time::Instant;

use crate::index::Located;
use crate::{Error, Found, Get, Store};

/// Keeps an object as it is until it is dropped: it is not evicted, and it can be read also after it was
/// overwritten or deleted.
///
/// Its slot cannot be used for anything else, so pins are for objects that are about to be read.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::MemoryBackend;
/// use raw_block_store::{FormatOptions, Store};
///
/// let device = Arc::new(MemoryBackend::new(1 << 20)?);
/// Store::format(device.clone(), &FormatOptions::for_payloads(4096))?;
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
    located: Located,
}

impl Store {
    /// Pins an object; `None` if there is none with this key.
    #[must_use = "the object is pinned for as long as this lives"]
    pub fn pin(&self, key: &[u8]) -> Option<Pin<'_>> {
        let hash = self.hash(key);
        let _getting = self.shared.begin_get();
        loop {
            let located = self.shared.index.find(&hash)?;
            self.shared.pin(located.slot);
            let pin = Pin { store: self, key: key.into(), located };
            // It may have been evicted before it was pinned.
            if self.shared.index.find(&hash) == Some(located) {
                return Some(pin);
            }
        }
    }
}

impl Pin<'_> {
    /// Length of the payload in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.located.entry.payload_len.get() as usize
    }

    /// Length of the metadata in bytes.
    #[must_use]
    pub fn metadata_len(&self) -> usize {
        self.located.entry.metadata_len.get().into()
    }

    /// Reads the object. `metadata` may be empty: then it is left out.
    ///
    /// # Errors
    /// Those of [`Store::get_many`]; [`Error::Collision`] if the object has another key with the same
    /// 128-bit hash.
    pub fn read(&self, payload: &mut [u8], metadata: &mut [u8]) -> Result<Found, Error> {
        let began = Instant::now();
        self.store.shared.check_process()?;
        let mut results = Vec::with_capacity(1);
        let get = Get::new(&self.key, payload).with_metadata(metadata);
        self.store.read_at(&mut [get], &[Some(self.located)], &mut results)?;
        self.store.shared.counters.get_latency.add_since(began);
        results.pop().unwrap_or(Ok(None))?.ok_or(Error::Collision)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if self.store.shared.is_inherited() {
            return;
        }
        self.store.shared.unpin(self.located.slot);
    }
}

impl fmt::Debug for Pin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin")
            .field("slot", &self.located.slot)
            .field("payload_len", &self.payload_len())
            .finish_non_exhaustive()
    }
}

//! Looking keys up in the index, without reading their objects.

use crate::Error;
use crate::Store;
use crate::state::StoreState;
use crate::state::index::{KEYS_AT_ONCE, KeyHash, Located};

impl Store {
    /// Whether there is an object with this key, as far as the index knows: the object is not read.
    /// A damaged object counts as absent. A look-up is no use of the object.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Device`] in a forked child.
    pub fn contains(&self, key: &[u8]) -> Result<bool, Error> {
        let _call = self.state.begin_call()?;
        Ok(self.state.find_intact(&self.hash(key)).is_some())
    }

    /// Whether there is an object with each of these keys, in their order. As
    /// [`contains`](Self::contains), and cheaper: 64 keys at a time are looked up together.
    ///
    /// # Errors
    /// Those of [`contains`](Self::contains).
    ///
    /// # Examples
    /// ```
    /// # use std::sync::Arc;
    /// # use raw_block_store::core::MemoryBackend;
    /// # use raw_block_store::{FormatOptions, Put, Store};
    /// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
    /// # Store::format(backend.clone(), &FormatOptions::default())?;
    /// # let store = Store::open(backend)?;
    /// store.put_many(&[Put::new(b"a", b"1"), Put::new(b"c", b"3")]).all()?;
    /// assert_eq!(store.contains_many(&[b"a", b"b", b"c"])?, [true, false, true]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn contains_many(&self, keys: &[impl AsRef<[u8]>]) -> Result<Vec<bool>, Error> {
        let _call = self.state.begin_call()?;
        let mut lookup = Lookup::new(self);
        let mut present = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            lookup.hash(keys);
            present.extend(lookup.find().map(|object| object.is_some()));
        }
        Ok(present)
    }

    /// The number of leading keys that are all present, as [`contains`](Self::contains) says: the
    /// chunks of a prompt that need not be computed again. Ends at the first key that is absent.
    ///
    /// Objects may be evicted after this returns. [`pin_prefix`](Self::pin_prefix) keeps them.
    ///
    /// # Errors
    /// Those of [`contains`](Self::contains).
    ///
    /// # Examples
    /// ```
    /// # use std::sync::Arc;
    /// # use raw_block_store::core::MemoryBackend;
    /// # use raw_block_store::{FormatOptions, Put, Store};
    /// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
    /// # Store::format(backend.clone(), &FormatOptions::default())?;
    /// # let store = Store::open(backend)?;
    /// store.put_many(&[Put::new(b"a", b"1"), Put::new(b"b", b"2"), Put::new(b"d", b"4")]).all()?;
    /// assert_eq!(store.prefix_len(&[b"a", b"b", b"c", b"d"])?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefix_len(&self, keys: &[impl AsRef<[u8]>]) -> Result<usize, Error> {
        let _call = self.state.begin_call()?;
        let mut lookup = Lookup::new(self);
        let mut len = 0;
        for keys in keys.chunks(KEYS_AT_ONCE) {
            lookup.hash(keys);
            let present = lookup.find().take_while(Option::is_some).count();
            len += present;
            if present < keys.len() {
                break;
            }
        }
        Ok(len)
    }
}

/// Looks up at most [`KEYS_AT_ONCE`] keys at a time, in memory that is reused.
pub(super) struct Lookup<'a> {
    store: &'a Store,
    hashes: Vec<KeyHash>,
    located: Vec<Option<Located>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, hashes: Vec::new(), located: Vec::new() }
    }

    /// Replaces the keys.
    pub(super) fn hash(&mut self, keys: &[impl AsRef<[u8]>]) {
        self.hashes.clear();
        self.hashes.extend(keys.iter().map(|key| self.store.hash(key.as_ref())));
    }

    /// The object of each key, unless there is none or it is damaged.
    pub(super) fn find(&mut self) -> impl Iterator<Item = Option<Located>> {
        let state = &*self.store.state;
        self.located.clear();
        state.index.find_many(&self.hashes, &mut self.located);
        self.located.iter().map(|found| found.filter(|object| state.is_intact(object)))
    }
}

impl StoreState {
    /// The object with this key, unless there is none or it is damaged.
    pub(super) fn find_intact(&self, hash: &KeyHash) -> Option<Located> {
        self.index.find(hash).filter(|object| self.is_intact(object))
    }

    fn is_intact(&self, object: &Located) -> bool {
        !self.index.is_damaged(object.place)
    }
}

//! The stores whose processes are killed.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use raw_block_core::backend::IoBackend;
use raw_block_store::{BatchResult, Error, EvictionPolicy, FormatOptions, OpenOptions, Put, Store};

use super::objects::{self, Value};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StoreKind {
    /// 12 keys without eviction: each key changes often, and no object may be missing.
    Few,
    /// 150,000 objects of mixed sizes, with eviction.
    Many,
}

/// The name and the payload of an object.
pub(super) type Object = ([u8; 8], Vec<u8>);

impl StoreKind {
    /// Length of the device in bytes.
    pub(super) fn device_len(self) -> u64 {
        match self {
            Self::Few => 24 << 20,
            Self::Many => 192 << 20,
        }
    }

    /// Number of keys.
    pub(super) fn keys(self) -> u64 {
        match self {
            Self::Few => 12,
            Self::Many => 150_000,
        }
    }

    /// Number of keys that have an object initially.
    pub(super) fn filled(self) -> u64 {
        match self {
            Self::Few => 0,
            Self::Many => self.keys(),
        }
    }

    /// Whether an object may be missing at any time.
    pub(super) fn evicts(self) -> bool {
        match self {
            Self::Few => false,
            Self::Many => true,
        }
    }

    /// The maximum number of keys of a batch.
    pub(super) fn batch(self) -> usize {
        match self {
            Self::Few => 4,
            Self::Many => 40,
        }
    }

    /// Lengths of payloads, in bytes.
    pub(super) fn payload_lens(self) -> &'static [usize] {
        match self {
            // Inline, of odd length, and longer than one command.
            Self::Few => &[20, 3000, 17_000, 128 << 10],
            Self::Many => const { &mix() },
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Many => "many",
        }
    }

    /// Formats a store.
    pub(super) fn format(self, backend: Arc<dyn IoBackend>) -> Result<()> {
        let options = FormatOptions::default().segment_size(1 << 20).block_size(512).force(true);
        Ok(Store::format(backend, &options)?)
    }

    /// Opens a store.
    pub(super) fn open(self, backend: Arc<dyn IoBackend>) -> Result<Store> {
        let eviction = match self {
            Self::Few => EvictionPolicy::None,
            Self::Many => EvictionPolicy::Lru,
        };
        let options = OpenOptions::default().eviction(eviction);
        Store::open_with(backend, &options).context("open the store")
    }

    /// Returns the value that a store has for a key.
    ///
    /// # Errors
    /// When no object has these bytes.
    pub(super) fn find(self, store: &Store, key: u64) -> Result<Value> {
        match store.get(&objects::name(key)) {
            Ok(None) => Ok(None),
            Ok(Some(object)) => objects::number(self.payload_lens(), object.payload())
                .map(Some)
                .context("no object has these bytes"),
            // An interrupted put of a key that had no object: there is no older object to return.
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts a batch of objects.
pub(super) fn put_many(store: &Store, objects: &[Object]) -> BatchResult<()> {
    let puts: Vec<_> = objects.iter().map(|(name, bytes)| Put::new(name, bytes)).collect();
    store.put_many(&puts)
}

/// Checks that the counters agree with each other.
pub(super) fn check_counts(store: &Store) -> Result<()> {
    let stats = store.stats();
    let all =
        stats.free_segments + stats.open_segments + stats.full_segments + stats.draining_segments;
    ensure!(all == stats.segments, "the counts of segments do not add up: {stats:?}");
    Ok(())
}

/// Lengths of payloads of mixed sizes: most are small, a few have many blocks.
const fn mix() -> [usize; 500] {
    let mut lens = [0; 500];
    let mut at = 0;
    while at < lens.len() {
        lens[at] = 8 + at * 3;
        at += 1;
    }
    lens[100] = 17_000;
    lens[300] = 60_000;
    lens[499] = 500_000;
    lens
}

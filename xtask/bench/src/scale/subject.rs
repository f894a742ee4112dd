//! The stores to measure, and their clients.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, Direct};
use raw_block_store::{Engine, open_backend};
use raw_block_store::{EvictionPolicy, FormatOptions, Get, OpenOptions, Put, Store};

use super::device::SparseDevice;
use super::payload;
use super::table::ratio;

/// Objects per batch.
pub(super) const BATCH: usize = 32;
/// The minimum number of segments of a store: a large device has this many by default.
const SEGMENTS: u64 = 256;
const SMALLEST_SEGMENT: u64 = 1 << 20;
/// The part of a device that holds payloads, approximately, in percent.
const PAYLOAD_PERCENT: u64 = 93;

/// The size of a device whose store holds payloads of this many bytes.
pub(super) fn capacity_for(payload_bytes: u64) -> u64 {
    (payload_bytes / PAYLOAD_PERCENT * 100).max(SEGMENTS * SMALLEST_SEGMENT) + (8 << 20)
}

/// The size of segments for a device: 256 to 511 segments, if they do not become too small.
pub(super) fn segment_size(capacity: u64) -> u64 {
    let most = (capacity / SEGMENTS).max(SMALLEST_SEGMENT);
    1 << most.ilog2()
}

/// Formats and opens a store.
pub(super) fn make(
    backend: Arc<dyn IoBackend>,
    segment_size: u64,
    options: &OpenOptions,
) -> Result<Store> {
    let format = FormatOptions::default().segment_size(segment_size).force(true);
    Store::format(Arc::clone(&backend), &format)?;
    Ok(Store::open_with(backend, options)?)
}

/// Formats and opens a store on a file or device, or in memory without a path.
pub(super) fn make_at(path: Option<&Path>, capacity: u64, options: &OpenOptions) -> Result<Store> {
    let backend = match path {
        Some(path) => open_backend(path, Engine::Uring, Direct::Required)?,
        None => SparseDevice::new(capacity, None, 0)?.open(),
    };
    let segment = segment_size(backend.geometry().capacity);
    make(backend, segment, options)
}

pub(super) fn options(eviction: EvictionPolicy) -> OpenOptions {
    OpenOptions::default().eviction(eviction)
}

/// The name of a policy.
pub(super) fn name(policy: EvictionPolicy) -> &'static str {
    match policy {
        EvictionPolicy::Lru => "lru",
        EvictionPolicy::S3Fifo => "s3-fifo",
        EvictionPolicy::Fifo => "fifo",
        _ => "none",
    }
}

/// Parses the name of a policy that evicts.
pub(super) fn policy(text: &str) -> Result<EvictionPolicy, String> {
    let all = [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Fifo];
    let found = all.into_iter().find(|policy| name(*policy) == text);
    found.ok_or_else(|| format!("{text:?} is not lru, s3-fifo or fifo"))
}

/// Puts and gets batches of objects of one size, and checks the results of gets.
pub(super) struct Client<'a> {
    store: &'a Store,
    payloads: Vec<AlignedBuf>,
    found: Vec<AlignedBuf>,
}

type Key = [u8; 16];

fn key(number: u64) -> Key {
    let mut key = *b"benchmark       ";
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

impl<'a> Client<'a> {
    pub(super) fn new(store: &'a Store, payload_len: usize) -> Result<Self> {
        let payloads = (0..BATCH).map(|_| payload::payload(payload_len)).collect::<Result<_>>()?;
        let found = (0..BATCH).map(|_| AlignedBuf::zeroed(payload_len));
        Ok(Self { store, payloads, found: found.collect::<Result<_, _>>()? })
    }

    /// Puts objects. They replace those with their keys.
    pub(super) fn put(&mut self, keys: &[u64]) -> Result<()> {
        for keys in keys.chunks(BATCH) {
            self.stamp(keys);
            let names: Vec<_> = keys.iter().map(|&number| key(number)).collect();
            let puts = names.iter().zip(&self.payloads).map(|(key, bytes)| Put::new(key, bytes));
            let puts: Vec<_> = puts.collect();
            self.store.put_many(&puts).all()?;
        }
        Ok(())
    }

    /// Puts the absent ones of some objects. Returns how many.
    pub(super) fn put_absent(&mut self, keys: &[u64]) -> Result<u64> {
        let mut count = 0;
        for keys in keys.chunks(BATCH) {
            self.stamp(keys);
            let names: Vec<_> = keys.iter().map(|&number| key(number)).collect();
            let puts = names.iter().zip(&self.payloads).map(|(key, bytes)| Put::new(key, bytes));
            let puts: Vec<_> = puts.collect();
            for put in self.store.put_many_if_absent(&puts) {
                count += u64::from(put?);
            }
        }
        Ok(count)
    }

    /// Gets objects. Calls `note` with each key, and whether it was found.
    pub(super) fn get(&mut self, keys: &[u64], mut note: impl FnMut(u64, bool)) -> Result<()> {
        for keys in keys.chunks(BATCH) {
            let names: Vec<_> = keys.iter().map(|&number| key(number)).collect();
            let gets = names.iter().zip(&mut self.found).map(|(key, bytes)| Get::new(key, bytes));
            let mut gets: Vec<_> = gets.collect();
            let results = self.store.get_many(&mut gets);
            for ((result, &key), bytes) in results.into_iter().zip(keys).zip(&self.found) {
                let found = result?;
                if let Some(found) = &found {
                    if found.payload_len != bytes.len() {
                        bail!("a get of key {key} returned {} bytes", found.payload_len);
                    }
                    payload::check(bytes, key)?;
                }
                note(key, found.is_some());
            }
        }
        Ok(())
    }

    pub(super) fn prefix_len(&self, numbers: &[u64]) -> Result<usize> {
        let keys: Vec<_> = numbers.iter().copied().map(key).collect();
        Ok(self.store.prefix_len(&keys)?)
    }

    fn stamp(&mut self, keys: &[u64]) {
        keys.iter().zip(&mut self.payloads).for_each(|(&key, bytes)| payload::stamp(bytes, key));
    }
}

/// Counts of a store, at one moment or between two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) puts: u64,
    pub(super) put_bytes: u64,
    pub(super) moves: u64,
    pub(super) moved_bytes: u64,
    /// Bytes of the writes of the device.
    pub(super) written_bytes: u64,
    pub(super) evictions: u64,
    pub(super) waits: u64,
    pub(super) checkpoints: u64,
}

impl Counts {
    pub(super) fn of(store: &Store) -> Self {
        let stats = store.stats();
        Self {
            puts: stats.puts,
            put_bytes: stats.put_bytes,
            moves: stats.moves,
            moved_bytes: stats.moved_bytes,
            written_bytes: store.dispatcher().stats().written_bytes,
            evictions: stats.evictions,
            waits: stats.waits_for_space,
            checkpoints: stats.checkpoints,
        }
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            puts: self.puts - before.puts,
            put_bytes: self.put_bytes - before.put_bytes,
            moves: self.moves - before.moves,
            moved_bytes: self.moved_bytes - before.moved_bytes,
            written_bytes: self.written_bytes - before.written_bytes,
            evictions: self.evictions - before.evictions,
            waits: self.waits - before.waits,
            checkpoints: self.checkpoints - before.checkpoints,
        }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            puts: self.puts + other.puts,
            put_bytes: self.put_bytes + other.put_bytes,
            moves: self.moves + other.moves,
            moved_bytes: self.moved_bytes + other.moved_bytes,
            written_bytes: self.written_bytes + other.written_bytes,
            evictions: self.evictions + other.evictions,
            waits: self.waits + other.waits,
            checkpoints: self.checkpoints + other.checkpoints,
        }
    }

    /// Moved bytes per put byte.
    pub(super) fn moved_per_put(&self) -> f64 {
        ratio(self.moved_bytes, self.put_bytes)
    }

    /// Written bytes per put byte, all metadata included.
    pub(super) fn written_per_put(&self) -> f64 {
        ratio(self.written_bytes, self.put_bytes)
    }
}

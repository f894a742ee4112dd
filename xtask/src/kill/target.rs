//! The stores whose processes are killed.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use raw_block_core::IoBackend;
use raw_block_store::{Error, FormatOptions, Put, Store, segments};

use super::objects::{self, Value};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Slots of one size, few objects, no eviction.
    Slots,
    /// Segments that hold 100,000 objects of mixed sizes, of which some are evicted all the time.
    Segments,
}

/// An object of a batch of puts: its name and its payload.
pub(super) type Object = ([u8; 8], Vec<u8>);

/// An open store.
pub(super) trait Target: Send + Sync {
    fn put_many(&self, objects: &[Object]) -> Vec<Result<(), Error>>;
    /// Deletes objects. Each result says whether the object was there, if the store knows.
    fn delete_many(&self, names: &[&[u8]]) -> Vec<Result<Option<bool>, Error>>;
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    fn flush(&self) -> Result<(), Error>;
    fn checkpoint(&self) -> Result<(), Error>;
    fn close(self: Box<Self>) -> Result<(), Error>;
    /// Checks that the counters agree with each other.
    fn check_counts(&self) -> Result<()>;
}

impl Kind {
    /// Bytes of the device.
    pub(super) fn device_len(self) -> u64 {
        match self {
            Self::Slots => 8 << 20,
            Self::Segments => 192 << 20,
        }
    }

    /// How many keys there are.
    pub(super) fn keys(self) -> u64 {
        match self {
            Self::Slots => 12,
            Self::Segments => 150_000,
        }
    }

    /// How many of them have an object at the beginning.
    pub(super) fn filled(self) -> u64 {
        match self {
            Self::Slots => 0,
            Self::Segments => self.keys(),
        }
    }

    /// Whether an object may be missing at any time.
    pub(super) fn evicts(self) -> bool {
        match self {
            Self::Slots => false,
            Self::Segments => true,
        }
    }

    /// The most keys of one batch.
    pub(super) fn batch(self) -> usize {
        match self {
            Self::Slots => 4,
            Self::Segments => 40,
        }
    }

    /// Lengths of payloads, in bytes.
    pub(super) fn payload_lens(self) -> &'static [usize] {
        match self {
            // In a header block, of odd lengths, and too long for one command.
            Self::Slots => &[20, 3000, 17_000, 128 << 10],
            Self::Segments => const { &mix() },
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Segments => "segments",
        }
    }

    /// Makes a store.
    pub(super) fn format(self, backend: Arc<dyn IoBackend>) -> Result<()> {
        match self {
            Self::Slots => {
                let options = FormatOptions {
                    slot_count: Some(40),
                    delete_log_blocks: Some(4),
                    force: true,
                    ..FormatOptions::for_payloads(128 << 10)
                };
                Store::format(backend, &options)?;
            }
            Self::Segments => {
                let options = segments::FormatOptions {
                    segment_size: Some(1 << 20),
                    block_size: Some(512),
                    force: true,
                    ..segments::FormatOptions::default()
                };
                segments::Store::format(backend, &options)?;
            }
        }
        Ok(())
    }

    /// Opens a store.
    pub(super) fn open(self, backend: Arc<dyn IoBackend>) -> Result<Box<dyn Target>> {
        Ok(match self {
            Self::Slots => Box::new(Store::open(backend).context("open the store")?),
            Self::Segments => {
                let options = segments::OpenOptions {
                    eviction: segments::EvictionPolicy::Lru,
                    ..segments::OpenOptions::default()
                };
                let opened = segments::Store::open_with(backend, &options);
                Box::new(opened.context("open the store")?)
            }
        })
    }

    /// What a store has under a key: the number of an object, or nothing.
    ///
    /// # Errors
    /// When it has the bytes of no object.
    pub(super) fn find(self, store: &dyn Target, key: u64) -> Result<Value> {
        match store.get(&objects::name(key)) {
            Ok(None) => Ok(None),
            Ok(Some(payload)) => objects::number(self.payload_lens(), &payload)
                .map(Some)
                .context("it has the bytes of no object"),
            // A put that was cut off, of a key that had no object: there is none to fall back to.
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Target for Store {
    fn put_many(&self, objects: &[Object]) -> Vec<Result<(), Error>> {
        let puts: Vec<_> = objects.iter().map(|(name, bytes)| Put::new(name, bytes)).collect();
        Self::put_many(self, &puts)
    }

    fn delete_many(&self, names: &[&[u8]]) -> Vec<Result<Option<bool>, Error>> {
        Self::delete_many(self, names).into_iter().map(|result| result.map(Some)).collect()
    }

    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(Self::get(self, name)?.map(|object| object.payload().to_vec()))
    }

    fn flush(&self) -> Result<(), Error> {
        Self::flush(self)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        Self::checkpoint(self)
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Self::close(*self)
    }

    fn check_counts(&self) -> Result<()> {
        let stats = self.stats();
        let all = stats.live_slots + stats.free_slots + stats.waiting_slots;
        ensure!(all == stats.slots, "free, live and waiting slots are not all: {stats:?}");
        Ok(())
    }
}

impl Target for segments::Store {
    fn put_many(&self, objects: &[Object]) -> Vec<Result<(), Error>> {
        let puts: Vec<_> =
            objects.iter().map(|(name, bytes)| segments::Put::new(name, bytes)).collect();
        Self::put_many(self, &puts)
    }

    fn delete_many(&self, names: &[&[u8]]) -> Vec<Result<Option<bool>, Error>> {
        Self::delete_many(self, names).into_iter().map(|result| result.map(|()| None)).collect()
    }

    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(Self::get(self, name)?.map(|object| object.payload().to_vec()))
    }

    fn flush(&self) -> Result<(), Error> {
        Self::flush(self)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        Self::checkpoint(self)
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Self::close(*self)
    }

    fn check_counts(&self) -> Result<()> {
        let stats = self.stats();
        let all = stats.free_segments
            + stats.open_segments
            + stats.full_segments
            + stats.draining_segments;
        ensure!(all == stats.segments, "segments are missing: {stats:?}");
        Ok(())
    }
}

/// Lengths of the payloads of mixed sizes: most of them small, a few of many blocks.
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

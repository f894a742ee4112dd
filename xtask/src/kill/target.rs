//! The stores whose processes are killed.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use raw_block_core::IoBackend;
use raw_block_store::{Error, FormatOptions, Put, Store};

use super::objects::{self, Value};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Slots of one size, few objects, no eviction.
    Slots,
}

/// An object of a batch of puts: its name and its payload.
pub(super) type Object = ([u8; 8], Vec<u8>);

/// An open store.
pub(super) trait Target: Send + Sync {
    fn put_many(&self, objects: &[Object]) -> Vec<Result<(), Error>>;
    fn delete_many(&self, names: &[&[u8]]) -> Vec<Result<bool, Error>>;
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
        8 << 20
    }

    /// How many keys there are.
    pub(super) fn keys(self) -> u64 {
        12
    }

    /// How many of them have an object at the beginning.
    pub(super) fn filled(self) -> u64 {
        0
    }

    /// Whether an object may be missing at any time.
    pub(super) fn evicts(self) -> bool {
        false
    }

    /// The most keys of one batch.
    pub(super) fn batch(self) -> usize {
        4
    }

    /// Lengths of payloads, in bytes.
    pub(super) fn payload_lens(self) -> &'static [usize] {
        // In a header block, of odd lengths, and too long for one command.
        &[20, 3000, 17_000, 128 << 10]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
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
        }
        Ok(())
    }

    /// Opens a store.
    pub(super) fn open(self, backend: Arc<dyn IoBackend>) -> Result<Box<dyn Target>> {
        Ok(match self {
            Self::Slots => Box::new(Store::open(backend).context("open the store")?),
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

    fn delete_many(&self, names: &[&[u8]]) -> Vec<Result<bool, Error>> {
        Self::delete_many(self, names)
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

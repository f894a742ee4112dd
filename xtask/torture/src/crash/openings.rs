//! The beginning of an incarnation: a store is opened, perhaps after bit rot, and every key is
//! checked.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use raw_block_core::backend::IoBackend;

use super::bit_rot::BitRot;
use super::focus::Focus;
use super::history::{End, Found, History};
use super::incarnations::Incarnations;
use super::model::lock;
use super::target::{self, Store, Verification};

impl Incarnations {
    /// Corrupts a checkpoint, if that is the focus. Not after a kill: then its blocks may not be
    /// durable.
    pub(super) fn corrupt_checkpoint(&mut self) -> Option<BitRot> {
        let is_corrupted =
            self.focus == Focus::BitRot && self.ended != End::Kill && self.random.bool();
        if !is_corrupted {
            return None;
        }
        let bit_rot = BitRot::checkpoint(&self.device, &self.layout, &mut self.random);
        self.note(|| format!("{bit_rot:?} is corrupted"));
        Some(bit_rot)
    }

    /// Opens a store whose checkpoint may be corrupted. It opens with all durable objects, or
    /// fails.
    pub(super) fn open_after_bit_rot(
        &mut self,
        verification: Verification,
        bit_rot: Option<BitRot>,
    ) -> Result<Option<Store>> {
        let Some(bit_rot) = bit_rot else { return self.open(verification) };
        let options = target::open_options(self.eviction, verification, &mut self.random);
        match Store::open_with(self.device.backend(), &options) {
            Ok(store) => Ok(Some(store)),
            Err(error) if target::is_loss(&error) => {
                self.note(|| format!("the loss is noticed: {error}"));
                bit_rot.restore(&self.device);
                self.open(verification)
            }
            Err(_) if !self.context().must_succeed() => {
                // The store is unchanged until its first write, which follows a flush.
                if self.device.ops_so_far() <= 1 {
                    bit_rot.restore(&self.device);
                }
                Ok(None)
            }
            Err(error) => Err(anyhow!("opening failed without a fault: {error}")),
        }
    }

    /// Opens the store. Returns `None` when the power was cut, or a fault explains the error.
    pub(super) fn open(&mut self, verification: Verification) -> Result<Option<Store>> {
        let backend: Arc<dyn IoBackend> = self.device.backend();
        let options = target::open_options(self.eviction, verification, &mut self.random);
        match Store::open_with(backend, &options) {
            Ok(store) => {
                self.note(|| format!("opened, verification {verification:?}"));
                Ok(Some(store))
            }
            Err(error) if self.context().must_succeed() => {
                Err(anyhow!("opening failed without a fault: {error}"))
            }
            Err(error) => {
                self.note(|| format!("the store was not opened: {error}"));
                Ok(None)
            }
        }
    }

    /// Returns the values of a store that is opened read-only, which changes nothing.
    pub(super) fn look(&mut self) -> Result<Option<Vec<Found>>> {
        let before = self.device.ops_so_far();
        let options = target::open_options(self.eviction, Verification::Full, &mut self.random);
        let store = match Store::open_read_only(self.device.backend(), &options) {
            Err(_) if self.device.is_off() => return Ok(None),
            opened => opened.context("cannot open the store read-only")?,
        };
        let found = self.find_all(&store)?;
        if self.device.ops_so_far() > before {
            bail!("opening read-only wrote or flushed");
        }
        Ok(found)
    }

    /// Returns the value of each key, or `None` when the device is off.
    pub(super) fn find_all(&self, store: &Store) -> Result<Option<Vec<Found>>> {
        let keys: Vec<_> = (0..self.model().keys.len()).collect();
        let found = self.context().find(store, ' ', &keys, true)?;
        Ok(found.into_iter().collect())
    }

    /// Checks every key after an opening.
    pub(super) fn check_all(&mut self, store: &Store) -> Result<Option<Vec<Found>>> {
        let began = self.model().now();
        let Some(found) = self.find_all(store)? else { return Ok(None) };
        // From now on, an incarnation without a close is one that was killed.
        let ended = std::mem::replace(&mut self.ended, End::Kill);
        let mut model = lock(&self.model);
        // Every torn slot belongs to a put that was not flushed.
        let mut tearable: usize = model.keys.iter().map(History::tearable).sum();
        for (key, &value) in found.iter().enumerate() {
            let history = &mut model.keys[key];
            if value == Found::Damaged && !history.was_damaged() {
                let rest = tearable.checked_sub(1);
                tearable =
                    rest.context("more objects are damaged than there were unflushed puts")?;
            }
            let checked = history.check_opening(value, ended, began);
            checked.map_err(|wrong| anyhow!("key {key}: {wrong}"))?;
        }
        drop(model);
        self.context().check_counts(store, 0)?;
        Ok(Some(found))
    }
}

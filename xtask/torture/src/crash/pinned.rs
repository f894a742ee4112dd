//! Objects that a client has pinned.

use std::fmt;

use anyhow::{Context as _, Result, bail};

use super::history::Found;
use super::model::Context;
use super::objects;
use super::target::{Pin, Store};

/// A pinned object.
pub(super) struct Pinned<'a> {
    // Dropped before `counted`: a pin that is not counted must not be why the store is full.
    pin: Pin,
    counted: Counted<'a>,
    key: usize,
    number: u64,
    /// A moment before it was pinned.
    since: u64,
}

impl<'a> Pinned<'a> {
    /// Pins the object of `key`, if there is one.
    pub(super) fn new(context: &'a Context<'a>, store: &'a Store, key: usize) -> Option<Self> {
        let since = context.model().now();
        let pin = store.pin(&objects::name(key)).ok()??;
        let mut pinned = Self { pin, counted: Counted::new(context), key, number: 0, since };
        let bytes = pinned.read().ok()?;
        pinned.number = context.model().identify(key, &bytes, None)?;
        Some(pinned)
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.pin.payload_len()];
        self.pin.read(&mut bytes, &mut [])?;
        Ok(bytes)
    }

    /// Checks that the object has not changed, and that a get finds it unless the key was changed
    /// since.
    pub(super) fn check(&self, store: &Store, client: char) -> Result<()> {
        let Self { counted: Counted(context), key, number, since, .. } = *self;
        match self.read() {
            Ok(bytes) if bytes == objects::payload(number, bytes.len()) => {}
            Ok(_) => bail!("the pinned object #{number} changed"),
            Err(_) if context.device.is_off() || context.model().misreads => return Ok(()),
            Err(error) => bail!("the pinned object #{number} cannot be read: {error}"),
        }
        let found = context.find(store, client, &[key], true)?;
        let found = found.into_iter().next().context("a get has a result")?;
        let unchanged = context.model().keys[key].is_unchanged_since(since);
        match found {
            Some(found) if unchanged && found != Found::Whole(Some(number)) => {
                bail!("key {key} has {found}, and #{number} is pinned")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Pinned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} #{}", self.key, self.number)
    }
}

/// Counts a pin in the model.
struct Counted<'a>(&'a Context<'a>);

impl<'a> Counted<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        context.model().pins += 1;
        Self(context)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.model().pins -= 1;
    }
}

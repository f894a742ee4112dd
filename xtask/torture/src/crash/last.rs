//! The end of a scenario: the store must still be able to delete, put, and reclaim.

use anyhow::{Context as _, Result, anyhow, bail};

use super::model::Context;
use super::objects::{self, Lengths};
use super::target::{self, Get, Put, Store};

/// An object that the store has at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    key: usize,
    number: u64,
    lengths: Lengths,
}

const FAILS: &str = "the device has no faults any more";
/// The first of the keys that only the end uses.
const FIRST_KEY: usize = 1 << 20;
/// The first of the numbers that only the end uses.
const FIRST_NUMBER: u64 = 1 << 40;

/// Deletes and puts every key. If `fill`, first puts until the store is full, and deletes again.
/// Returns the objects that the store then has.
pub(super) fn use_up(
    context: &Context<'_>,
    store: &Store,
    random: &mut fastrand::Rng,
    fill: bool,
) -> Result<Vec<Left>> {
    let mut last = Last { context, store, random, next: 0, left: Vec::new() };
    if fill {
        last.fill()?;
    }
    let keys = context.model().keys.len();
    for key in 0..keys {
        last.delete(key)?;
    }
    last.check_counts()?;
    // Quarantined segments may leave no space for three objects.
    if fill && store.stats().bad_segments == 0 {
        last.churn()?;
    }
    for key in 0..keys.min(12) {
        let lengths = context.sizes.lengths(last.random);
        if !last.put(key, lengths)? {
            break;
        }
    }
    Ok(last.left)
}

/// Checks that the store still has these objects.
pub(super) fn check(context: &Context<'_>, store: &Store, left: &[Left]) -> Result<()> {
    for left in left {
        let name = objects::name(left.key);
        let mut payload = vec![0; left.lengths.payload];
        let mut metadata = vec![0; left.lengths.metadata];
        let get = Get::new(&name, &mut payload).with_metadata(&mut metadata);
        match store.get_many(&mut [get]).remove(0).context(FAILS)? {
            None if context.evicts => {}
            Some(_)
                if payload == objects::payload(left.number, left.lengths.payload)
                    && metadata == objects::metadata(left.number, left.lengths.metadata) => {}
            found => bail!("key {} has another value after a close: {found:?}", left.key),
        }
    }
    Ok(())
}

struct Last<'a> {
    context: &'a Context<'a>,
    store: &'a Store,
    random: &'a mut fastrand::Rng,
    next: u64,
    left: Vec<Left>,
}

impl Last<'_> {
    /// Fills the store, deletes half of its objects, and puts as much again.
    fn fill(&mut self) -> Result<()> {
        let shape = self.context.layout.shape;
        let blocks = u64::from(shape.segments * shape.segment_blocks);
        let evicts = self.context.evicts;
        let limit = if evicts { blocks / 2 } else { 4 * blocks };
        let (_, full) = self.put_blocks(limit)?;
        if !full && !evicts {
            bail!("a store of {blocks} blocks accepted {limit}");
        }
        let (mut deleted, mut largest) = (0, 0);
        self.random.shuffle(&mut self.left);
        let keep = self.left.len() / 2;
        for left in self.left.split_off(keep) {
            self.delete(left.key)?;
            deleted += self.blocks(left.lengths);
            largest = largest.max(self.blocks(left.lengths));
        }
        self.check_counts()?;
        let enough = target::reusable(deleted, self.context.layout, &self.store.stats());
        let enough = enough.saturating_sub(largest);
        let (put, _) = self.put_blocks(enough)?;
        if put < enough {
            bail!("of {deleted} deleted blocks only {put} can be put again");
        }
        for left in std::mem::take(&mut self.left) {
            self.delete(left.key)?;
        }
        Ok(())
    }

    /// Puts new objects until they have `limit` blocks. Returns how many they have, and whether the
    /// store is full.
    fn put_blocks(&mut self, limit: u64) -> Result<(u64, bool)> {
        let mut put = 0;
        while put < limit {
            let lengths = self.context.sizes.lengths(self.random);
            let key = FIRST_KEY + usize::try_from(self.next)?;
            if !self.put(key, lengths)? {
                return Ok((put, true));
            }
            put += self.blocks(lengths);
        }
        Ok((put, false))
    }

    /// Overwrites three keys of an otherwise empty store many times.
    fn churn(&mut self) -> Result<()> {
        for turn in 0..30 {
            let lengths = self.context.sizes.lengths(self.random);
            let key = FIRST_KEY + turn % 3;
            if !self.put(key, lengths)? {
                bail!("the store is full with three objects");
            }
        }
        for turn in 0..3 {
            self.delete(FIRST_KEY + turn)?;
        }
        self.left.clear();
        Ok(())
    }

    /// Puts an object. Returns `false` if the store is full.
    fn put(&mut self, key: usize, lengths: Lengths) -> Result<bool> {
        let number = FIRST_NUMBER + self.next;
        self.next += 1;
        let name = objects::name(key);
        let payload = objects::payload(number, lengths.payload);
        let metadata = objects::metadata(number, lengths.metadata);
        let object = Put::new(&name, &payload).with_metadata(&metadata);
        let result = self.store.put_many(&[object]).remove(0);
        self.context.note(' ', || format!("put key {key} {lengths:?}: {result:?}"));
        match result {
            Ok(()) => {
                self.left.retain(|left| left.key != key);
                self.left.push(Left { key, number, lengths });
                Ok(true)
            }
            Err(error)
                if target::is_full(&error)
                    && (!self.context.evicts || self.store.stats().bad_segments > 0) =>
            {
                Ok(false)
            }
            Err(error) => Err(anyhow!("{FAILS}: {error}")),
        }
    }

    fn delete(&self, key: usize) -> Result<()> {
        let result = self.store.delete_many(&[&objects::name(key)]).remove(0);
        self.context.note(' ', || format!("delete key {key}: {result:?}"));
        result.map(|_| ()).with_context(|| format!("delete key {key}"))
    }

    fn check_counts(&self) -> Result<()> {
        let mut more = 0;
        for left in self.left.iter().filter(|left| left.key >= FIRST_KEY) {
            more += u64::from(self.store.contains(&objects::name(left.key))?);
        }
        self.context.check_counts(self.store, more)
    }

    /// Blocks of an object's payload, at least one.
    fn blocks(&self, lengths: Lengths) -> u64 {
        lengths.payload.div_ceil(self.context.layout.shape.block_size as usize).max(1) as u64
    }
}

//! A client of a store.

use anyhow::{Result, anyhow, bail};

use super::faults;
use super::history::Found;
use super::model::{Begun, Context};
use super::objects;
use super::pinned::Pinned;
use super::steps::{Step, Steps};
use super::target::{self, Error, Put, Store};

/// A client, alone or one of several.
pub(super) struct Client<'a> {
    pub(super) name: char,
    pub(super) random: fastrand::Rng,
    pub(super) context: &'a Context<'a>,
    pub(super) store: &'a Store,
    pub(super) alone: bool,
    pub(super) steps: usize,
    /// Whether it injects faults.
    pub(super) faults: bool,
    pinned: Option<Pinned<'a>>,
}

/// Counters of a store about evictions.
struct Evictions {
    evictions: u64,
    checkpoints: u64,
}

impl Evictions {
    fn of(store: &Store) -> Self {
        let stats = store.stats();
        Self { evictions: stats.evictions, checkpoints: stats.checkpoints }
    }

    /// Checks that the store has evicted nothing since without a checkpoint.
    fn check(&self, store: &Store) -> Result<()> {
        let now = Self::of(store);
        if now.evictions > self.evictions && now.checkpoints == self.checkpoints {
            bail!("{} objects were evicted without a checkpoint", now.evictions - self.evictions);
        }
        Ok(())
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(
        name: char,
        random: fastrand::Rng,
        context: &'a Context<'a>,
        store: &'a Store,
    ) -> Self {
        Self { name, random, context, store, alone: false, steps: 1, faults: true, pinned: None }
    }

    /// Takes random steps until the power is cut.
    pub(super) fn run(mut self) -> Result<()> {
        let steps = Steps::draw(self.context.focus, self.faults, &mut self.random);
        for _ in 0..self.steps {
            let step = steps.next(&mut self.random);
            let before = Evictions::of(self.store);
            self.step(step)?;
            if self.alone && self.pinned.is_none() && step != Step::Unpin {
                before.check(self.store)?;
            }
            if self.context.device.is_off() {
                break;
            }
            if let Some(pinned) = &self.pinned {
                pinned.check(self.store, self.name)?;
            }
            if self.alone && !self.context.device.is_off() {
                self.context.check_counts(self.store, 0)?;
            }
        }
        self.unpin();
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Put => self.put(),
            Step::PutAbsent => self.put_absent(),
            Step::Delete => self.delete(),
            Step::Get => self.get(),
            Step::Flush => self.flush(),
            Step::Checkpoint => {
                let done = self.store.checkpoint();
                self.note(|| format!("checkpoint: {done:?}"));
                self.expect(done.err().as_ref(), "checkpoint")
            }
            Step::Pin => self.pin(),
            Step::Unpin => {
                self.unpin();
                Ok(())
            }
            Step::List => self.list(),
            Step::Scrub => self.scrub(),
            Step::Fault => {
                faults::inject(self.context, self.name, &mut self.random);
                Ok(())
            }
            Step::Clear => self.clear(),
            Step::Work => {
                let done = target::work(self.store);
                self.note(|| format!("work: {done:?}"));
                self.expect(done.err().as_ref(), "work")
            }
        }
    }

    /// Draws keys. Some batches have the same key twice.
    fn keys(&mut self, most: usize) -> Vec<usize> {
        let all = self.context.model().keys.len();
        let most = if self.random.u8(..8) == 0 { 4 * most } else { most };
        let count = self.random.usize(1..=most);
        let mut keys: Vec<_> = (0..count).map(|_| self.random.usize(..all)).collect();
        if self.random.u8(..6) > 0 {
            keys.sort_unstable();
            keys.dedup();
        }
        keys
    }

    fn begin_puts(&mut self) -> Vec<Begun> {
        let keys = self.keys(4);
        self.context.model().begin_puts(&keys, self.context.sizes, &mut self.random)
    }

    fn put(&mut self) -> Result<()> {
        let batch = self.begin_puts();
        let results = self.store.put_many(&puts(&batch));
        for (begun, result) in batch.iter().zip(results) {
            self.end_put(begun, result.as_ref().err())?;
        }
        Ok(())
    }

    fn put_absent(&mut self) -> Result<()> {
        let batch = self.begin_puts();
        let Some(results) = target::put_absent(self.store, &puts(&batch)) else {
            let mut model = self.context.model();
            batch.iter().for_each(|begun| model.keys[begun.key].cancel(begun.at));
            return Ok(());
        };
        for (begun, result) in batch.iter().zip(results) {
            let Begun { key, at, .. } = *begun;
            if let Ok(put) = result {
                // The change has not completed: so another put of the same batch may explain that
                // the key is present.
                let mut model = self.context.model();
                let checked = match model.misreads {
                    true => Ok(()),
                    false => model.keys[key].check_presence(!put, at),
                };
                if !put {
                    model.keys[key].cancel(at);
                    model.note(self.context.device, || format!("put absent key {key}: present"));
                }
                checked.map_err(|wrong| anyhow!("put absent key {key}: {wrong}"))?;
                if !put {
                    continue;
                }
            }
            self.end_put(begun, result.as_ref().err())?;
        }
        Ok(())
    }

    fn end_put(&self, begun: &Begun, error: Option<&Error>) -> Result<()> {
        let Begun { key, at, number, .. } = *begun;
        let len = begun.payload.len();
        let result = error.map_or(Ok(()), Err);
        self.note(|| format!("put key {key} #{number} of {len} bytes: {result:?}"));
        let (load, block) = {
            let mut model = self.context.model();
            let block = self.context.layout.shape.block_size;
            let load = model.load(block);
            model.end(key, at, error.is_none());
            if is_unknown(error) {
                model.keys[key].outcome_is_unknown(at);
            }
            (load, block)
        };
        if error.is_some_and(target::is_full) {
            let trouble = !self.context.must_succeed() || self.store.stats().bad_segments > 0;
            if trouble || self.context.may_be_full(load) {
                return Ok(());
            }
            bail!("the store is full with at most {load:?}, blocks of {block} bytes");
        }
        self.expect(error, "put")
    }

    fn delete(&mut self) -> Result<()> {
        let keys = self.keys(3);
        // Sometimes enough deletes for several blocks of tombstones. The key is deleted if one of
        // them succeeds.
        let repeats = if self.random.u8(..6) == 0 { self.random.usize(2..20) } else { 1 };
        let began = self.context.model().begin_deletes(&keys);
        let names: Vec<_> = keys.iter().map(|&key| objects::name(key)).collect();
        let names: Vec<_> = names.iter().map(|name| &name[..]).collect();
        let results = self.store.delete_many(&names.repeat(repeats));
        for (index, (&key, at)) in keys.iter().zip(began).enumerate() {
            let results: Vec<_> = results.iter().skip(index).step_by(keys.len()).collect();
            let done = results.iter().any(|result| result.is_ok());
            let error = results.iter().find_map(|result| result.as_ref().err());
            self.note(|| format!("delete key {key}, {repeats} times: {done}, {error:?}"));
            {
                let mut model = self.context.model();
                model.end(key, at, done);
                if is_unknown(error) {
                    model.keys[key].outcome_is_unknown(at);
                }
                if error.is_some_and(target::is_of_checkpoint) {
                    model.keys[key].may_show_failed(at);
                }
            }
            match error {
                // Quarantined segments may take the reserve, and checkpoints fail.
                Some(error) if target::is_full(error) && self.store.stats().bad_segments == 0 => {
                    bail!("delete key {key}: {error}");
                }
                _ => self.expect(error, "delete")?,
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        let keys: Vec<_> = (0..self.context.model().keys.len()).collect();
        let began = self.context.model().begin_deletes(&keys);
        let Some(result) = target::clear(self.store) else {
            let mut model = self.context.model();
            keys.iter().zip(began).for_each(|(&key, at)| model.keys[key].cancel(at));
            return Ok(());
        };
        self.note(|| format!("clear: {result:?}"));
        let shown = result.as_ref().is_err_and(target::is_of_superblock);
        for (&key, at) in keys.iter().zip(began) {
            let mut model = self.context.model();
            model.end(key, at, result.is_ok());
            if shown {
                model.keys[key].may_show_failed(at);
            }
        }
        self.expect(result.err().as_ref(), "clear")
    }

    fn get(&mut self) -> Result<()> {
        let keys = self.keys(5);
        let began = self.context.model().begin_get();
        let with_metadata = self.random.bool();
        let found = self.context.find(self.store, self.name, &keys, with_metadata);
        self.context.model().end_get(began);
        for (&key, found) in keys.iter().zip(found?) {
            let Some(found) = found else { continue };
            let checked = self.context.model().keys[key].check_get(found, began);
            checked.map_err(|wrong| anyhow!("key {key}: {wrong}"))?;
            if self.alone {
                let present = self.store.contains(&objects::name(key))?;
                let expected = matches!(found, Found::Whole(Some(_)));
                let misreads = self.context.model().misreads;
                if present != expected && found != Found::Damaged && !misreads {
                    bail!("key {key}: found {found}, but contains returns {present}");
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let began = self.context.model().now();
        let result = self.store.flush();
        self.note(|| format!("flush: {result:?}"));
        if result.is_ok() {
            self.context.model().flushed(began);
        }
        self.expect(result.err().as_ref(), "flush")
    }

    /// Lists the store. A key that no client changes is listed if and only if it is present.
    fn list(&mut self) -> Result<()> {
        let began = self.context.model().now();
        let listed = match target::list(self.store) {
            None => return Ok(()),
            Some(Err(_)) if self.context.model().misreads => return Ok(()),
            Some(Err(error)) => return self.expect(Some(&error), "list"),
            Some(Ok(listed)) => listed,
        };
        self.note(|| format!("{} objects are listed", listed.len()));
        let model = self.context.model();
        if model.misreads || self.context.device.is_off() {
            return Ok(());
        }
        for (key, history) in model.keys.iter().enumerate() {
            let count = listed.iter().filter(|name| **name == objects::name(key)).count();
            if count > 1 {
                bail!("key {key} is listed {count} times");
            }
            if !self.alone {
                continue;
            }
            let checked = history.check_presence(count > 0, began);
            checked.map_err(|wrong| anyhow!("list: key {key}: {wrong}"))?;
        }
        Ok(())
    }

    /// Scrubs the store. It is sound unless reads fail: the gets after the opening have removed
    /// torn objects.
    fn scrub(&self) -> Result<()> {
        let Some(scrubbed) = target::scrub(self.store) else { return Ok(()) };
        let findings = scrubbed.as_ref().map_or(0, Vec::len);
        self.note(|| format!("scrub: {findings} findings"));
        let trouble = self.context.model().misreads || !self.context.must_succeed();
        match scrubbed {
            Err(error) => self.expect(Some(&error), "scrub"),
            Ok(findings) if trouble || findings.is_empty() => Ok(()),
            Ok(findings) => bail!("a scrub finds damage in a sound store: {findings:?}"),
        }
    }

    fn pin(&mut self) -> Result<()> {
        self.unpin();
        let key = self.keys(1)[0];
        self.pinned = Pinned::new(self.context, self.store, key);
        if let Some(pinned) = &self.pinned {
            self.note(|| format!("{pinned} is pinned"));
        }
        Ok(())
    }

    fn unpin(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            let object = pinned.to_string();
            drop(pinned);
            self.note(|| format!("{object} is unpinned"));
        }
    }

    /// Fails for an error that no fault explains.
    fn expect(&self, error: Option<&Error>, what: &str) -> Result<()> {
        match error {
            Some(error) if self.context.must_succeed() => {
                Err(anyhow!("{what} failed without a fault: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.context.note(self.name, what);
    }
}

/// Whether a failed change may still take effect: a failed transfer may have been executed in part.
fn is_unknown(error: Option<&Error>) -> bool {
    matches!(error, Some(Error::Device { .. }))
}

fn puts(batch: &[Begun]) -> Vec<Put<'_>> {
    batch
        .iter()
        .map(|begun| Put::new(&begun.name, &begun.payload).with_metadata(&begun.metadata))
        .collect()
}

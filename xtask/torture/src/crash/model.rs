//! The model of a store while a scenario runs.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use raw_block_core::simulated::SimulatedDevice;

use super::focus::Focus;
use super::history::{Found, History};
use super::objects::{self, Lengths, NUMBER_LEN, Sizes};
use super::target::{self, Error, Get, Layout, Load, Store};

/// The model of one store.
pub(super) struct Model {
    pub(super) keys: Vec<History>,
    /// Lengths of every object that was ever put, by its number.
    objects: Vec<Lengths>,
    /// Numbers of the objects that were put under each key.
    numbers: Vec<Vec<u64>>,
    /// Advances whenever an operation begins or completes.
    clock: u64,
    /// Whether reads of the store may fail or return other bytes than were written.
    pub(super) misreads: bool,
    /// The beginning of each get in flight.
    gets: Vec<u64>,
    /// Number of pins.
    pub(super) pins: usize,
    /// The steps, if the caller has asked for them.
    trace: Option<String>,
}

/// A put that has begun.
pub(super) struct Begun {
    pub(super) key: usize,
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) name: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) metadata: Vec<u8>,
}

impl Model {
    /// Creates the model of a store with these objects, one under each of the first keys.
    pub(super) fn new(keys: usize, objects: &[Option<Lengths>], evicts: bool, trace: bool) -> Self {
        let tears = target::EVICTED_MAY_BE_TORN;
        let mut model = Self {
            keys: Vec::with_capacity(keys),
            objects: Vec::new(),
            numbers: vec![Vec::new(); keys],
            clock: 0,
            misreads: false,
            gets: Vec::new(),
            pins: 0,
            trace: trace.then(String::new),
        };
        for key in 0..keys {
            // The number of an object of a template is its key.
            let lengths = objects.get(key).copied().flatten();
            let number = model.issue(key, lengths.unwrap_or(Lengths { payload: 0, metadata: 0 }));
            model.keys.push(History::new(lengths.map(|_| number), evicts, tears));
        }
        model
    }

    pub(super) fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn issue(&mut self, key: usize, lengths: Lengths) -> u64 {
        let number = self.objects.len() as u64;
        self.objects.push(lengths);
        self.numbers[key].push(number);
        number
    }

    pub(super) fn lengths(&self, number: u64) -> Lengths {
        self.objects[usize::try_from(number).unwrap_or(usize::MAX)]
    }

    /// Begins a batch of puts.
    pub(super) fn begin_puts(
        &mut self,
        keys: &[usize],
        sizes: &Sizes,
        random: &mut fastrand::Rng,
    ) -> Vec<Begun> {
        let batch_began = self.now();
        let begin = |&key: &usize| {
            let mut lengths = sizes.lengths(random);
            if self.is_ambiguous(key, lengths) {
                lengths.payload = NUMBER_LEN;
            }
            let (at, number) = (self.now(), self.issue(key, lengths));
            self.keys[key].begin(Some(number), at, batch_began);
            Begun {
                key,
                at,
                number,
                name: objects::name(key),
                payload: objects::payload(number, lengths.payload),
                metadata: objects::metadata(number, lengths.metadata),
            }
        };
        keys.iter().map(begin).collect()
    }

    /// Whether another object of this key that may be found would have the same payload.
    fn is_ambiguous(&self, key: usize, Lengths { payload: len, .. }: Lengths) -> bool {
        let next = self.objects.len() as u64;
        let prefix = |number: u64| number.to_le_bytes().into_iter().take(len.min(NUMBER_LEN));
        len < NUMBER_LEN
            && self.keys[key]
                .numbers()
                .any(|other| self.lengths(other).payload == len && prefix(other).eq(prefix(next)))
    }

    /// Begins the deletes of some keys. Returns when each began.
    pub(super) fn begin_deletes(&mut self, keys: &[usize]) -> Vec<u64> {
        let batch_began = self.now();
        let begin = |&key: &usize| {
            let at = self.now();
            self.keys[key].begin(None, at, batch_began);
            at
        };
        keys.iter().map(begin).collect()
    }

    /// The change of `key` that began at `at` has completed.
    pub(super) fn end(&mut self, key: usize, at: u64, acknowledged: bool) {
        let now = self.now();
        self.keys[key].end(at, now, acknowledged);
    }

    /// A flush that began at `began` has succeeded: earlier acknowledged changes are durable.
    pub(super) fn flushed(&mut self, began: u64) {
        let changes = self.keys.iter().filter_map(History::oldest_in_flight);
        let oldest = changes.chain(self.gets.iter().copied()).min().unwrap_or(u64::MAX);
        self.keys.iter_mut().for_each(|key| key.flushed(began, oldest));
    }

    /// Begins a get. Returns when it began.
    pub(super) fn begin_get(&mut self) -> u64 {
        let now = self.now();
        self.gets.push(now);
        now
    }

    /// The get that began at `began` has completed.
    pub(super) fn end_get(&mut self, began: u64) {
        self.gets.retain(|&get| get != began);
    }

    /// Returns the number of the object of this key with these bytes.
    pub(super) fn identify(
        &self,
        key: usize,
        payload: &[u8],
        metadata: Option<&[u8]>,
    ) -> Option<u64> {
        let is_it = |number: u64| {
            let lengths = self.lengths(number);
            lengths.payload == payload.len()
                && objects::payload(number, lengths.payload) == payload
                && metadata.is_none_or(|found| objects::metadata(number, lengths.metadata) == found)
        };
        if let Some(prefix) = payload.first_chunk::<NUMBER_LEN>() {
            let number = u64::from_le_bytes(*prefix);
            return (self.numbers[key].contains(&number) && is_it(number)).then_some(number);
        }
        // Objects that may be found come first: their short payloads differ from each other.
        let possible = self.keys[key].numbers().find(|&number| is_it(number));
        possible.or_else(|| self.numbers[key].iter().copied().rev().find(|&number| is_it(number)))
    }

    /// Returns the maximum load of live objects and puts in flight.
    pub(super) fn load(&self, block: u32) -> Load {
        let mut load = Load { objects: 0, blocks: 0, largest: 0, pins: self.pins };
        for key in &self.keys {
            for number in key.live() {
                let blocks = self.lengths(number).payload.div_ceil(block as usize);
                load.objects += 1;
                load.blocks += blocks;
                load.largest = load.largest.max(blocks);
            }
        }
        load
    }

    pub(super) fn note(&mut self, device: &SimulatedDevice, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>5}  {}", device.ops_so_far(), what());
        }
    }

    pub(super) fn take_trace(&mut self) -> String {
        self.trace.take().unwrap_or_default()
    }
}

/// One incarnation of a store, as its clients see it.
pub(super) struct Context<'a> {
    pub(super) device: &'a SimulatedDevice,
    pub(super) layout: &'a Layout,
    pub(super) model: &'a Mutex<Model>,
    pub(super) sizes: &'a Sizes,
    /// Whether the device has failed or will fail a command.
    pub(super) troubled: &'a AtomicBool,
    /// Byte ranges in which writes fail.
    pub(super) bad: &'a [Range<u64>],
    /// Whether the store evicts.
    pub(super) evicts: bool,
    pub(super) focus: Focus,
}

impl Context<'_> {
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        lock(self.model)
    }

    pub(super) fn note(&self, client: char, what: impl FnOnce() -> String) {
        self.model().note(self.device, || format!("{client}: {}", what()));
    }

    pub(super) fn trouble(&self) {
        self.troubled.store(true, Ordering::SeqCst);
    }

    /// Whether a store with this load may be full.
    pub(super) fn may_be_full(&self, load: Load) -> bool {
        if self.focus.holds() {
            return true;
        }
        if self.evicts { load.pins > 0 } else { self.layout.may_be_full(load) }
    }

    /// Whether every call must succeed.
    pub(super) fn must_succeed(&self) -> bool {
        !self.troubled.load(Ordering::SeqCst) && !self.device.is_off()
    }

    /// Gets these keys. Returns `None` for those that the device cannot read.
    pub(super) fn find(
        &self,
        store: &Store,
        client: char,
        keys: &[usize],
        with_metadata: bool,
    ) -> Result<Vec<Option<Found>>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(16) {
            found.extend(self.find_batch(store, client, keys, with_metadata)?);
        }
        Ok(found)
    }

    fn find_batch(
        &self,
        store: &Store,
        client: char,
        keys: &[usize],
        with_metadata: bool,
    ) -> Result<Vec<Option<Found>>> {
        let largest = self.layout.largest_payload;
        let limit = if with_metadata { self.layout.shape.block_size as usize } else { 0 };
        let names: Vec<_> = keys.iter().map(|&key| objects::name(key)).collect();
        let mut memory = vec![0; keys.len() * (largest + limit)];
        let mut gets = Vec::with_capacity(keys.len());
        for (name, memory) in names.iter().zip(memory.chunks_exact_mut(largest + limit)) {
            let (payload, metadata) = memory.split_at_mut(largest);
            gets.push(Get::new(name, payload).with_metadata(metadata));
        }
        let results = store.get_many(&mut gets);
        drop(gets);
        let mut model = self.model();
        let mut all = Vec::with_capacity(keys.len());
        for ((&key, result), memory) in
            keys.iter().zip(results).zip(memory.chunks_exact(largest + limit))
        {
            let found = match result {
                // A store with eviction treats an object that it cannot read as missing.
                Ok(None) if self.evicts && model.misreads => None,
                Ok(None) => Some(Found::Whole(None)),
                Ok(Some(found)) => {
                    let (payload, metadata) = memory.split_at(largest);
                    let metadata = with_metadata.then(|| &metadata[..found.metadata_len]);
                    let number = model.identify(key, &payload[..found.payload_len], metadata);
                    let wrong = || anyhow!("key {key} has the bytes of no object");
                    Some(Found::Whole(Some(number.ok_or_else(wrong)?)))
                }
                Err(_) if self.device.is_off() || model.misreads => None,
                Err(Error::Damaged { .. }) => Some(Found::Damaged),
                Err(error) => return Err(anyhow!("key {key} cannot be read: {error}")),
            };
            if let Some(found) = found {
                model.note(self.device, || format!("{client}: get key {key}: {found}"));
            }
            all.push(found);
        }
        Ok(all)
    }

    /// Checks that the counters agree with the index. No change may be in flight.
    pub(super) fn check_counts(&self, store: &Store, more: u64) -> Result<()> {
        let stats = store.stats();
        let live = target::live_objects(&stats)?;
        let keys = self.model().keys.len();
        let names: Vec<_> = (0..keys).map(objects::name).collect();
        let present = store.contains_many(&names)?;
        let found = present.into_iter().filter(|&is_present| is_present).count() as u64;
        // A damaged object is counted, but not found.
        if !(found + more..=found + more + stats.failed_checks).contains(&live) {
            return Err(anyhow!("{live} objects are counted, {} are found", found + more));
        }
        Ok(())
    }
}

pub(super) fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

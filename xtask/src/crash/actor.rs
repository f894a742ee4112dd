//! What is done with a store in one life of it.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use raw_block_core::simulated::{Fault, SimulatedDevice};
use raw_block_core::{ErrorClass, OpKind};
use raw_block_store::format::Superblock;
use raw_block_store::{Error, Get, Pin, Put, Store};

use super::oracle::{Found, History, metadata, number, payload};

const EIO: i32 = 5;

/// What is known of a story while it is told.
pub(super) struct Book {
    pub(super) keys: Vec<History>,
    /// Counts up whenever something begins or is over.
    clock: u64,
    next_number: u64,
    /// Whether reads of the store may fail or find something else than was written.
    pub(super) misreads: bool,
    traced: bool,
    /// What happened, step by step, if asked for.
    pub(super) trace: String,
}

impl Book {
    pub(super) fn new(keys: usize, evicts: bool, traced: bool) -> Self {
        Self {
            keys: vec![History::new(evicts); keys],
            clock: 0,
            next_number: 1,
            misreads: false,
            traced,
            trace: String::new(),
        }
    }

    pub(super) fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Everything acknowledged until `began` is durable.
    pub(super) fn flushed(&mut self, began: u64) {
        self.keys.iter_mut().for_each(|key| key.flushed(began));
    }

    pub(super) fn note(&mut self, device: &SimulatedDevice, what: impl FnOnce() -> String) {
        if self.traced {
            let _ = writeln!(self.trace, "{:>5}  {}", device.ops_so_far(), what());
        }
    }
}

/// Where a life of a store takes place.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) device: &'a SimulatedDevice,
    pub(super) superblock: &'a Superblock,
    pub(super) book: &'a Mutex<Book>,
}

/// Somebody who uses a store, perhaps beside others.
pub(super) struct Actor<'a> {
    pub(super) name: char,
    pub(super) random: fastrand::Rng,
    pub(super) scene: Scene<'a>,
    pub(super) store: &'a Store,
    pub(super) alone: bool,
    /// An object that is pinned.
    pub(super) pin: Option<Pinned<'a>>,
}

/// An object that is pinned, and what it is.
pub(super) struct Pinned<'a> {
    pin: Pin<'a>,
    key: usize,
    value: u64,
    /// A moment before it was pinned.
    since: u64,
}

impl Actor<'_> {
    /// Does some things at random, until the power goes.
    pub(super) fn act(mut self) -> Result<()> {
        for _ in 0..self.random.usize(1..14) {
            if self.scene.device.is_off() {
                break;
            }
            if self.random.u8(..12) == 0 {
                self.misfortune();
            }
            self.step()?;
            if self.alone && !self.scene.device.is_off() {
                check_counts(self.store)?;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        match self.random.u8(..20) {
            0..=7 => self.put(),
            8..=10 => self.delete(),
            11..=13 => self.flush(),
            14 => {
                let done = self.store.checkpoint();
                self.note(|| format!("checkpoint: {done:?}"));
            }
            15 => self.take_pin(),
            16 => self.pin = None,
            _ => {
                let key = self.some_key();
                let began = self.book().now();
                if let Some(found) = self.find(key)? {
                    let checked = self.book().keys[key].check_get(found, began);
                    checked.map_err(|wrong| anyhow!("key {key}: {wrong}"))?;
                }
            }
        }
        self.look_at_pin()
    }

    /// Something that a device does now and then: a write or a flush that fails, with or without effect, a
    /// write that fails and takes effect later, or, in some lives, a read that finds something else.
    fn misfortune(&mut self) {
        let nth = self.random.u64(1..6);
        let (what, fault) = if self.book().misreads && self.random.bool() {
            ("read", self.misread())
        } else {
            let is_flush = self.random.u8(..8) == 0;
            let (what, kind) =
                if is_flush { ("flush", OpKind::Flush) } else { ("write", OpKind::Write) };
            let fault = match self.random.u8(..if is_flush { 2 } else { 3 }) {
                0 => Fault::fail(kind, EIO),
                1 => Fault::fail_after(kind, EIO),
                _ => Fault::late_write(self.random.u64(1..60)),
            };
            (what, fault)
        };
        self.note(|| format!("the {what} number {nth} from here will go wrong: {fault:?}"));
        self.scene.device.inject(fault.nth(nth));
    }

    /// A read of a slot that goes wrong.
    fn misread(&mut self) -> Fault {
        let slots = self.scene.superblock.slot_count.get();
        let len = self.scene.superblock.slot_size.get();
        let [slot, other] = [(); 2]
            .map(|()| self.scene.superblock.slots_offset.get() + self.random.u64(..slots) * len);
        let fault = match self.random.u8(..6) {
            0 => Fault::fail(OpKind::Read, EIO),
            1 | 2 => Fault::flip_bit(None),
            3 => Fault::zeroed(),
            4 => Fault::old_version(),
            _ => Fault::other_block(other),
        };
        fault.within(slot..slot + len)
    }

    fn some_key(&mut self) -> usize {
        let all = self.book().keys.len();
        self.random.usize(..all)
    }

    fn some_keys(&mut self) -> Vec<usize> {
        let count = self.random.usize(1..=4);
        let mut keys: Vec<_> = (0..count).map(|_| self.some_key()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn put(&mut self) {
        let block_size = self.scene.superblock.block_size.get();
        let mut batch = Vec::new();
        for key in self.some_keys() {
            let mut book = self.book();
            let (begun, value) = (book.now(), book.next_number);
            book.next_number += 1;
            book.keys[key].begin(Some(value), begun);
            batch.push((key, begun, value, name(key), metadata(value, block_size), payload(value)));
        }
        let puts: Vec<_> = batch
            .iter()
            .map(|(.., key, metadata, payload)| Put::new(key, payload).with_metadata(metadata))
            .collect();
        let results = self.store.put_many(&puts);
        for ((key, begun, value, ..), result) in batch.iter().zip(results) {
            self.note(|| format!("put key {key} #{value}: {result:?}"));
            self.end(*key, *begun, result.is_ok());
            if let Err(Error::Device { error, .. }) = result
                && error.class() == ErrorClass::Unknown
            {
                self.book().keys[*key].outcome_is_unknown(*begun);
            }
        }
    }

    fn delete(&mut self) {
        let mut batch = Vec::new();
        for key in self.some_keys() {
            let mut book = self.book();
            let begun = book.now();
            book.keys[key].begin(None, begun);
            batch.push((key, begun, name(key)));
        }
        // Often enough for several blocks of the log, now and then; one that is written is enough.
        let repeats = if self.random.u8(..4) == 0 { self.random.usize(2..20) } else { 1 };
        let names: Vec<_> = batch.iter().map(|(.., name)| &name[..]).collect();
        let results = self.store.delete_many(&names.repeat(repeats));
        for (index, (key, begun, _)) in batch.iter().enumerate() {
            let mut results = results.iter().skip(index).step_by(batch.len());
            let done = results.any(Result::is_ok);
            self.note(|| format!("delete key {key}, {repeats} times: {done}"));
            self.end(*key, *begun, done);
        }
    }

    fn end(&self, key: usize, begun: u64, acknowledged: bool) {
        let mut book = self.book();
        let now = book.now();
        book.keys[key].end(begun, now, acknowledged);
    }

    fn flush(&self) {
        let began = self.book().now();
        let result = self.store.flush();
        self.note(|| format!("flush: {result:?}"));
        if result.is_ok() {
            self.book().flushed(began);
        }
    }

    fn find(&self, key: usize) -> Result<Option<Found>> {
        self.scene.find(self.store, self.name, key)
    }

    fn take_pin(&mut self) {
        let key = self.some_key();
        let since = self.book().now();
        let Some(pin) = self.store.pin(&name(key)) else { return };
        let mut found = vec![0; pin.payload_len()];
        if pin.read(&mut found, &mut []).is_ok()
            && let Some(value) = number(&found)
        {
            self.note(|| format!("key {key} #{value} is pinned"));
            self.pin = Some(Pinned { pin, key, value, since });
        }
    }

    fn look_at_pin(&self) -> Result<()> {
        let Some(Pinned { pin, key, value, since }) = &self.pin else { return Ok(()) };
        let mut found = vec![0; pin.payload_len()];
        match pin.read(&mut found, &mut []) {
            Ok(_) if number(&found) == Some(*value) => {}
            Ok(_) => return Err(anyhow!("the pinned object #{value} changed")),
            Err(_) if self.scene.device.is_off() || self.book().misreads => return Ok(()),
            Err(error) => {
                return Err(anyhow!("the pinned object #{value} cannot be read: {error}"));
            }
        }
        let found = self.find(*key)?;
        let unchanged = self.book().keys[*key].is_unchanged_since(*since);
        match found {
            Some(found) if unchanged && found != Found::Whole(Some(*value)) => {
                Err(anyhow!("key {key} has {found}, and #{value} is pinned"))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.book().note(self.scene.device, || format!("{}: {}", self.name, what()));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(self.scene.book)
    }
}

impl Scene<'_> {
    /// What the store has under a key; `None` when the device does not answer.
    pub(super) fn find(&self, store: &Store, who: char, key: usize) -> Result<Option<Found>> {
        let block_size = self.superblock.block_size.get();
        let (mut bytes, mut described) = ([0; 1400], [0; 2048]);
        let name = name(key);
        let get = Get::new(&name, &mut bytes).with_metadata(&mut described);
        let found = match store.get_many(&mut [get]).remove(0) {
            Ok(None) => Found::Whole(None),
            Ok(Some(found)) => {
                let value = number(&bytes[..found.payload_len]).filter(|&value| {
                    metadata(value, block_size) == described[..found.metadata_len]
                });
                let wrong = || anyhow!("key {key} has the bytes of no object");
                Found::Whole(Some(value.ok_or_else(wrong)?))
            }
            Err(_) if self.device.is_off() || lock(self.book).misreads => return Ok(None),
            Err(Error::Damaged { .. }) => Found::Damaged,
            Err(error) => return Err(anyhow!("key {key} cannot be read: {error}")),
        };
        lock(self.book).note(self.device, || format!("{who}: get key {key}: {found}"));
        Ok(Some(found))
    }
}

/// Checks that no slot is lost, while nothing is under way.
pub(super) fn check_counts(store: &Store) -> Result<()> {
    let stats = store.stats();
    let waiting = stats.waiting_slots + stats.quarantined_slots;
    if stats.live_slots + stats.free_slots + waiting == stats.slots {
        return Ok(());
    }
    Err(anyhow!("free, live, waiting and quarantined slots are not all: {stats:?}"))
}

pub(super) fn name(key: usize) -> [u8; 8] {
    key.to_le_bytes()
}

pub(super) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

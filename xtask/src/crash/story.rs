//! A story: what happens to one store, from one seed.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use raw_block_core::simulated::{Fault, SimulatedDevice};
use raw_block_core::{Geometry, IoBackend, OpKind};
use raw_block_store::{Error, EvictionPolicy, FormatOptions, Get, OpenOptions, Pin, Put, Store};

use super::oracle::{History, Shown, Value, number, payload};

/// Slots of the stores.
const SLOTS: [u64; 4] = [4, 6, 9, 14];
/// Block sizes of the stores.
const BLOCK_SIZES: [u32; 2] = [512, 4096];
const EIO: i32 = 5;

/// Freshly formatted devices, one of each kind.
pub(super) struct Shelf(Vec<SimulatedDevice>);

impl Shelf {
    pub(super) fn new() -> Result<Self> {
        let mut devices = Vec::new();
        for slots in SLOTS {
            for block_size in BLOCK_SIZES {
                let device = SimulatedDevice::new(Geometry::new(1 << 20, 512)?, 0)?;
                let options = FormatOptions {
                    slot_count: Some(slots),
                    block_size: Some(block_size),
                    delete_log_blocks: Some(2 + slots % 3),
                    ..FormatOptions::for_payloads(1400)
                };
                Store::format(device.backend(), &options)?;
                devices.push(device);
            }
        }
        Ok(Self(devices))
    }

    pub(super) fn take(&self, random: &mut fastrand::Rng) -> SimulatedDevice {
        self.0[random.usize(..self.0.len())].fork(random.u64(..))
    }
}

/// Which story, and after how many writes and flushes the power is cut for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Title {
    pub(super) seed: u64,
    pub(super) cut: Option<u64>,
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cut {
            Some(cut) => write!(f, "{}:{cut}", self.seed),
            None => write!(f, "{}", self.seed),
        }
    }
}

impl FromStr for Title {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (seed, cut) =
            text.split_once(':').map_or((text, None), |(seed, cut)| (seed, Some(cut)));
        let wrong = || format!("{text:?} is not a story: it is SEED or SEED:CUT");
        Ok(Self {
            seed: seed.parse().with_context(wrong)?,
            cut: cut.map(str::parse).transpose().with_context(wrong)?,
        })
    }
}

/// How a story went.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Writes and flushes of the first life.
    pub(super) effects: u64,
    pub(super) cuts: u64,
    /// What broke a promise.
    pub(super) violation: Option<String>,
    /// What happened, step by step, if asked for.
    pub(super) trace: String,
}

/// Tells a story to its end.
pub(super) fn tell(shelf: &Shelf, title: Title, traced: bool) -> Told {
    let mut random = fastrand::Rng::with_seed(title.seed);
    let device = shelf.take(&mut random);
    let policy =
        [EvictionPolicy::None, EvictionPolicy::None, EvictionPolicy::Lru, EvictionPolicy::S3Fifo];
    let eviction = policy[random.usize(..4)];
    // Fewer than the smallest store has slots: none of them is ever full for good.
    let keys = random.usize(1..4);
    let mut teller = Teller {
        random,
        device,
        eviction,
        keys: vec![History::new(eviction != EvictionPolicy::None); keys],
        next_number: 1,
        crashed: false,
        told: Told::default(),
        traced,
    };
    if let Err(violation) = teller.lives(title.cut) {
        teller.told.violation = Some(format!("{violation:#}"));
    }
    teller.told
}

struct Teller {
    random: fastrand::Rng,
    device: SimulatedDevice,
    eviction: EvictionPolicy,
    keys: Vec<History>,
    next_number: u64,
    /// Whether the last life ended otherwise than by a close.
    crashed: bool,
    told: Told,
    traced: bool,
}

/// How a life ends, unless the power is cut before.
#[derive(Clone, Copy, Debug)]
enum End {
    Cut,
    Kill,
    Drop,
    Close,
}

impl Teller {
    fn lives(&mut self, first_cut: Option<u64>) -> Result<()> {
        let lives = self.random.usize(1..5);
        for life in 0..lives {
            let cut = if life == 0 {
                first_cut
            } else {
                self.random.bool().then(|| self.random.u64(1..60))
            };
            if let Some(cut) = cut {
                self.device.cut_after(cut);
            }
            let end = match self.random.u8(..6) {
                0 | 1 => End::Cut,
                2 => End::Kill,
                3 => End::Drop,
                _ => End::Close,
            };
            self.live(end)?;
            if life == 0 {
                self.told.effects = self.device.ops_so_far();
            }
            self.next_life(end);
        }
        self.last_life()
    }

    /// One life of the store. Ends early when the power goes.
    fn live(&mut self, end: End) -> Result<()> {
        let backend = self.device.backend();
        let Some(store) = self.open(&backend)? else { return Ok(()) };
        self.check_all(&store)?;
        let mut pin: Option<(Pin<'_>, u64)> = None;
        let steps = self.random.usize(1..14);
        for _ in 0..steps {
            if self.device.is_off() {
                break;
            }
            if self.random.u8(..12) == 0 {
                self.misfortune();
            }
            self.step(&store, &mut pin)?;
            if !self.device.is_off() {
                self.check_counts(&store)?;
            }
        }
        self.device.clear_faults();
        drop(pin);
        if matches!(end, End::Close) && !self.device.is_off() {
            match store.close() {
                Ok(()) => {
                    self.note(|| "closed".into());
                    // Everything acknowledged is durable now.
                    for key in &mut self.keys {
                        let durable = key.acknowledged();
                        key.flushed(durable);
                    }
                    self.crashed = false;
                }
                Err(error) => self.note(|| format!("close failed: {error}")),
            }
        }
        Ok(())
    }

    /// Something that a device does now and then: a write or a flush that fails, with or without effect.
    fn misfortune(&mut self) {
        let kind = if self.random.u8(..8) == 0 { OpKind::Flush } else { OpKind::Write };
        let nth = self.random.u64(1..6);
        let fault =
            if self.random.bool() { Fault::fail(kind, EIO) } else { Fault::fail_after(kind, EIO) };
        self.device.inject(fault.nth(nth));
        self.note(|| format!("the {} number {nth} from here will fail", kind.name()));
    }

    /// Opens the store; `None` when the power went meanwhile.
    fn open(&mut self, backend: &Arc<dyn IoBackend>) -> Result<Option<Store>> {
        let options = OpenOptions {
            eviction: self.eviction,
            // What one thread does is the same every time.
            checkpoint_thread: false,
            ..OpenOptions::default()
        };
        match Store::open_with(Arc::clone(backend), &options) {
            Ok(store) => {
                self.note(|| "opened".into());
                Ok(Some(store))
            }
            Err(error) if self.device.is_off() => {
                self.note(|| format!("the power went while it was opened: {error}"));
                Ok(None)
            }
            Err(error) => Err(anyhow!("the store does not open: {error}")),
        }
    }

    fn step(&mut self, store: &Store, pin: &mut Option<(Pin<'_>, u64)>) -> Result<()> {
        match self.random.u8(..20) {
            0..=8 => self.put(store),
            9..=11 => self.delete(store),
            12..=14 => self.flush(store),
            15 => {
                let done = store.checkpoint();
                self.note(|| format!("checkpoint: {done:?}"));
            }
            _ => {
                let key = self.random.usize(..self.keys.len());
                let found = self.find(store, key)?;
                if let Some(found) = found {
                    self.keys[key]
                        .check_now(found)
                        .map_err(|wrong| anyhow!("key {key}: {wrong}"))?;
                }
            }
        }
        if let Some((pin, pinned)) = pin {
            let mut found = vec![0; pin.payload_len()];
            if pin.read(&mut found, &mut []).is_ok() && number(&found) != Some(*pinned) {
                return Err(anyhow!("a pinned object changed"));
            }
        }
        Ok(())
    }

    fn some_keys(&mut self) -> Vec<usize> {
        let count = self.random.usize(1..=4);
        (0..count).map(|_| self.random.usize(..self.keys.len())).collect()
    }

    fn put(&mut self, store: &Store) {
        let mut keys = self.some_keys();
        keys.sort_unstable();
        keys.dedup();
        let mut batch = Vec::new();
        for &key in &keys {
            let value = self.next_number;
            self.next_number += 1;
            batch.push((name(key), payload(value), self.keys[key].begin(Some(value)), value));
        }
        let puts: Vec<_> = batch.iter().map(|(key, payload, ..)| Put::new(key, payload)).collect();
        let results = store.put_many(&puts);
        for ((key, (_, _, change, value)), result) in keys.into_iter().zip(&batch).zip(results) {
            self.note(|| format!("put key {key} #{value}: {result:?}"));
            if result.is_ok() {
                self.keys[key].acknowledge(*change);
            }
        }
    }

    fn delete(&mut self, store: &Store) {
        let mut keys = self.some_keys();
        keys.sort_unstable();
        keys.dedup();
        let changes: Vec<_> = keys.iter().map(|&key| self.keys[key].begin(None)).collect();
        let names: Vec<_> = keys.iter().map(|&key| name(key)).collect();
        let names: Vec<_> = names.iter().map(|name| &name[..]).collect();
        let results = store.delete_many(&names);
        for ((key, change), result) in keys.into_iter().zip(changes).zip(results) {
            self.note(|| format!("delete key {key}: {result:?}"));
            if result.is_ok() {
                self.keys[key].acknowledge(change);
            }
        }
    }

    fn flush(&mut self, store: &Store) {
        let durable: Vec<_> = self.keys.iter().map(History::acknowledged).collect();
        let result = store.flush();
        self.note(|| format!("flush: {result:?}"));
        if result.is_ok() {
            for (key, durable) in self.keys.iter_mut().zip(durable) {
                key.flushed(durable);
            }
        }
    }

    /// What the store has under a key; `None` when the device does not answer.
    fn find(&mut self, store: &Store, key: usize) -> Result<Option<Value>> {
        let mut buffer = [0; 2000];
        let found = store.get_many(&mut [Get::new(&name(key), &mut buffer)]).remove(0);
        let found = match found {
            Ok(None) => None,
            Ok(Some(found)) => {
                let bytes = &buffer[..found.payload_len];
                let number = number(bytes);
                Some(number.ok_or_else(|| anyhow!("key {key} has the bytes of no object"))?)
            }
            // The first write of a key that was not flushed may be there in part, and is told apart.
            Err(Error::Damaged { .. }) => None,
            Err(_) if self.device.is_off() => return Ok(None),
            Err(error) => return Err(anyhow!("key {key} cannot be read: {error}")),
        };
        self.note(|| format!("get key {key}: {}", Shown(found)));
        Ok(Some(found))
    }

    /// Checks every key when a life begins.
    fn check_all(&mut self, store: &Store) -> Result<()> {
        let crashed = std::mem::replace(&mut self.crashed, true);
        let mut found = Vec::new();
        for key in 0..self.keys.len() {
            match self.find(store, key)? {
                Some(value) => found.push(value),
                None => return Ok(()),
            }
        }
        for (key, value) in found.into_iter().enumerate() {
            let history = &mut self.keys[key];
            let checked =
                if crashed { history.check_after_crash(value) } else { history.check_now(value) };
            checked.map_err(|wrong| anyhow!("key {key}: {wrong}"))?;
        }
        self.check_counts(store)
    }

    fn check_counts(&self, store: &Store) -> Result<()> {
        let stats = store.stats();
        let sum = stats.live_slots + stats.free_slots + stats.waiting_slots;
        if sum == stats.slots {
            return Ok(());
        }
        Err(anyhow!("free, live and waiting slots are not all: {stats:?}"))
    }

    /// Ends a life, and begins the next with what is left.
    fn next_life(&mut self, end: End) {
        let end = if self.device.is_off() { End::Cut } else { end };
        self.device = match end {
            End::Cut => {
                let report = self.device.power_cut();
                self.told.cuts += 1;
                self.note(|| format!("the power is cut: {report:?}"));
                self.device.power_on()
            }
            // A process that ends in order has nothing in flight.
            End::Kill | End::Drop | End::Close => {
                self.note(|| "the process ends".into());
                self.device.process_kill()
            }
        };
    }

    /// A life without misfortune: everything that is left must work.
    fn last_life(&mut self) -> Result<()> {
        let backend = self.device.backend();
        let found = |teller: &mut Self, store: &Store| -> Result<Vec<Option<Value>>> {
            (0..teller.keys.len()).map(|key| teller.find(store, key)).collect()
        };
        let store = self.open(&backend)?.context("there is no reason for a power cut")?;
        self.check_all(&store)?;
        let before = found(self, &store)?;
        drop(store);
        // What was recovered is recovered again.
        let store = self.open(&backend)?.context("there is no reason for a power cut")?;
        if found(self, &store)? != before {
            return Err(anyhow!("two recoveries find different objects"));
        }
        for key in 0..self.keys.len() {
            store.delete_many(&[&name(key)]).remove(0).context("nothing fails any more")?;
            store.put(&name(key), &payload(key as u64)).context("nothing fails any more")?;
        }
        store.close().context("nothing fails any more")?;
        let store = self.open(&backend)?.context("there is no reason for a power cut")?;
        for key in 0..self.keys.len() {
            let found = self.find(&store, key)?;
            let evicted = self.eviction != EvictionPolicy::None && found == Some(None);
            if found != Some(Some(key as u64)) && !evicted {
                return Err(anyhow!("key {key} is not there after a close: {found:?}"));
            }
        }
        Ok(())
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.traced {
            let _ = writeln!(self.told.trace, "{:>5}  {}", self.device.ops_so_far(), what());
        }
    }
}

fn name(key: usize) -> [u8; 8] {
    key.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_told_the_same_way_every_time() {
        let shelf = Shelf::new().unwrap();
        for seed in 0..40 {
            for cut in [None, Some(7)] {
                let title = Title { seed, cut };
                let first = tell(&shelf, title, true);
                assert_eq!(first.trace, tell(&shelf, title, true).trace);
                assert_eq!(first.violation, None, "{title}");
                assert_eq!(title.to_string().parse::<Title>().unwrap(), title);
            }
        }
    }
}

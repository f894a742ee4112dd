//! A story: what happens to one store, from one seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use raw_block_core::IoBackend;
use raw_block_core::simulated::{SimulatedDevice, take_turns};
use raw_block_store::format::Superblock;
use raw_block_store::{EvictionPolicy, OpenOptions, Store, Verification};

use super::actor::{Actor, Book, Scene, check_counts, name};
use super::oracle::{Crash, Found, History, metadata, payload};
use super::shelf::{Shelf, Title};

/// How a story went.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Writes and flushes of the first life.
    pub(super) effects: u64,
    /// Writes and flushes until the store was open again in the second life.
    pub(super) recovery_effects: u64,
    pub(super) cuts: u64,
    /// What broke a promise.
    pub(super) violation: Option<String>,
    /// What happened, step by step, if asked for.
    pub(super) trace: String,
}

/// Tells a story to its end.
pub(super) fn tell(shelf: &Shelf, title: Title, traced: bool) -> Told {
    let mut random = fastrand::Rng::with_seed(title.seed);
    let (device, superblock) = shelf.take(&mut random);
    let policy =
        [EvictionPolicy::None, EvictionPolicy::None, EvictionPolicy::Lru, EvictionPolicy::S3Fifo];
    let eviction = policy[random.usize(..4)];
    // Fewer than the smallest store has slots: none of them is ever full for good.
    let keys = random.usize(1..4);
    let mut teller = Teller {
        random,
        device,
        superblock,
        eviction,
        book: Mutex::new(Book::new(keys, eviction != EvictionPolicy::None, traced)),
        keys,
        crashed: None,
        told: Told::default(),
    };
    let ended = catch_unwind(AssertUnwindSafe(|| teller.lives(title)));
    teller.told.violation = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(format!("{violation:#}")),
        Err(_) => Some("it panicked".to_owned()),
    };
    let trace = std::mem::take(&mut teller.book().trace);
    Told { trace, ..teller.told }
}

struct Teller {
    random: fastrand::Rng,
    device: SimulatedDevice,
    superblock: Superblock,
    eviction: EvictionPolicy,
    book: Mutex<Book>,
    keys: usize,
    /// How the last life ended, if otherwise than by a close.
    crashed: Option<Crash>,
    told: Told,
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
    fn lives(&mut self, title: Title) -> Result<()> {
        let lives = self.random.usize(1..5).max(1 + usize::from(title.again.is_some()));
        for life in 0..lives {
            let chance = self.random.bool().then(|| self.random.u64(1..60));
            let cut = match life {
                0 => title.cut,
                1 => title.again.or(chance),
                _ => chance,
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
            self.live(end, life)?;
            if life == 0 {
                self.told.effects = self.device.ops_so_far();
            }
            self.next_life(end);
        }
        self.last_life()
    }

    /// One life of the store. Ends early when the power goes.
    fn live(&mut self, end: End, life: usize) -> Result<()> {
        let misreads = self.random.u8(..4) == 0;
        let lenient = [Verification::Header, Verification::None][self.random.usize(..2)];
        let unverified = !misreads && self.random.u8(..4) == 0;
        let verification = if unverified { lenient } else { Verification::Full };
        let Some(store) = self.open(verification)? else { return Ok(()) };
        if life == 1 {
            self.told.recovery_effects = self.device.ops_so_far();
        }
        self.check_all(&store)?;
        self.book().misreads = misreads;
        self.act(&store)?;
        self.book().misreads = false;
        self.device.clear_faults();
        if !self.device.is_off() {
            check_counts(&store)?;
        }
        if matches!(end, End::Close) && !self.device.is_off() {
            let began = self.book().now();
            let closed = store.close();
            self.note(|| format!("close: {closed:?}"));
            if closed.is_ok() {
                self.book().flushed(began);
                self.crashed = None;
            }
        }
        Ok(())
    }

    /// Lets one or several use the store.
    fn act(&mut self, store: &Store) -> Result<()> {
        let actors = if self.random.bool() { 1 } else { self.random.usize(2..4) };
        let seeds: Vec<_> = (0..actors).map(|_| self.random.fork()).collect();
        let mut results: Vec<_> = (0..actors).map(|_| Ok(())).collect();
        let seed = self.random.u64(..);
        let scene = self.scene();
        let mut acts: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
        for ((random, result), name) in seeds.into_iter().zip(&mut results).zip('A'..) {
            let alone = actors == 1;
            let actor = Actor { name, random, scene, store, alone, pin: None };
            acts.push(Box::new(move || *result = actor.act()));
        }
        take_turns(seed, acts);
        results.into_iter().collect()
    }

    /// Opens the store; `None` when the power went meanwhile.
    fn open(&mut self, verification: Verification) -> Result<Option<Store>> {
        let backend: Arc<dyn IoBackend> = self.device.backend();
        let options = OpenOptions {
            eviction: self.eviction,
            verification,
            // A thread of its own would do something else every time.
            checkpoint_thread: false,
            ..OpenOptions::default()
        };
        match Store::open_with(backend, &options) {
            Ok(store) => {
                self.note(|| format!("opened, {verification:?} is verified"));
                Ok(Some(store))
            }
            Err(error) if self.device.is_off() => {
                self.note(|| format!("the power went while it was opened: {error}"));
                Ok(None)
            }
            Err(error) => Err(anyhow!("the store does not open: {error}")),
        }
    }

    /// What the store has for whoever only looks, which changes nothing.
    fn look(&self) -> Result<Option<Vec<Found>>> {
        let before = self.device.ops_so_far();
        let store = Store::open_read_only(self.device.backend(), &OpenOptions::default())?;
        let found = self.find_all(&store)?;
        if self.device.ops_so_far() > before {
            return Err(anyhow!("opening read-only wrote or flushed"));
        }
        Ok(found)
    }

    /// What the store has under each key; `None` when the device does not answer any more.
    fn find_all(&self, store: &Store) -> Result<Option<Vec<Found>>> {
        let scene = self.scene();
        (0..self.keys).map(|key| scene.find(store, ' ', key)).collect()
    }

    fn scene(&self) -> Scene<'_> {
        Scene { device: &self.device, superblock: &self.superblock, book: &self.book }
    }

    /// Checks every key when a life begins.
    fn check_all(&mut self, store: &Store) -> Result<()> {
        let began = self.book().now();
        let Some(found) = self.find_all(store)? else { return Ok(()) };
        // From now on, a life that ends without more is one that was killed.
        let crashed = self.crashed.replace(Crash::Kill);
        let mut book = self.book();
        let was_putting = book.keys.iter().any(History::has_unknown_outcome);
        let crashed = match crashed {
            Some(Crash::Kill) if was_putting => Some(Crash::KillDuringPut),
            crashed => crashed,
        };
        // Every slot that is torn is one that was being filled.
        let mut tearable: usize = book.keys.iter().map(History::tearable).sum();
        for (key, value) in found.into_iter().enumerate() {
            let history = &mut book.keys[key];
            if value == Found::Damaged && !history.was_torn() {
                let rest = tearable.checked_sub(1);
                tearable = rest.context("more objects are damaged than puts were not flushed")?;
            }
            let checked = match crashed {
                Some(crash) => history.check_after_crash(value, crash, began),
                None => history.check_get(value, began),
            };
            checked.map_err(|wrong| anyhow!("key {key}: {wrong}"))?;
        }
        drop(book);
        check_counts(store)
    }

    /// Ends a life, and begins the next with what is left.
    fn next_life(&mut self, end: End) {
        let end = if self.device.is_off() { End::Cut } else { end };
        self.device = match end {
            End::Cut => {
                let report = self.device.power_cut();
                self.told.cuts += 1;
                self.crashed = Some(Crash::PowerCut);
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
        const FAILS: &str = "nothing fails any more";
        let looked = self.look()?;
        let store = self.open(Verification::Full)?.context(FAILS)?;
        self.check_all(&store)?;
        let before = self.find_all(&store)?;
        if before != looked {
            return Err(anyhow!("who only looked had found {looked:?}, and not {before:?}"));
        }
        drop(store);
        // What was recovered is recovered again.
        let store = self.open(Verification::Full)?.context(FAILS)?;
        if self.find_all(&store)? != before {
            return Err(anyhow!("two recoveries find different objects"));
        }
        for key in 0..self.keys {
            store.delete_many(&[&name(key)]).remove(0).context(FAILS)?;
            let (name, payload) = (name(key), payload(key as u64));
            let metadata = metadata(key as u64, self.superblock.block_size.get());
            let object = raw_block_store::Put::new(&name, &payload).with_metadata(&metadata);
            store.put_many(&[object]).remove(0).context(FAILS)?;
        }
        store.close().context(FAILS)?;
        let store = self.open(Verification::Full)?.context(FAILS)?;
        let found = self.find_all(&store)?.context(FAILS)?;
        for (key, found) in found.into_iter().enumerate() {
            let evicted = self.eviction != EvictionPolicy::None && found == Found::Whole(None);
            if found != Found::Whole(Some(key as u64)) && !evicted {
                return Err(anyhow!("key {key} is not there after a close: {found:?}"));
            }
        }
        Ok(())
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.book().note(&self.device, what);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_told_the_same_way_every_time() {
        let shelves = [Shelf::new().unwrap(), Shelf::new().unwrap()];
        for seed in 0..40 {
            for (cut, again) in [(None, None), (Some(7), None), (Some(9), Some(3))] {
                let title = Title { seed, cut, again };
                let first = tell(&shelves[0], title, true);
                assert_eq!(first.trace, tell(&shelves[1], title, true).trace);
                assert_eq!(first.violation, None, "{title}");
                assert_eq!(title.to_string().parse::<Title>().unwrap(), title);
            }
        }
    }
}

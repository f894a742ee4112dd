//! Puts, gets, deletions, pins, checkpoints and evictions at once, held against a history of each key.
//!
//! Each key has one thread that changes it, in versions: most put a payload that says which version it is,
//! some delete the key. Whatever a reader finds must be a version between the last one that was over before
//! it looked, and the last one that had begun when it had looked. One key more is changed by all: which of
//! its changes is the last is for the store to say, and a recovery must say the same.
//!
//! `RAW_BLOCK_SECONDS` makes it run for longer than a second each.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::memory;
use raw_block_store::{EvictionPolicy, FormatOptions, Get, OpenOptions, Put, Store};

const KEYS: usize = 48;
/// The key that is changed by all.
const COMMON: usize = KEYS;
const WRITERS: usize = 4;
const READERS: usize = 4;
const PAYLOAD: usize = 5000;

struct Key {
    begun: AtomicU64,
    over: AtomicU64,
}

fn is_deletion(version: u64) -> bool {
    version.is_multiple_of(5)
}

fn payload(key: usize, version: u64) -> Vec<u8> {
    let fill = key.to_le_bytes()[0] ^ version.to_le_bytes()[0];
    let mut payload = vec![fill; PAYLOAD];
    for at in [0, PAYLOAD - 16] {
        payload[at..at + 8].copy_from_slice(&(key as u64).to_le_bytes());
        payload[at + 8..at + 16].copy_from_slice(&version.to_le_bytes());
    }
    payload
}

/// The version of a payload, which must be whole and of this key.
fn version_of(key: usize, found: &[u8]) -> u64 {
    let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
    assert!(found == payload(key, version), "key {key} has the bytes of no version of its own");
    version
}

fn name(key: usize) -> [u8; 8] {
    (key as u64).to_be_bytes()
}

struct World<'a> {
    store: &'a Store,
    keys: Vec<Key>,
    over: AtomicBool,
    evicts: bool,
}

impl World<'_> {
    fn change(&self, writer: usize) {
        let mut random = fastrand::Rng::with_seed(writer as u64);
        let mine: Vec<_> = (0..KEYS).filter(|key| key % WRITERS == writer).collect();
        while !self.over.load(Ordering::Relaxed) {
            let mut batch = mine.clone();
            random.shuffle(&mut batch);
            batch.truncate(random.usize(1..6));
            let versions: Vec<_> = batch
                .iter()
                .map(|&key| self.keys[key].begun.fetch_add(1, Ordering::SeqCst) + 1)
                .collect();
            let (mut puts, mut deletions) = (Vec::new(), Vec::new());
            for (&key, &version) in batch.iter().zip(&versions) {
                if is_deletion(version) {
                    deletions.push(name(key));
                } else {
                    puts.push((name(key), payload(key, version)));
                }
            }
            let puts: Vec<_> = puts.iter().map(|(key, payload)| Put::new(key, payload)).collect();
            self.store.put_many(&puts).into_iter().for_each(|result| result.unwrap());
            let deletions: Vec<_> = deletions.iter().map(|key| &key[..]).collect();
            for result in self.store.delete_many(&deletions) {
                result.unwrap();
            }
            for (key, version) in batch.into_iter().zip(versions) {
                self.keys[key].over.store(version, Ordering::SeqCst);
            }
            self.change_common(random.u64(..));
            if random.u8(..) < 8 {
                self.store.flush().unwrap();
            }
        }
    }

    fn change_common(&self, version: u64) {
        if is_deletion(version) {
            self.store.delete_many(&[&name(COMMON)]).remove(0).unwrap();
        } else {
            self.store.put(&name(COMMON), &payload(COMMON, version)).unwrap();
        }
    }

    fn check(&self, key: usize, over: u64, found: Option<u64>) {
        let begun = self.keys[key].begun.load(Ordering::SeqCst);
        match found {
            Some(version) => assert!(
                (over..=begun).contains(&version),
                "key {key} is at version {version}, which is not from {over} to {begun}"
            ),
            None => assert!(
                self.evicts || over == 0 || (over..=begun).any(is_deletion),
                "key {key} is missing, in one of versions {over} to {begun}"
            ),
        }
    }

    fn look(&self, reader: usize) {
        let mut random = fastrand::Rng::with_seed(100 + reader as u64);
        let mut buffers = vec![vec![0; PAYLOAD]; 8];
        while !self.over.load(Ordering::Relaxed) {
            let batch: Vec<_> = (0..random.usize(1..8)).map(|_| random.usize(..KEYS)).collect();
            let over: Vec<_> =
                batch.iter().map(|&key| self.keys[key].over.load(Ordering::SeqCst)).collect();
            let names: Vec<_> = batch.iter().map(|&key| name(key)).collect();
            let mut gets: Vec<_> = names
                .iter()
                .zip(&mut buffers)
                .map(|(key, payload)| Get::new(key, payload))
                .collect();
            let found = self.store.get_many(&mut gets);
            for (((&key, over), found), payload) in batch.iter().zip(over).zip(found).zip(&buffers)
            {
                self.check(key, over, found.unwrap().map(|_| version_of(key, payload)));
            }
            self.look_twice(random.usize(..KEYS));
        }
    }

    /// What is pinned does not change.
    fn look_twice(&self, key: usize) {
        let over = self.keys[key].over.load(Ordering::SeqCst);
        let Some(pin) = self.store.pin(&name(key)) else { return self.check(key, over, None) };
        let mut payload = vec![0; PAYLOAD];
        pin.read(&mut payload, &mut []).unwrap();
        let version = version_of(key, &payload);
        self.check(key, over, Some(version));
        thread::yield_now();
        payload.fill(0);
        pin.read(&mut payload, &mut []).unwrap();
        assert_eq!(version_of(key, &payload), version, "a pinned object changed");
    }
}

fn all_at_once(slots: u64, eviction: EvictionPolicy) {
    let device = memory(4 << 20);
    let options =
        FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(PAYLOAD as u64) };
    Store::format(device.clone(), &options).unwrap();
    let options = OpenOptions { eviction, ..OpenOptions::default() };
    let store = Store::open_with(device.clone(), &options).unwrap();
    let keys = (0..KEYS).map(|_| Key { begun: AtomicU64::new(0), over: AtomicU64::new(0) });
    let evicts = eviction != EvictionPolicy::None;
    let keys = keys.collect();
    let world = World { store: &store, keys, over: AtomicBool::new(false), evicts };
    let seconds = std::env::var("RAW_BLOCK_SECONDS").ok().and_then(|text| text.parse().ok());
    thread::scope(|scope| {
        let world = &world;
        let mut threads = Vec::new();
        threads.extend((0..WRITERS).map(|writer| scope.spawn(move || world.change(writer))));
        threads.extend((0..READERS).map(|reader| scope.spawn(move || world.look(reader))));
        let began = Instant::now();
        let goes_on = || {
            let limit = if evicts && store.stats().evictions == 0 { 60 } else { 1 };
            began.elapsed() < Duration::from_secs(seconds.unwrap_or(limit))
        };
        while goes_on() && threads.iter().all(|thread| !thread.is_finished()) {
            store.checkpoint().unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        world.over.store(true, Ordering::SeqCst);
    });
    let stats = store.stats();
    assert_eq!(stats.live_slots + stats.free_slots + stats.waiting_slots, stats.slots);
    assert_eq!(stats.pinned_slots, 0);
    assert_eq!(stats.failed_checks, 0);
    assert_eq!(stats.evictions > 0, evicts);
    let found = |store: &Store, key| {
        let found = common::payload(store, &name(key));
        found.map(|found| version_of(key, &found))
    };
    let last: Vec<_> = (0..=COMMON).map(|key| found(&store, key)).collect();
    for (key, history) in world.keys.iter().enumerate() {
        world.check(key, history.over.load(Ordering::SeqCst), last[key]);
    }
    drop(store);
    let store = Store::open(device).unwrap();
    for (key, last) in last.into_iter().enumerate() {
        let found = found(&store, key);
        let came_back = last.is_none() && evicts;
        assert!(found == last || came_back, "key {key} is at {last:?}, recovered at {found:?}");
    }
}

#[test]
fn with_slots_to_spare_every_key_is_at_one_of_its_versions() {
    all_at_once(4 * KEYS as u64, EvictionPolicy::None);
}

#[test]
fn with_few_slots_to_spare_every_key_is_at_one_of_its_versions() {
    all_at_once(KEYS as u64 + 8, EvictionPolicy::None);
}

#[test]
fn with_eviction_of_the_least_recently_used_nothing_else_goes_wrong() {
    all_at_once(KEYS as u64 * 2 / 3, EvictionPolicy::Lru);
}

#[test]
fn with_eviction_by_two_queues_nothing_else_goes_wrong() {
    all_at_once(KEYS as u64 * 2 / 3, EvictionPolicy::S3Fifo);
}

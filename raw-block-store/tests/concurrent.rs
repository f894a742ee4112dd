//! Puts, gets, deletions, pins, checkpoints, moves and evictions at once, compared with a history
//! of each key.
//!
//! One thread changes each key, in versions: most put a payload that contains the number of the
//! version, some delete the key. A reader must find a version from the last one that had completed
//! before the get to the last one that had begun after it. All threads change one more key: the
//! store decides which change is the last, and a recovery must decide the same.
//!
//! Each test runs for half a second, or for `RAW_BLOCK_SECONDS`.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{check_segments, memory, small};
use raw_block_store::{EvictionPolicy, Get, OpenOptions, Put, Store};

const KEYS: usize = 48;
/// The key that all threads change.
const COMMON: usize = KEYS;
const WRITERS: usize = 4;
const READERS: usize = 4;
const PAYLOAD: usize = 5000;

struct Key {
    begun: AtomicU64,
    completed: AtomicU64,
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
    assert!(found == payload(key, version), "key {key} has bytes that no version of it has");
    version
}

fn name(key: usize) -> [u8; 8] {
    (key as u64).to_be_bytes()
}

struct World<'a> {
    store: &'a Store,
    keys: Vec<Key>,
    ended: AtomicBool,
    evicts: bool,
}

impl World<'_> {
    fn change(&self, writer: usize) {
        let mut random = fastrand::Rng::with_seed(writer as u64);
        let mine: Vec<_> = (0..KEYS).filter(|key| key % WRITERS == writer).collect();
        while !self.ended.load(Ordering::Relaxed) {
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
            self.store.put_many(&puts).all().unwrap();
            let deletions: Vec<_> = deletions.iter().map(|key| &key[..]).collect();
            for result in self.store.delete_many(&deletions) {
                result.unwrap();
            }
            for (key, version) in batch.into_iter().zip(versions) {
                self.keys[key].completed.store(version, Ordering::SeqCst);
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

    fn check(&self, key: usize, completed: u64, found: Option<u64>) {
        let begun = self.keys[key].begun.load(Ordering::SeqCst);
        match found {
            Some(version) => assert!(
                (completed..=begun).contains(&version),
                "key {key} is at version {version}, which is not from {completed} to {begun}"
            ),
            None => assert!(
                self.evicts || completed == 0 || (completed..=begun).any(is_deletion),
                "key {key} is missing, in one of versions {completed} to {begun}"
            ),
        }
    }

    fn look(&self, reader: usize) {
        let mut random = fastrand::Rng::with_seed(100 + reader as u64);
        let mut buffers = vec![vec![0; PAYLOAD]; 8];
        while !self.ended.load(Ordering::Relaxed) {
            let batch: Vec<_> = (0..random.usize(1..8)).map(|_| random.usize(..KEYS)).collect();
            let completed: Vec<_> =
                batch.iter().map(|&key| self.keys[key].completed.load(Ordering::SeqCst)).collect();
            let names: Vec<_> = batch.iter().map(|&key| name(key)).collect();
            let mut gets: Vec<_> = names
                .iter()
                .zip(&mut buffers)
                .map(|(key, payload)| Get::new(key, payload))
                .collect();
            let found = self.store.get_many(&mut gets);
            for (((&key, completed), found), payload) in
                batch.iter().zip(completed).zip(found).zip(&buffers)
            {
                self.check(key, completed, found.unwrap().map(|_| version_of(key, payload)));
            }
            self.look_twice(random.usize(..KEYS));
        }
    }

    /// What is pinned does not change.
    fn look_twice(&self, key: usize) {
        let completed = self.keys[key].completed.load(Ordering::SeqCst);
        let Some(pin) = self.store.pin(&name(key)).unwrap() else {
            return self.check(key, completed, None);
        };
        let mut payload = vec![0; PAYLOAD];
        pin.read(&mut payload, &mut []).unwrap();
        let version = version_of(key, &payload);
        self.check(key, completed, Some(version));
        thread::yield_now();
        payload.fill(0);
        pin.read(&mut payload, &mut []).unwrap();
        assert_eq!(version_of(key, &payload), version, "a pinned object changed");
    }
}

fn all_at_once(segments: u64, eviction: EvictionPolicy) {
    let device = memory((segments + 2) * 64 * 512);
    Store::format(device.clone(), &small()).unwrap();
    let options = OpenOptions::default().eviction(eviction);
    let store = Store::open_with(device.clone(), &options).unwrap();
    let keys = (0..KEYS).map(|_| Key { begun: AtomicU64::new(0), completed: AtomicU64::new(0) });
    let evicts = eviction != EvictionPolicy::None;
    let keys = keys.collect();
    let world = World { store: &store, keys, ended: AtomicBool::new(false), evicts };
    let seconds = std::env::var("RAW_BLOCK_SECONDS").ok().and_then(|text| text.parse().ok());
    thread::scope(|scope| {
        let world = &world;
        let mut threads = Vec::new();
        threads.extend((0..WRITERS).map(|writer| scope.spawn(move || world.change(writer))));
        threads.extend((0..READERS).map(|reader| scope.spawn(move || world.look(reader))));
        let began = Instant::now();
        let goes_on = || {
            let limit = if evicts && store.stats().evictions == 0 { 60_000 } else { 500 };
            began.elapsed() < seconds.map_or(Duration::from_millis(limit), Duration::from_secs)
        };
        while goes_on() && threads.iter().all(|thread| !thread.is_finished()) {
            store.checkpoint().unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        world.ended.store(true, Ordering::SeqCst);
    });
    check_segments(&store);
    let stats = store.stats();
    assert_eq!((stats.pinned_versions, stats.failed_checks), (0, 0));
    assert_eq!(stats.evictions > 0, evicts);
    let found = |store: &Store, key| {
        let found = common::payload(store, &name(key));
        found.map(|found| version_of(key, &found))
    };
    let last: Vec<_> = (0..=COMMON).map(|key| found(&store, key)).collect();
    for (key, history) in world.keys.iter().enumerate() {
        world.check(key, history.completed.load(Ordering::SeqCst), last[key]);
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
fn with_space_to_spare_every_key_has_one_of_its_versions() {
    all_at_once(40, EvictionPolicy::None);
}

#[test]
fn with_little_space_to_spare_every_key_has_one_of_its_versions() {
    all_at_once(24, EvictionPolicy::None);
}

#[test]
fn with_eviction_by_lru_nothing_else_goes_wrong() {
    all_at_once(12, EvictionPolicy::Lru);
}

#[test]
fn with_eviction_by_s3_fifo_nothing_else_goes_wrong() {
    all_at_once(12, EvictionPolicy::S3Fifo);
}

#[test]
fn with_eviction_by_fifo_nothing_else_goes_wrong() {
    all_at_once(12, EvictionPolicy::Fifo);
}

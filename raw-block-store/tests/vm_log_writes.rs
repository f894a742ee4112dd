//! A store on the kernel's `dm-log-writes`, in the virtual machine: the log is replayed up to each
//! flush, and with any of the writes before the next one, and the store that is found there keeps
//! its promises. `RAW_BLOCK_VM_ROUNDS` is the number of rounds; each round has other changes.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/changes.rs"]
mod changes;
mod common;
#[path = "common/device_mapper.rs"]
mod device_mapper;

use std::path::Path;
use std::thread;

use changes::{Change, DEVICE_LEN, History, format};
use common::read;
use device_mapper::Mapped;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_core::{Direct, Dispatcher, Geometry};
use raw_block_fixtures::{NvmeNamespace, WriteLog, rounds};
use raw_block_store::{Engine, Store, open_backend};

/// Steps of a round; after about every third there is a flush, after every eighth a checkpoint.
const STEPS: u64 = 48;
#[test]
fn what_was_acknowledged_is_there_at_every_flush_of_the_log() {
    let find = |nsid| NvmeNamespace::find("mapped", nsid);
    let (device, log) = match (find(1), find(2)) {
        (Ok(device), Ok(log)) => (device, log),
        (Err(skipped), _) | (_, Err(skipped)) => return skipped.report(),
    };
    let (device, log) = (device.block(), log.block());
    let mut flushes = 0;
    for seed in 0..rounds() {
        // The log says nothing of what was there before.
        let replayed = copy(device);
        let history = write(device, log, seed);
        flushes += replay(&WriteLog::open(log).unwrap(), &replayed, &history, seed);
        let written = copy(device);
        let same = contents(&replayed) == contents(&written);
        assert!(same, "seed {seed}: the log is not what was written");
    }
    println!("{flushes} flushes in {} rounds", rounds());
}

/// What the store has of the contents of a device.
fn contents(device: &SimulatedDevice) -> Vec<u8> {
    device.peek(0, usize::try_from(DEVICE_LEN).unwrap())
}

/// The contents of a device, in memory.
fn copy(device: &Path) -> SimulatedDevice {
    let backend = open_backend(device, Engine::Posix, Direct::Required).unwrap();
    let copy = SimulatedDevice::new(Geometry::new(DEVICE_LEN, 512).unwrap(), 0).unwrap();
    let len = usize::try_from(DEVICE_LEN).unwrap();
    copy.poke(0, &read(&backend, 0, len));
    copy
}

/// Changes a store and marks in the log which step was flushed.
fn write(device: &Path, log: &Path, seed: u64) -> History {
    let devices = format!("{} {}", device.display(), log.display());
    let mapped = Mapped::new("raw-block-logged", DEVICE_LEN, "log-writes", &devices);
    let mut random = fastrand::Rng::with_seed(seed);
    let engine = if random.bool() { Engine::Uring } else { Engine::Posix };
    let backend = open_backend(mapped.path(), engine, Direct::Required).unwrap();
    Store::format(backend.clone(), &format()).unwrap();
    let store = Store::open(backend.clone()).unwrap();
    let mut history = History::new(seed);
    mapped.send("mark 0");
    while history.step < STEPS {
        if random.u8(..8) == 0 {
            thread::scope(|scope| {
                scope.spawn(|| store.checkpoint().unwrap());
                history.change(&store);
            });
        } else {
            history.change(&store);
        }
        if random.u8(..3) == 0 {
            store.flush().unwrap();
            mapped.send(&format!("mark {}", history.step));
        }
    }
    assert_eq!(history.refused, 0);
    if random.bool() {
        store.close().unwrap();
    }
    drop(store);
    // The kernel logs writes with the next flush.
    Dispatcher::new(backend).unwrap().flush().unwrap();
    mapped.send(&format!("mark {}", u64::MAX));
    history
}

/// Checks what is on the device after every flush, and what may be on it before the next one: any
/// of the writes between them. Returns how many flushes there were.
fn replay(log: &WriteLog, device: &SimulatedDevice, history: &History, seed: u64) -> u64 {
    let marks = log.entries().iter().filter_map(|entry| entry.mark.as_ref()?.parse::<u64>().ok());
    let mut marks = marks.peekable();
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut flushed, mut flushes) = (None, 0);
    let mut durable: Option<SimulatedDevice> = None;
    let mut since: Vec<(u64, Vec<u8>)> = Vec::new();
    for entry in log.entries() {
        if entry.mark.is_some() {
            flushed = marks.next();
            continue;
        }
        if let (true, Some(flushed), Some(&next)) = (entry.is_flush, flushed, marks.peek()) {
            flushes += 1;
            let what = format!("seed {seed}, flush {flushes}");
            check(device, history, [flushed, next], &what);
            if let Some(before) = durable.replace(device.fork(flushes)) {
                for (offset, bytes) in since.iter().filter(|_| random.bool()) {
                    before.poke(*offset, bytes);
                }
                check(&before, history, [flushed, next], &format!("before {what}"));
            }
            since.clear();
        }
        let bytes = log.bytes(entry).unwrap();
        device.poke(entry.offset, &bytes);
        since.push((entry.offset, bytes));
    }
    assert_eq!(flushed, Some(u64::MAX), "the log has no space for seed {seed}");
    assert!(flushes > STEPS / 6, "{flushes} flushes");
    flushes
}

/// A store is there, with everything up to the step that was flushed, and nothing past the next
/// one.
fn check(device: &SimulatedDevice, history: &History, [flushed, next]: [u64; 2], what: &str) {
    let opened = Store::open(device.fork(0).backend());
    let store = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let is_flushed = |change: &Change| change.step <= flushed;
    history.check(&store, is_flushed, |change| change.step <= next, |_, _| false);
    History::check_counts(&store);
}

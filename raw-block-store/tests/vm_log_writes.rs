//! A store above the kernel's `dm-log-writes`, in the virtual machine: what the log says is replayed up to each flush,
//! and the store that is found there is held to its promises. `RAW_BLOCK_VM_ROUNDS` says how often; each round has
//! other changes.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/device_mapper.rs"]
mod device_mapper;
#[path = "common/story.rs"]
mod story;

use std::path::Path;
use std::thread;

use common::read;
use device_mapper::Mapped;
use raw_block_core::conformance::fixture::{NvmeNamespace, WriteLog, rounds};
use raw_block_core::simulated::SimulatedDevice;
use raw_block_core::{Direct, Geometry};
use raw_block_store::{Engine, Error, Store, open_device};
use story::{History, format};

/// Steps of a round; after about every third there is a flush, after every eighth a checkpoint.
const STEPS: u64 = 48;
/// How much of the device is compared with what the log makes of it, in bytes: what is before the last superblock.
const COMPARED: usize = 4 << 20;

#[test]
fn what_was_acknowledged_is_there_at_every_flush_of_the_log() {
    let find = |nsid| NvmeNamespace::find("mapped", nsid);
    let (device, log) = match (find(1), find(2)) {
        (Ok(device), Ok(log)) => (device, log),
        (Err(skipped), _) | (_, Err(skipped)) => return skipped.tell(),
    };
    let (device, log) = (device.block(), log.block());
    let mut flushes = 0;
    let mut replayed = None;
    for seed in 0..rounds() {
        let history = write(device, log, seed);
        let sound = open_device(device, Engine::Posix, Direct::Required).unwrap();
        // What an earlier round left is there too.
        let replayed = replayed.get_or_insert_with(|| {
            let capacity = sound.geometry().capacity;
            SimulatedDevice::new(Geometry::new(capacity, 512).unwrap(), 0).unwrap()
        });
        flushes += replay(&WriteLog::open(log).unwrap(), replayed, &history, seed);
        let found = replayed.peek(0, COMPARED);
        assert!(found == read(&sound, 0, COMPARED)[..], "the log is not what was written");
    }
    println!("{flushes} flushes in {} rounds", rounds());
}

/// Changes a store and marks in the log which step was flushed.
fn write(device: &Path, log: &Path, seed: u64) -> History {
    let devices = format!("{} {}", device.display(), log.display());
    let mapped = Mapped::new("raw-block-logged", device, "log-writes", &devices);
    let mut random = fastrand::Rng::with_seed(seed);
    let engine = if random.bool() { Engine::Uring } else { Engine::Posix };
    let backend = open_device(mapped.path(), engine, Direct::Required).unwrap();
    Store::format(backend.clone(), &format()).unwrap();
    let store = Store::open(backend).unwrap();
    let mut history = History::new(seed);
    mapped.tell("mark 0");
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
            mapped.tell(&format!("mark {}", history.step));
        }
    }
    if random.bool() {
        store.close().unwrap();
    }
    mapped.tell(&format!("mark {}", u64::MAX));
    history
}

/// Looks at what is on the device after every flush. What the last mark before it speaks of must be there, and nothing
/// that was changed after the next one.
fn replay(log: &WriteLog, device: &SimulatedDevice, history: &History, seed: u64) -> u64 {
    let mut marks =
        log.entries().iter().filter_map(|entry| entry.mark.as_ref()?.parse().ok()).peekable();
    let mut flushed: Option<u64> = None;
    let mut checked = 0;
    for entry in log.entries() {
        if entry.mark.is_some() {
            flushed = marks.next();
        } else if let (true, Some(flushed), Some(&next)) = (entry.is_flush, flushed, marks.peek()) {
            let opened = Store::open(device.fork(checked).backend());
            let store =
                opened.unwrap_or_else(|error| panic!("seed {seed}, flush {checked}: {error}"));
            // A put that was under way when another flush was, is torn, and there is none to fall back to.
            let torn = |error: &Error, allowed: &[Option<u64>]| {
                matches!(error, Error::Damaged { .. })
                    && allowed.contains(&None)
                    && allowed.iter().any(Option::is_some)
            };
            history.check(
                &store,
                |change| change.step <= flushed,
                |change| change.step <= next,
                torn,
            );
            History::count_slots(&store);
            checked += 1;
        }
        // Nothing for a flush or a mark.
        device.poke(entry.offset, &log.bytes(entry).unwrap());
    }
    assert_eq!(flushed, Some(u64::MAX), "the log has no room for seed {seed}");
    assert!(checked > STEPS / 6, "{checked} flushes");
    checked
}

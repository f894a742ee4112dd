//! A device that panics in any transfer: what was in progress ends, and the store goes on.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::faulty::{Fate, Faulty};
use common::{check_segments, payload, small};
use raw_block_core::backend::OpKind;
use raw_block_store::{Error, EvictionPolicy, OpenOptions, Put, Store};

/// Keys that are overwritten in turn: they fill about half of the store, so that segments are
/// emptied by moves.
const KEYS: u32 = 100;

/// Overwrites and deletes keys of a store, and remembers what they hold.
struct Workload {
    device: Faulty,
    store: Store,
    random: fastrand::Rng,
    /// Of each key the byte that its payload consists of; `None` if it is unknown.
    values: Vec<Option<u8>>,
}

impl Workload {
    fn new(options: &OpenOptions) -> Self {
        let device = Faulty::new(1 << 20);
        Store::format(device.backend(), &small()).unwrap();
        let store = Store::open_with(device.backend(), options).unwrap();
        let values = vec![None; KEYS as usize];
        Self { device, store, random: fastrand::Rng::with_seed(1), values }
    }

    /// Makes the op with this number among those of its kind panic, once.
    fn panic_at(&self, kind: OpKind, number: u32) {
        let mut seen = 0;
        self.device.rule(move |op| {
            seen += u32::from(op.kind() == kind);
            assert!(op.kind() != kind || seen != number, "on purpose");
            Fate::Done
        });
    }

    fn step(&mut self) -> Result<(), Error> {
        let key = self.random.u32(..KEYS);
        let (at, value) = (key as usize, self.random.u8(..));
        self.values[at] = None;
        let key = key.to_le_bytes();
        if self.random.u8(..16) == 0 {
            return self.store.delete(&key).map(drop);
        }
        let also = (KEYS + self.random.u32(..8)).to_le_bytes();
        let payload = [value; 4000];
        let puts = [Put::new(&key, &payload), Put::new(&also, &payload[..700])];
        self.store.put_many(&puts).all()?;
        self.values[at] = Some(value);
        Ok(())
    }

    /// Steps until the device panics. Returns whether it did.
    fn run_until_panic(&mut self, steps: usize) -> bool {
        let run = |_| catch_unwind(AssertUnwindSafe(|| drop(self.step()))).is_err();
        let panicked = (0..steps).any(run);
        self.device.rule(|_| Fate::Done);
        panicked
    }

    /// Steps without faults until every segment is reclaimed, then checks what is there.
    fn turn_over(&mut self) {
        let checkpoints = self.store.stats().checkpoints;
        (0..200).for_each(|_| self.step().unwrap());
        self.store.checkpoint().unwrap();
        check_segments(&self.store);
        let stats = self.store.stats();
        assert!(stats.checkpoints > checkpoints + 1, "nothing is reclaimed");
        if self.store.stats().evictions == 0 {
            for (key, value) in (0_u32..).zip(&self.values) {
                if let Some(value) = value {
                    assert_eq!(payload(&self.store, &key.to_le_bytes()).unwrap(), [*value; 4000]);
                }
            }
        }
    }
}

/// Fails if `what` does not end.
fn in_time(what: impl FnOnce() + Send + 'static) {
    let (ended, has_ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        what();
        ended.send(()).unwrap();
    });
    if has_ended.recv_timeout(Duration::from_secs(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it waits for ever");
    }
    thread.join().unwrap();
}

/// The device panics in one transfer after the other.
fn panic_everywhere(eviction: EvictionPolicy) {
    let options = OpenOptions::default().eviction(eviction).background(false);
    let mut workload = Workload::new(&options);
    workload.turn_over();
    let mut panics = 0;
    // After a flush that panics, writes are refused until the store is opened again.
    for (kind, most) in [(OpKind::Write, 40), (OpKind::Read, 12)] {
        for number in 1..=most {
            workload.panic_at(kind, number);
            panics += u32::from(workload.run_until_panic(300));
            workload.turn_over();
        }
    }
    assert!(panics > 40, "{panics}");
    assert!(workload.store.stats().moves > 0);
    workload.store.close().unwrap();
    Store::open(workload.device.backend()).unwrap();
}

#[test]
fn a_panic_ends_what_was_in_progress_without_eviction() {
    in_time(|| panic_everywhere(EvictionPolicy::None));
}

#[test]
fn a_panic_ends_what_was_in_progress_with_eviction() {
    in_time(|| panic_everywhere(EvictionPolicy::Lru));
}

#[test]
fn calls_do_the_work_of_a_worker_that_panicked() {
    in_time(|| {
        let mut workload = Workload::new(&OpenOptions::default());
        let panicked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&panicked);
        workload.device.rule(move |op| {
            let is_worker = thread::current().name() == Some("raw-block-store");
            if is_worker && op.kind() == OpKind::Write {
                flag.store(true, Ordering::Relaxed);
                panic!("on purpose");
            }
            Fate::Done
        });
        while !panicked.load(Ordering::Relaxed) {
            workload.step().unwrap();
        }
        workload.device.rule(|_| Fate::Done);
        workload.turn_over();
        workload.store.close().unwrap();
    });
}

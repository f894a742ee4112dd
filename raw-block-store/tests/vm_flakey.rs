//! A store on the kernel's `dm-flakey`, in the virtual machine: a device that fails, loses writes,
//! or changes bytes. `RAW_BLOCK_VM_ROUNDS` is the number of rounds of each kind; each round has
//! other changes.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "common/changes.rs"]
mod changes;
mod common;
#[path = "common/device_mapper.rs"]
mod device_mapper;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use changes::{DEVICE_LEN, Found, History, format};
use device_mapper::Mapped;
use raw_block_core::Direct;
use raw_block_core::backend::IoBackend;
use raw_block_fixtures::{NvmeNamespace, rounds};
use raw_block_store::{Engine, Error, OpenOptions, Store, open_backend, open_backend_read_only};

/// Steps before a fault, and while there is one.
const STEPS: usize = 6;

/// A device that can be made to misbehave, with a store on it.
struct Flakey {
    mapped: Mapped,
    below: String,
    engine: Engine,
    random: fastrand::Rng,
    history: History,
}

impl Flakey {
    fn new(below: &Path, seed: u64) -> (Self, Store) {
        let below = format!("{} 0", below.display());
        let mapped = Mapped::new("raw-block-flakey", DEVICE_LEN, "linear", &below);
        let mut random = fastrand::Rng::with_seed(seed);
        let engine = if random.bool() { Engine::Uring } else { Engine::Posix };
        let mut flakey = Self { mapped, below, engine, random, history: History::new(seed) };
        let backend = flakey.backend();
        Store::format(backend.clone(), &format()).unwrap();
        let store = Store::open(backend).unwrap();
        flakey.work(&store);
        (flakey, store)
    }

    fn backend(&self) -> Arc<dyn IoBackend> {
        open_backend(self.mapped.path(), self.engine, Direct::Required).unwrap()
    }

    /// The device misbehaves from now on: `features` says how.
    fn misbehave(&self, features: &str) {
        let count = features.split_whitespace().count();
        self.mapped.change("flakey", &format!("{} 0 1 {count} {features}", self.below));
    }

    fn behave(&self) {
        self.mapped.change("linear", &self.below);
    }

    /// Makes changes, flushes and checkpoints. The history notes which changes failed.
    fn work(&mut self, store: &Store) {
        for _ in 0..STEPS {
            self.history.change(store);
            match self.random.u8(..6) {
                0 | 1 => drop(store.flush()),
                2 => drop(store.checkpoint()),
                _ => {}
            }
        }
    }
}

/// Runs all rounds of each mode of misbehaving.
fn each_round(modes: &[&str], mut round: impl FnMut(Flakey, Store, &str) -> Found) {
    let namespace = match NvmeNamespace::find("mapped", 1) {
        Ok(namespace) => namespace,
        Err(skipped) => return skipped.report(),
    };
    for mode in modes {
        let mut all = Found::default();
        for seed in 0..rounds() {
            let (flakey, store) = Flakey::new(namespace.block(), seed);
            let found = round(flakey, store, mode);
            all.right += found.right;
            all.damaged += found.damaged;
            all.failed += found.failed;
        }
        println!("{mode}, {} rounds: {all:?}", rounds());
        assert!(all.damaged + all.failed > 0, "nothing was noticed of {mode:?}");
    }
}

/// The store holds what was last acknowledged, and nothing else.
fn check_exactly(history: &History, store: &Store) {
    history.check(store, |change| change.is_acknowledged, |_| false, |_, _| false);
    History::check_counts(store);
}

#[test]
fn a_device_that_fails_costs_nothing_that_was_acknowledged() {
    each_round(
        &["error_reads", "error_writes", "error_reads error_writes"],
        |mut flakey, store, mode| {
            flakey.misbehave(mode);
            let refused = flakey.history.refused;
            flakey.work(&store);
            let is_device =
                |error: &Error, _: &[Option<u64>]| matches!(error, Error::Device { .. });
            let history = &flakey.history;
            let mut found =
                history.check(&store, |change| change.is_acknowledged, |_| false, is_device);
            found.failed += flakey.history.refused - refused;
            flakey.behave();
            check_exactly(&flakey.history, &store);
            // It refuses changes until a checkpoint succeeds or, after a failed flush, until it is
            // opened again.
            flakey.work(&store);
            check_exactly(&flakey.history, &store);
            // After a failed flush it cannot be closed in order, and is recovered.
            if flakey.random.bool() {
                let _ = store.close();
            }
            drop(store);
            let store = Store::open(flakey.backend()).unwrap();
            // What failed may have happened.
            let history = &mut flakey.history;
            history.check(&store, |change| change.is_acknowledged, |_| true, |_, _| false);
            history.settle(&store);
            flakey.work(&store);
            check_exactly(&flakey.history, &store);
            found
        },
    );
}

#[test]
fn bytes_that_change_when_they_are_read_are_noticed() {
    let corrupt = [
        "corrupt_bio_byte 1 r 165 0",
        "corrupt_bio_byte 97 r 1 0",
        "corrupt_bio_byte 4200 r 255 0",
    ];
    each_round(
        &[&corrupt[..], &["random_read_corrupt 500000000"]].concat(),
        |flakey, store, mode| {
            let is_damaged =
                |error: &Error, _: &[Option<u64>]| matches!(error, Error::Damaged { .. });
            let history = &flakey.history;
            flakey.misbehave(mode);
            let before = store.stats().failed_checks;
            let found =
                history.check(&store, |change| change.is_acknowledged, |_| false, is_damaged);
            assert_eq!(store.stats().failed_checks - before, found.damaged);
            flakey.behave();
            // What failed twice stays damaged, but not after another opening.
            let later =
                history.check(&store, |change| change.is_acknowledged, |_| false, is_damaged);
            assert_eq!(later.damaged, found.damaged);
            drop(store);

            // A reader in the meantime may see older states, or nothing, and changes nothing.
            flakey.misbehave(mode);
            let device =
                open_backend_read_only(flakey.mapped.path(), flakey.engine, Direct::Required);
            if let Ok(store) = Store::open_read_only(device.unwrap(), &OpenOptions::default()) {
                history.check(&store, |_| false, |_| true, is_damaged);
            }
            flakey.behave();
            check_exactly(history, &Store::open(flakey.backend()).unwrap());
            found
        },
    );
}

#[test]
fn writes_that_are_lost_or_changed_are_never_taken_for_others() {
    let modes = [
        "drop_writes",
        "corrupt_bio_byte 1 w 165 0",
        "corrupt_bio_byte 97 w 1 0",
        "random_write_corrupt 300000000",
    ];
    each_round(&modes, |mut flakey, store, mode| {
        let begin = flakey.history.step;
        flakey.misbehave(mode);
        flakey.work(&store);
        flakey.behave();
        // Only what was written in the meantime is damaged, and the store knows what should be
        // there.
        let damaged = |error: &Error| matches!(error, Error::Damaged { .. });
        let history = &flakey.history;
        let mut found = history.check(
            &store,
            |change| change.is_acknowledged,
            |_| false,
            |error, _| damaged(error),
        );
        history.check(
            &store,
            |change| change.step <= begin,
            |_| true,
            |error, changes| damaged(error) && changes.len() > 1,
        );
        History::check_counts(&store);
        // A get does not read the header of a slot.
        let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
        found.damaged += report.findings.len() as u64;
        drop(store);

        // The device broke its promise: older states may be back, but no other bytes.
        let store = Store::open(flakey.backend()).or_else(|refused| {
            println!("{mode}: {refused}");
            let options = OpenOptions::default().accept_older_states(true);
            Store::open_with(flakey.backend(), &options)
        });
        let store = match store {
            Ok(store) => store,
            // All checkpoints were written in the meantime: that is reported, and nothing is made
            // up.
            Err(refused) => {
                assert!(damaged(&refused), "{refused}");
                return found;
            }
        };
        history.check(&store, |_| false, |_| true, |error, _| damaged(error));
        History::check_counts(&store);
        store.put(b"after", b"words").unwrap();
        store.close().unwrap();
        drop(store);
        let store = Store::open(flakey.backend()).unwrap();
        assert_eq!(common::payload(&store, b"after").unwrap(), b"words");
        found
    });
}

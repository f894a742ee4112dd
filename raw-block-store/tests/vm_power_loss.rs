//! A store whose machine loses its power, in two guests of the virtual machine: one writes until
//! the power is cut, the other one checks what the drive has kept. `cargo xtask vm` runs them, one
//! after the other.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::env;
use std::sync::Arc;

use common::{bytes, check_segments, payload, put_all};
use raw_block_core::Direct;
use raw_block_core::backend::IoBackend;
use raw_block_core::conformance::Skipped;
use raw_block_fixtures::NvmeNamespace;
use raw_block_store::{Engine, FormatOptions, Put, Store, open_backend};

/// Keys that a round changes.
const KEYS_PER_ROUND: u64 = 8;
/// Rounds until a key is changed again. The first round has this number, so that every round has
/// one before it that would have changed the same keys.
const GROUPS: u64 = 4;
/// Large enough that the first segments are opened again after some ninety rounds.
const PAYLOAD_LEN: usize = 96 << 10;
/// Rounds that may have ended without being acknowledged to the host when the power went.
const UNHEARD: u64 = 2 * GROUPS;

fn device() -> Result<Arc<dyn IoBackend>, Skipped> {
    let namespace = NvmeNamespace::find("power-loss", 1)?;
    Ok(open_backend(namespace.block(), Engine::Uring, Direct::Required).unwrap())
}

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// The keys that `round` puts, and those that it deletes.
fn changes(round: u64) -> (Vec<u64>, Vec<u64>) {
    let first = round % GROUPS * KEYS_PER_ROUND;
    (first..first + KEYS_PER_ROUND).partition(|key| !(round + key).is_multiple_of(5))
}

/// What `round` puts under `key`.
fn object(key: u64, round: u64) -> Vec<u8> {
    bytes(round << 16 | key, PAYLOAD_LEN)
}

#[test]
#[ignore = "cargo xtask vm runs it, and cuts the power"]
fn write_until_the_power_goes() {
    let device = match device() {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    Store::format(device.clone(), &FormatOptions::default()).unwrap();
    let store = Store::open(device).unwrap();
    for round in GROUPS.. {
        let (puts, deletes) = changes(round);
        let objects: Vec<_> = puts.iter().map(|&put| (key(put), object(put, round))).collect();
        put_all(
            &store,
            &objects.iter().map(|(key, value)| Put::new(key, value)).collect::<Vec<_>>(),
        );
        let keys: Vec<_> = deletes.into_iter().map(key).collect();
        for result in store.delete_many(&keys.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>()) {
            result.unwrap();
        }
        store.flush().unwrap();
        println!("acknowledged {round}");
    }
}

#[test]
#[ignore = "cargo xtask vm runs it, after the power was cut"]
fn everything_acknowledged_is_there_after_the_power_came_back() {
    let device = match device() {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    let acknowledged: u64 = env::var("RAW_BLOCK_VM_ACKNOWLEDGED").unwrap().parse().unwrap();
    let store = Store::open(device.clone()).unwrap();
    let mut live = 0;
    for number in 0..KEYS_PER_ROUND * GROUPS {
        // The last round that is known to have changed this key, and those that may have.
        let last = acknowledged - (GROUPS - 1)..=acknowledged + UNHEARD;
        let rounds = last.filter(|round| round % GROUPS == number / KEYS_PER_ROUND);
        let mut outcomes = rounds.map(|round| {
            let is_put = round >= GROUPS && changes(round).0.contains(&number);
            is_put.then(|| object(number, round))
        });
        let found =
            store.get(&key(number)).map(|found| found.map(|found| found.payload().to_vec()));
        live += u64::from(matches!(found, Ok(Some(_))));
        let is_right = match &found {
            Ok(found) => outcomes.any(|outcome| outcome == *found),
            Err(_) => false,
        };
        assert!(
            is_right,
            "key {number} has neither what was acknowledged until round {acknowledged} nor anything later, but {:?}",
            found.map(|found| found.map(|found| found.len()))
        );
    }
    assert_eq!(store.stats().objects, live);
    check_segments(&store);
    // The store can be used.
    store.put(b"after", b"words").unwrap();
    store.close().unwrap();
    assert_eq!(payload(&Store::open(device).unwrap(), b"after").unwrap(), b"words");
}

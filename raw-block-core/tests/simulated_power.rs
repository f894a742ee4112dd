//! Whatever happened before the power was cut, a simulated device then holds nothing older than it
//! promised.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;
mod versions;

use std::collections::BTreeSet;

use fakes::within_seconds;
use raw_block_core::backend::IoBackend as _;
use raw_block_core::simulated::{SimulatedDevice, run_interleaved};
use raw_block_core::{ErrorKind, Ticket};
use versions::{open, shape, simulated, start, versions, write};

const PLACES: usize = 6;

/// What a random history may leave: for each place the version that a cut cannot take back, and the
/// newest that was started.
type Bounds = [(u8, u8); PLACES];

/// Concurrent writes, and flushes, until the power is cut or the history ends. No two
/// writes to the same place are in flight together, so that it is clear which one is newer.
fn random_history(device: &SimulatedDevice, seed: u64) -> Bounds {
    let mut bounds = Bounds::default();
    run_interleaved(seed, vec![Box::new(|| bounds = history(device, seed))]);
    bounds
}

fn history(device: &SimulatedDevice, seed: u64) -> Bounds {
    let mut rng = chance(seed);
    let write_through = !device.geometry().volatile_write_cache;
    let dispatcher = open(device);
    let mut bounds = [(0, 0); PLACES];
    let mut acknowledged = [0; PLACES];
    let mut tickets: Vec<(usize, Ticket)> = Vec::new();
    for _ in 0..80 {
        let number = rng() % PLACES as u64;
        let at = usize::try_from(number).unwrap();
        match rng() % 8 {
            0 => {
                let covered = acknowledged;
                if dispatcher.flush().is_err() {
                    break;
                }
                for (bound, version) in bounds.iter_mut().zip(covered) {
                    bound.0 = version;
                }
            }
            1..=3 => tickets.retain_mut(|(at, ticket)| match ticket.try_wait() {
                None => true,
                Some(finished) => {
                    if finished[0].result.is_ok() {
                        acknowledged[*at] = bounds[*at].1;
                    }
                    false
                }
            }),
            _ if tickets.iter().all(|(busy, _)| *busy != at) => {
                bounds[at].1 += 1;
                tickets.push((at, start(&dispatcher, number, bounds[at].1)));
            }
            _ => {}
        }
        if device.is_off() {
            break;
        }
    }
    device.power_cut();
    for (at, ticket) in tickets {
        match &ticket.wait()[0].result {
            // It was reaped before the cut, before a caller asked for it.
            Ok(()) => acknowledged[at] = bounds[at].1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
        }
    }
    if write_through {
        for (bound, version) in bounds.iter_mut().zip(acknowledged) {
            bound.0 = version;
        }
    }
    bounds
}

/// SplitMix64: the history has its own seed.
fn chance(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

#[track_caller]
fn assert_within_bounds(device: &SimulatedDevice, bounds: &Bounds, seed: u64) {
    for (number, &(oldest, newest)) in (0..).zip(bounds) {
        let found = versions(device, number);
        assert!(
            found.iter().all(|version| (oldest..=newest).contains(version)),
            "seed {seed}, place {number}: {found:?}, and not {oldest} to {newest}"
        );
    }
}

#[test]
fn the_same_seed_has_the_same_outcome() {
    let run = |seed| {
        let device = simulated(seed);
        random_history(&device, 1);
        let report = device.power_cut();
        (report, device.ops_so_far(), device.power_on().peek(0, 1 << 20))
    };
    let outcomes: BTreeSet<_> = (0..20).map(|seed| run(seed).2).collect();
    assert!(outcomes.len() > 10, "20 seeds have {} outcomes", outcomes.len());
    for seed in 0..20 {
        assert!(run(seed) == run(seed), "seed {seed} has two outcomes");
    }
}

#[test]
fn a_flushed_write_survives_and_nothing_older_ever_appears() {
    for seed in 0..500 {
        let device = simulated(seed);
        let bounds = random_history(&device, seed);
        assert_within_bounds(&device.power_on(), &bounds, seed);
    }
}

#[test]
fn without_a_volatile_cache_nothing_acknowledged_is_lost() {
    let mut geometry = shape();
    geometry.volatile_write_cache = false;
    for seed in 0..500 {
        let device = SimulatedDevice::new(geometry, seed).unwrap();
        let bounds = random_history(&device, seed);
        assert_within_bounds(&device.power_on(), &bounds, seed);
    }
}

#[test]
fn the_power_can_be_cut_after_each_op() {
    within_seconds(|| {
        for seed in 0..5 {
            let start = simulated(seed);
            let whole = start.fork(seed);
            random_history(&whole, seed);
            let ops = whole.ops_so_far();
            assert!(ops > 10);
            for n in 0..=ops {
                let device = start.fork(seed);
                device.cut_after(n);
                assert_eq!(device.is_off(), n == 0);
                let bounds = random_history(&device, seed);
                assert_eq!(device.ops_so_far(), n, "the cut came at another op");
                let device = device.power_on();
                assert_within_bounds(&device, &bounds, seed);
                assert_eq!(device.ops_so_far(), 0);
                // The next life is not cut short: it can be longer than the one before.
                let dispatcher = open(&device);
                (0..=n).for_each(|_| write(&dispatcher, 0, 1));
                assert_eq!(device.ops_so_far(), n + 1);
            }
        }
    });
}

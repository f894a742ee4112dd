//! What a simulated device holds after the power was cut or the process killed.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use fakes::within_seconds;
use raw_block_core::simulated::{CutReport, Fault, SimulatedDevice};
use raw_block_core::{
    AlignedBuf, Dispatcher, ErrorKind, Geometry, IoBackend, OpKind, OwnedTransfer, ReadAt, Ticket,
    WriteAt,
};

const BLOCK: usize = 512;
/// Blocks of each write.
const LEN: usize = 8;

fn shape() -> Geometry {
    let mut geometry = Geometry::new(1 << 20, 512).unwrap();
    (geometry.discard, geometry.write_zeroes) = (true, true);
    geometry
}

fn simulated(seed: u64) -> SimulatedDevice {
    SimulatedDevice::new(shape(), seed).unwrap()
}

fn open(device: &SimulatedDevice) -> Dispatcher {
    Dispatcher::new(device.backend()).unwrap()
}

/// Where the write of this number goes; no two are neighbours.
fn place(number: u64) -> u64 {
    number * 2 * (LEN * BLOCK) as u64
}

fn write(device: &Dispatcher, number: u64, version: u8) {
    let bytes = [version; LEN * BLOCK];
    device.write_buffers(&[WriteAt::new(place(number), &bytes)]).all().unwrap();
}

/// A write that is in flight, or will be with the next call.
fn start(device: &Dispatcher, number: u64, version: u8) -> Ticket {
    let mut buffer = AlignedBuf::zeroed(LEN * BLOCK).unwrap();
    buffer.fill(version);
    device.batched_write(vec![OwnedTransfer::new(place(number), buffer)]).unwrap()
}

/// The version that each block of a write has now. Asserts that each block is whole.
fn versions(device: &SimulatedDevice, number: u64) -> Vec<u8> {
    let bytes = device.peek(place(number), LEN * BLOCK);
    let version = |block: &[u8]| {
        assert!(block.iter().all(|&byte| byte == block[0]), "a logical block is torn");
        block[0]
    };
    bytes.chunks(BLOCK).map(version).collect()
}

const PLACES: usize = 6;

/// What a random history may leave: for each place the version that a cut cannot take back, and the newest
/// that was started.
type Bounds = [(u8, u8); PLACES];

/// Writes, in flight one beside the other, and flushes until the power is gone or the history ends. No two
/// writes to the same place are in flight together, so that it is clear which one is newer.
fn random_history(device: &SimulatedDevice, seed: u64) -> Bounds {
    let mut rng = chance(seed);
    let write_through = !device.geometry().volatile_write_cache;
    let dispatcher = open(device);
    let mut bounds = [(0, 0); PLACES];
    let mut acknowledged = [0; PLACES];
    let mut tickets: Vec<(usize, Ticket)> = Vec::new();
    for _ in 0..40 {
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
            // It was reaped before the cut, when nobody had asked for it.
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

/// SplitMix64: the history has a seed of its own.
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

#[test]
fn a_flush_after_which_the_power_is_cut_has_had_its_effect() {
    for seed in 0..50 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        device.cut_after(2);
        assert!(dispatcher.flush().is_err());
        assert_eq!(versions(&device.power_on(), 0), [1; LEN]);
    }
}

#[test]
fn a_write_in_flight_during_a_flush_may_be_lost() {
    let mut found = BTreeSet::new();
    for seed in 0..200 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        dispatcher.flush().unwrap();
        let ticket = start(&dispatcher, 0, 2);
        dispatcher.flush().unwrap();
        assert!(ticket.wait()[0].result.is_ok());
        assert_eq!(versions(&device, 0), [2; LEN], "it is read back");
        device.power_cut();
        found.insert(versions(&device.power_on(), 0));
    }
    assert!(found.contains(&vec![1; LEN]) && found.contains(&vec![2; LEN]));
    // Some were torn.
    assert!(found.len() > 2);
}

#[test]
fn a_write_that_completes_during_a_flush_may_be_lost_and_is_read_back() {
    within_seconds(|| {
        let mut found = BTreeSet::new();
        let device = simulated(1);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        device.inject(Fault::hold(OpKind::Flush));
        thread::scope(|scope| {
            let flush = scope.spawn(|| dispatcher.flush());
            thread::sleep(Duration::from_millis(50));
            write(&dispatcher, 0, 2);
            assert!(!flush.is_finished(), "it is held");
            device.clear_faults();
            flush.join().unwrap().unwrap();
        });
        assert_eq!(versions(&device, 0), [2; LEN]);
        for seed in 0..100 {
            let device = device.fork(seed);
            device.power_cut();
            found.insert(versions(&device.power_on(), 0));
        }
        assert!(found.contains(&vec![1; LEN]) && found.contains(&vec![2; LEN]), "{found:?}");
    });
}

#[test]
fn a_write_can_take_effect_long_before_it_completes() {
    let (mut seen, mut lost) = (0, 0);
    for seed in 0..300 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        device.inject(Fault::delay(OpKind::Write, 1000).nth(1));
        let mut ticket = start(&dispatcher, 0, 1);
        if versions(&device, 0) == [0; LEN] {
            continue;
        }
        seen += 1;
        dispatcher.flush().unwrap();
        let fork = device.fork(seed);
        fork.power_cut();
        lost += usize::from(versions(&fork.power_on(), 0) == [0; LEN]);

        // Now there is a newer one, acknowledged and flushed; the older one is still in flight.
        write(&dispatcher, 0, 2);
        dispatcher.flush().unwrap();
        assert!(ticket.try_wait().is_none());
        device.power_cut();
        assert_eq!(versions(&device.power_on(), 0), [2; LEN], "an older version is back");
    }
    assert!(seen > 10 && lost > 1, "{seen} seen, {lost} of them lost");
}

#[test]
fn a_write_that_is_not_durable_has_one_of_four_fates() {
    let mut total = CutReport::default();
    for seed in 0..300 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        // In flight, or acknowledged.
        let ticket = Some(start(&dispatcher, 0, 1)).filter(|_| seed % 2 == 0);
        let report = device.power_cut();
        drop(ticket);
        let found = versions(&device.power_on(), 0);
        let changes = found.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let CutReport { lost, kept, torn, scattered, .. } = report;
        match (lost, kept, torn, scattered) {
            (1, 0, 0, 0) => assert_eq!(found, [0; LEN]),
            (0, 1, 0, 0) => assert_eq!(found, [1; LEN]),
            (0, 0, 1, 0) => assert_eq!(changes, 1, "{found:?}"),
            (0, 0, 0, 1) => {}
            _ => panic!("one write had several fates: {report:?}"),
        }
        total.lost += lost;
        total.kept += kept;
        total.torn += torn;
        total.scattered += scattered;
    }
    let CutReport { lost, kept, torn, scattered, .. } = total;
    assert!([lost, kept, torn, scattered].iter().all(|&count| count > 30), "{total:?}");
}

#[test]
fn writes_have_their_fates_independently() {
    let mut found = BTreeSet::new();
    for seed in 0..300 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        (0..3).for_each(|number| write(&dispatcher, number, 1));
        device.power_cut();
        let device = device.power_on();
        let whole = |number| versions(&device, number) == [1; LEN];
        found.insert([whole(0), whole(1), whole(2)]);
    }
    assert_eq!(found.len(), 8, "{found:?}");
}

#[test]
fn what_is_written_atomically_is_not_torn() {
    let mut geometry = shape();
    geometry.atomic_write_unit = u32::try_from(LEN * BLOCK).unwrap();
    for seed in 0..200 {
        let device = SimulatedDevice::new(geometry, seed).unwrap();
        write(&open(&device), 0, 1);
        let report = device.power_cut();
        assert_eq!((report.torn, report.scattered), (0, 0));
        let found = versions(&device.power_on(), 0);
        assert!(found == [0; LEN] || found == [1; LEN], "{found:?}");
    }
}

#[test]
fn a_device_that_is_off_fails_everything_and_holds_up_nobody() {
    within_seconds(|| {
        let device = simulated(1);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        device.inject(Fault::hold(OpKind::Write));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let bytes = [2; LEN * BLOCK];
                dispatcher.write_buffers(&[WriteAt::new(place(1), &bytes)]).all()
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished(), "it is held");
            device.power_cut();
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
        let mut found = [7; BLOCK];
        let read = ReadAt::new(0, &mut found);
        let read = dispatcher.read_buffers(&mut [read]).all();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(found, [7; BLOCK]);
        assert_eq!(dispatcher.discard(0, 4096).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(dispatcher.flush().unwrap_err().kind(), ErrorKind::Io);
        let ops = device.ops_so_far();
        assert!(open(&device).flush().is_err(), "a new queue works no better");
        assert_eq!(device.ops_so_far(), ops);
        assert_eq!(device.power_cut(), device.power_cut());
        open(&device.power_on()).flush().unwrap();
    });
}

#[test]
fn a_scheduled_cut_ends_the_waiting_of_others() {
    within_seconds(|| {
        let device = simulated(1);
        let dispatcher = open(&device);
        device.inject(Fault::hold(OpKind::Write).within(place(1)..place(2)));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let bytes = [2; LEN * BLOCK];
                dispatcher.write_buffers(&[WriteAt::new(place(1), &bytes)]).all()
            });
            thread::sleep(Duration::from_millis(50));
            device.cut_after(1);
            assert!(!device.is_off() && !waiting.is_finished());
            assert!(dispatcher.flush().is_err());
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
    });
}

#[test]
fn a_killed_process_leaves_the_cache() {
    let mut in_flight = BTreeSet::new();
    let mut cut = BTreeSet::new();
    for seed in 0..200 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        let ticket = start(&dispatcher, 1, 1);
        let next = device.process_kill();
        assert!(device.is_off() && !next.is_off());
        assert_eq!(versions(&next, 0), [1; LEN], "what was acknowledged is there");
        match &ticket.wait()[0].result {
            Ok(()) => assert_eq!(versions(&next, 1), [1; LEN]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
        }
        in_flight.insert(versions(&next, 1));

        let unflushed = next.fork(seed);
        unflushed.power_cut();
        cut.insert(versions(&unflushed.power_on(), 0));

        let before = versions(&next, 1);
        open(&next).flush().unwrap();
        next.power_cut();
        let next = next.power_on();
        assert_eq!((versions(&next, 0), versions(&next, 1)), (vec![1; LEN], before));
    }
    for found in [in_flight, cut] {
        assert!(found.contains(&vec![0; LEN]) && found.contains(&vec![1; LEN]));
        assert!(found.len() > 2, "some are torn");
    }
}

#[test]
fn a_fork_and_its_origin_do_not_see_each_other() {
    let device = simulated(1);
    let dispatcher = open(&device);
    write(&dispatcher, 0, 1);
    dispatcher.flush().unwrap();
    let ops = device.ops_so_far();

    let fork = device.fork(2);
    assert_eq!((versions(&fork, 0), fork.ops_so_far()), (vec![1; LEN], ops));
    write(&open(&fork), 0, 2);
    write(&dispatcher, 1, 3);
    assert_eq!((versions(&device, 0), versions(&fork, 1)), (vec![1; LEN], vec![0; LEN]));
    fork.power_cut();
    assert!(!device.is_off());
    write(&dispatcher, 2, 4);
    assert_eq!(device.ops_so_far(), ops + 2);

    let [one, other] = [fork.power_on(), fork.power_on()];
    assert_eq!(versions(&one, 0), versions(&other, 0));
    write(&open(&one), 0, 5);
    assert_ne!(versions(&other, 0), [5; LEN]);
}

#[test]
fn forks_of_one_state_have_many_ends() {
    let device = simulated(1);
    write(&open(&device), 0, 1);
    let ends: BTreeSet<_> = (0..50)
        .map(|seed| {
            let fork = device.fork(seed);
            fork.power_cut();
            versions(&fork.power_on(), 0)
        })
        .collect();
    assert!(ends.len() > 10, "{} ends", ends.len());
}

#[test]
fn a_discarded_block_reads_as_before_or_as_zeroes() {
    let device = simulated(1);
    let dispatcher = open(&device);
    (0..4).for_each(|number| write(&dispatcher, number, 1));
    dispatcher.discard(place(0), place(3)).unwrap();
    let found: Vec<_> = (0..3).flat_map(|number| versions(&device, number)).collect();
    assert!(found.contains(&0) && found.contains(&1), "{found:?}");
    assert_eq!(versions(&device, 3), [1; LEN], "it is outside");
    dispatcher.write_zeroes(place(0), place(3)).unwrap();
    dispatcher.flush().unwrap();
    let device = device.power_on();
    assert!((0..3).all(|number| versions(&device, number) == [0; LEN]));
    assert_eq!(versions(&device, 3), [1; LEN]);
}

#[test]
fn a_device_can_be_larger_than_the_machine() {
    let mut geometry = Geometry::new(1 << 45, 4096).unwrap();
    geometry.write_zeroes = true;
    let device = SimulatedDevice::new(geometry, 1).unwrap();
    let dispatcher = open(&device);
    let last = (1 << 45) - 4096;
    dispatcher.write_buffers(&[WriteAt::new(last, &[1; 4096])]).all().unwrap();
    dispatcher.flush().unwrap();
    assert_eq!(device.power_on().peek(last, 4096), [1; 4096]);

    let device = device.power_on();
    let dispatcher = open(&device);
    dispatcher.write_zeroes(0, 1 << 45).unwrap();
    dispatcher.flush().unwrap();
    assert_eq!(device.power_on().peek(last, 4096), [0; 4096]);
}

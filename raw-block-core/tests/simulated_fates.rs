//! What becomes of a write to a simulated device that a flush does not cover.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;
mod versions;

use std::collections::BTreeSet;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use fakes::within_seconds;
use raw_block_core::WriteAt;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{CutReport, DeviceFault, SimulatedDevice, SimulatedOptions};
use versions::{BLOCK, LEN, open, place, shape, simulated, versions, while_written, write};

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
        let (written, flushed) = while_written(&dispatcher, 0, 2, || dispatcher.flush());
        written.and(flushed).unwrap();
        assert_eq!(versions(&device, 0), [2; LEN], "it is read back");
        device.power_cut();
        found.insert(versions(&device.power_on(), 0));
    }
    assert!(found.contains(&vec![1; LEN]) && found.contains(&vec![2; LEN]));
    // Some were torn.
    assert!(found.len() > 2);
}

#[test]
fn a_write_that_completes_during_a_flush_may_be_lost() {
    within_seconds(|| {
        let mut found = BTreeSet::new();
        let device = simulated(1);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        device.inject(DeviceFault::hold(OpKind::Flush));
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
        device.inject(DeviceFault::delay(OpKind::Write, 1000).nth(1));
        let (older, ()) = while_written(&dispatcher, 0, 1, || {
            if versions(&device, 0) == [0; LEN] {
                return;
            }
            seen += 1;
            dispatcher.flush().unwrap();
            let fork = device.fork(seed);
            fork.power_cut();
            lost += usize::from(versions(&fork.power_on(), 0) == [0; LEN]);

            // Now there is a newer one, acknowledged and flushed; the older one is in flight.
            write(&dispatcher, 0, 2);
            dispatcher.flush().unwrap();
            device.power_cut();
        });
        if older.is_err() {
            assert_eq!(versions(&device.power_on(), 0), [2; LEN], "an older version is back");
        }
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
        let report = if seed % 2 == 0 {
            while_written(&dispatcher, 0, 1, || device.power_cut()).1
        } else {
            write(&dispatcher, 0, 1);
            device.power_cut()
        };
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

/// A device that does not tear writes of `LEN` blocks.
fn atomic(seed: u64) -> SimulatedDevice {
    let atomic_write_unit = (LEN * BLOCK) as u64;
    let options = SimulatedOptions::new().seed(seed).atomic_write_unit(atomic_write_unit);
    SimulatedDevice::with_options(shape(), options).unwrap()
}

#[test]
fn what_is_written_atomically_is_not_torn() {
    for seed in 0..200 {
        let device = atomic(seed);
        write(&open(&device), 0, 1);
        let report = device.power_cut();
        assert_eq!((report.torn, report.scattered), (0, 0));
        let found = versions(&device.power_on(), 0);
        assert!(found == [0; LEN] || found == [1; LEN], "{found:?}");
    }
}

#[test]
fn a_dispatcher_keeps_no_more_than_a_logical_block_whole() {
    let mut torn = 0;
    for seed in 0..200 {
        let device = atomic(seed);
        // Each write is atomic by itself, but the dispatcher merges the two into one op.
        let bytes = [1; LEN * BLOCK];
        let batch = [WriteAt::new(0, &bytes), WriteAt::new(bytes.len() as u64, &bytes)];
        open(&device).write_buffers(&batch).all().unwrap();
        device.power_cut();
        // `versions` asserts that each logical block is whole.
        let found = versions(&device.power_on(), 0);
        torn += usize::from(found.contains(&0) && found.contains(&1));
    }
    assert!(torn > 10, "{torn} of 200 were torn");
}

/// Blocks of these writes that hold a version, zeroes, or something else. The versions are not 0.
fn kinds_of_blocks(device: &SimulatedDevice, numbers: Range<u64>, version: u8) -> [usize; 3] {
    let mut kinds = [0; 3];
    for number in numbers {
        for block in device.peek(place(number), LEN * BLOCK).chunks(BLOCK) {
            let all = |byte| block.iter().all(|&found| found == byte);
            kinds[if all(version) { 0 } else { 1 + usize::from(!all(0)) }] += 1;
        }
    }
    kinds
}

#[test]
fn a_discarded_block_reads_as_before_as_zeroes_or_as_garbage() {
    let device = simulated(1);
    let dispatcher = open(&device);
    (0..4).for_each(|number| write(&dispatcher, number, 1));
    dispatcher.discard(place(0), place(3)).unwrap();
    let kinds = kinds_of_blocks(&device, 0..3, 1);
    assert!(kinds.iter().all(|&blocks| blocks > 2), "{kinds:?}");
    assert_eq!(kinds_of_blocks(&device, 0..3, 1), kinds, "it reads as the same each time");
    assert_eq!(versions(&device, 3), [1; LEN], "it is outside");
    dispatcher.write_zeroes(place(0), place(3)).unwrap();
    dispatcher.flush().unwrap();
    let device = device.power_on();
    assert!((0..3).all(|number| versions(&device, number) == [0; LEN]));
    assert_eq!(versions(&device, 3), [1; LEN]);
}

#[test]
fn a_discard_is_volatile_until_a_flush() {
    let (mut undone, mut done) = (0, 0);
    for seed in 0..100 {
        let device = simulated(seed);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        dispatcher.flush().unwrap();
        dispatcher.discard(place(0), (LEN * BLOCK) as u64).unwrap();
        let before = kinds_of_blocks(&device, 0..1, 1);
        let cut = kinds_of_blocks(&device.fork(seed).power_on(), 0..1, 1);
        undone += usize::from(cut == [LEN, 0, 0] && before != cut);
        done += usize::from(cut == before && before[0] < LEN);
        dispatcher.flush().unwrap();
        assert_eq!(kinds_of_blocks(&device.power_on(), 0..1, 1), before, "it was flushed");
    }
    assert!(undone > 10 && done > 10, "{undone} were undone, {done} done");
}

//! The lives of a simulated device: what it does once it is off, what the next life finds, and its
//! forks.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;
mod versions;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use fakes::within_seconds;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{ErrorKind, Geometry, ReadAt, WriteAt};
use versions::{BLOCK, LEN, open, place, simulated, versions, while_written, write};

#[test]
fn a_device_that_is_off_fails_everything_and_delays_nothing() {
    within_seconds(|| {
        let device = simulated(1);
        let dispatcher = open(&device);
        write(&dispatcher, 0, 1);
        device.inject(DeviceFault::hold(OpKind::Write));
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
        device.inject(DeviceFault::hold(OpKind::Write).within(place(1)..place(2)));
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
        let (written, next) = while_written(&dispatcher, 1, 1, || device.process_kill());
        assert!(device.is_off() && !next.is_off());
        assert_eq!(versions(&next, 0), [1; LEN], "what was acknowledged is there");
        match written {
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

/// Uses a device without changing it.
fn read_once(device: &raw_block_core::Dispatcher) {
    let mut found = [0; BLOCK];
    device.read_buffers(&mut [ReadAt::new(place(20), &mut found)]).all().unwrap();
}

/// A device whose process was killed with write 1 in flight, and left it.
fn killed_with_a_write(seed: u64, held: bool) -> SimulatedDevice {
    let device = simulated(seed);
    let dispatcher = open(&device);
    write(&dispatcher, 0, 1);
    if held {
        device.inject(DeviceFault::hold(OpKind::Write));
    }
    let (written, next) = while_written(&dispatcher, 1, 1, || device.process_kill_leaving_writes());
    assert!(device.is_off() && !next.is_off());
    assert!(written.is_err() || !held);
    assert_eq!(versions(&next, 0), [1; LEN], "what was acknowledged is there");
    next
}

#[test]
fn writes_of_a_killed_process_land_while_the_next_one_reads() {
    let (mut ends, mut landings) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..80 {
        let device = killed_with_a_write(seed, true);
        assert_eq!(versions(&device, 1), [0; LEN], "nothing has landed yet");
        let dispatcher = open(&device);
        let mut before = versions(&device, 1);
        let mut moments = 0;
        for round in 0..300 {
            read_once(&dispatcher);
            let now = versions(&device, 1);
            if now != before {
                moments += 1;
                landings.insert(u32::BITS - u32::leading_zeros(round));
            }
            before = now;
        }
        ends.insert((versions(&device, 1), moments));
    }
    let ended = |blocks: usize| {
        move |end: &&(Vec<u8>, i32)| end.0.iter().filter(|&&block| block == 1).count() == blocks
    };
    assert!(ends.iter().any(|end| ended(0)(&end)), "some never land");
    assert!(ends.iter().any(|end| ended(LEN)(&end)), "some land as a whole");
    assert!(ends.iter().any(|end| (1..LEN).any(|blocks| ended(blocks)(&end))), "some are torn");
    assert!(ends.iter().any(|(_, moments)| *moments == 2), "some land in two parts");
    assert!(landings.len() > 5, "early and late: {landings:?}");
}

#[test]
fn a_write_of_a_killed_process_lands_over_a_newer_one() {
    let over_newer = (0..60).filter(|&seed| {
        let device = killed_with_a_write(seed, true);
        let dispatcher = open(&device);
        write(&dispatcher, 1, 2);
        dispatcher.flush().unwrap();
        (0..200).for_each(|_| read_once(&dispatcher));
        versions(&device, 1).contains(&1)
    });
    assert!(over_newer.count() > 10);
}

#[test]
fn what_landed_is_covered_by_the_next_flush() {
    let mut landed = 0;
    for seed in 0..60 {
        let device = killed_with_a_write(seed, true);
        let dispatcher = open(&device);
        (0..50).for_each(|_| read_once(&dispatcher));
        let found = versions(&device, 1);
        dispatcher.flush().unwrap();
        let left = versions(&device.power_on(), 1);
        // More may land until the power is cut, and nothing is taken back.
        assert!(found.iter().zip(&left).all(|(found, left)| found <= left), "{found:?} {left:?}");
        landed += usize::from(found.contains(&1));
    }
    assert!(landed > 5, "{landed}");
}

#[test]
fn the_next_kill_with_a_lock_ends_what_an_earlier_one_left() {
    for seed in 0..20 {
        let device = killed_with_a_write(seed, false).process_kill();
        let found = versions(&device, 1);
        let dispatcher = open(&device);
        (0..200).for_each(|_| read_once(&dispatcher));
        assert_eq!(versions(&device, 1), found, "it has landed or never will");
        dispatcher.flush().unwrap();
        assert_eq!(versions(&device.power_on(), 1), found);
    }
}

#[test]
fn writes_that_are_left_land_the_same_way_every_time() {
    let land = |seed| {
        let device = killed_with_a_write(seed, true);
        let dispatcher = open(&device);
        let look = |_| {
            read_once(&dispatcher);
            versions(&device, 1)
        };
        (0..200).map(look).collect::<Vec<_>>()
    };
    assert!((0..8).all(|seed| land(seed) == land(seed)));
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

#[test]
fn a_scheduled_kill_loses_nothing_that_was_acknowledged() {
    within_seconds(|| {
        for seed in 0..20 {
            for leaves in [false, true] {
                let device = simulated(seed);
                let dispatcher = open(&device);
                if leaves {
                    device.kill_after_leaving_writes(3);
                } else {
                    device.kill_after(3);
                }
                write(&dispatcher, 0, 1);
                write(&dispatcher, 1, 1);
                assert!(!device.is_off());
                let bytes = [2; LEN * BLOCK];
                let third = dispatcher.write_buffers(&[WriteAt::new(place(2), &bytes)]).all();
                assert!(third.is_err() && device.is_off());
                let next = device.process_kill();
                assert_eq!(next.peek(place(1), LEN * BLOCK), device.peek(place(1), LEN * BLOCK));
                assert_eq!(next.ops_so_far(), 0);
                write(&open(&next), 2, 1);
            }
        }
    });
}

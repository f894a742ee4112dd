//! Each fault of a simulated device does what it says, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use fakes::within_seconds;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice, SimulatedOptions};
use raw_block_core::{
    AlignedBuf, Dispatcher, Error, ErrorClass, ErrorKind, Geometry, OwnedTransfer, ReadAt, Ticket,
    WriteAt,
};

const BLOCK: usize = 512;
const BLOCKS: usize = 16;
const ENOSPC: i32 = 28;

/// A device whose blocks hold their numbers, from 1 on, and before that their numbers from 101 on.
fn numbered() -> (SimulatedDevice, Dispatcher) {
    let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512).unwrap(), 1).unwrap();
    let device = Dispatcher::new(simulated.backend()).unwrap();
    for first in [101, 1] {
        device.write_buffers(&[WriteAt::new(0, &expected(first))]).all().unwrap();
    }
    (simulated, device)
}

fn expected(first: u8) -> Vec<u8> {
    (first..).take(BLOCKS).flat_map(|number| [number; BLOCK]).collect()
}

fn place(block: usize) -> u64 {
    (block * BLOCK) as u64
}

fn read(device: &Dispatcher) -> Vec<u8> {
    let mut found = vec![0xEE; BLOCKS * BLOCK];
    device.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
    found
}

fn write(device: &Dispatcher, block: usize, byte: u8) -> Result<(), Error> {
    device.write_buffers(&[WriteAt::new(place(block), &[byte; BLOCK])]).all()
}

fn start(device: &Dispatcher, block: usize) -> Ticket {
    let buffer = AlignedBuf::zeroed(BLOCK).unwrap();
    device.batched_write(vec![OwnedTransfer::new(place(block), buffer)]).unwrap()
}

/// What a read finds with a fault in blocks 3 and 4. Asserts that it touches nothing else, and that
/// the device is as it was.
#[track_caller]
fn faulty_read(fault: DeviceFault) -> [Vec<u8>; 2] {
    let (simulated, device) = numbered();
    simulated.inject(fault.within(place(3)..place(5)));
    let mut found = read(&device);
    let blocks = [3, 4].map(|block| {
        let range = block * BLOCK..(block + 1) * BLOCK;
        found.splice(range.clone(), expected(1)[range].to_vec()).collect()
    });
    assert!(found == expected(1), "other blocks are touched");
    assert!(simulated.peek(0, BLOCKS * BLOCK) == expected(1), "the device is touched");
    simulated.clear_faults();
    assert!(read(&device) == expected(1), "the fault was cleared");
    blocks
}

#[test]
fn reads_find_something_else() {
    assert_eq!(faulty_read(DeviceFault::zeroed()), [[0; BLOCK]; 2]);
    assert_eq!(faulty_read(DeviceFault::old_version()), [[104; BLOCK], [105; BLOCK]]);
    assert_eq!(faulty_read(DeviceFault::other_block(place(9))), [[10; BLOCK], [11; BLOCK]]);
    assert_eq!(faulty_read(DeviceFault::other_block(1 << 40)), [[0; BLOCK]; 2]);

    let mut flipped = [4; BLOCK];
    flipped[1] ^= 2;
    assert_eq!(faulty_read(DeviceFault::flip_bit(Some(9)))[0], flipped);
    for (block, held) in faulty_read(DeviceFault::flip_bit(None)).iter().zip([4, 5]) {
        let bits: u32 = block.iter().map(|byte| (byte ^ held).count_ones()).sum();
        assert_eq!(bits, 1);
    }
}

#[test]
fn an_op_fails_before_or_after_it_happened() {
    let (simulated, device) = numbered();
    let ops = simulated.ops_so_far();
    simulated.inject(DeviceFault::fail(OpKind::Write, ENOSPC).within(place(3)..place(4)));
    simulated.inject(DeviceFault::fail_after(OpKind::Write, ENOSPC).within(place(5)..place(6)));
    for block in [3, 5] {
        assert_eq!(write(&device, block, 77).unwrap_err().kind(), ErrorKind::NoSpace);
    }
    write(&device, 4, 77).unwrap();
    assert_eq!(simulated.ops_so_far(), ops + 2, "what is prevented does not count");
    let found: Vec<_> = read(&device).chunks(BLOCK).map(|block| block[0]).collect();
    assert_eq!(found[..7], [1, 2, 3, 4, 77, 77, 7]);

    simulated.inject(DeviceFault::fail(OpKind::Read, 5).within(place(8)..place(9)));
    let mut blocks = [[0; BLOCK]; 2];
    let [bad, good] = &mut blocks;
    let mut reads = [ReadAt::new(place(8), bad), ReadAt::new(place(10), good)];
    let results = device.read_buffers(&mut reads);
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Io);
    assert!(results[1].is_ok());
    assert_eq!(blocks, [[0; BLOCK], [11; BLOCK]]);

    simulated.inject(DeviceFault::fail(OpKind::Flush, 5));
    assert_eq!(device.flush().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn one_of_many_ops_can_be_chosen() {
    let (simulated, device) = numbered();
    simulated.inject(DeviceFault::fail(OpKind::Write, 5).within(place(3)..place(5)).nth(2));
    let results = [3, 9, 4, 3].map(|block| write(&device, block, 1).is_ok());
    assert_eq!(results, [true, true, false, true]);
}

#[test]
fn a_lost_write_is_acknowledged_and_not_there() {
    let (simulated, device) = numbered();
    simulated.inject(DeviceFault::lost_write().within(place(3)..place(4)));
    device.write_buffers(&[WriteAt::new(place(2), &[77; 3 * BLOCK])]).all().unwrap();
    let found: Vec<_> = read(&device).chunks(BLOCK).map(|block| block[0]).collect();
    assert_eq!(found[..7], [1, 2, 77, 4, 77, 6, 7]);
}

#[test]
fn a_late_write_fails_and_takes_effect_over_newer_ones() {
    let (simulated, device) = numbered();
    simulated.inject(DeviceFault::late_write(3).within(place(3)..place(4)).nth(1));
    let error = write(&device, 3, 77).unwrap_err();
    assert_eq!((error.kind(), error.class()), (ErrorKind::Io, ErrorClass::Unknown));
    let ops = simulated.ops_so_far();
    write(&device, 3, 78).unwrap();
    device.flush().unwrap();
    assert_eq!(read(&device)[3 * BLOCK], 78, "it has not come yet");
    write(&device, 4, 78).unwrap();
    assert_eq!(read(&device)[3 * BLOCK..][..2 * BLOCK], [[77; BLOCK], [78; BLOCK]].concat());
    assert_eq!(simulated.ops_so_far(), ops + 4, "it counts when it takes effect");
    device.flush().unwrap();
    assert_eq!(read(&device)[3 * BLOCK], 77);

    // No flush covers what was never acknowledged.
    let found = cut(&simulated, 3);
    assert!(found.contains(&77) && found.contains(&78), "{found:?}");
}

#[test]
fn a_late_write_that_another_fault_fails_is_still_unknown() {
    for other in [DeviceFault::fail(OpKind::Write, 5), DeviceFault::fail_after(OpKind::Write, 5)] {
        let (simulated, device) = numbered();
        simulated.inject(other);
        simulated.inject(DeviceFault::late_write(1));
        assert_eq!(write(&device, 3, 77).unwrap_err().class(), ErrorClass::Unknown);
    }
}

#[test]
fn the_end_of_a_device_decides_what_a_late_write_does() {
    let (simulated, device) = numbered();
    device.flush().unwrap();
    simulated.inject(DeviceFault::late_write(1000).within(place(3)..place(4)));
    write(&device, 3, 77).unwrap_err();
    assert_eq!(cut(&simulated, 3), [4, 77].into());
    let killed = (0..100).map(|seed| simulated.fork(seed).process_kill().peek(place(3), 1)[0]);
    assert_eq!(killed.collect::<BTreeSet<_>>(), [4, 77].into());
}

/// What cuts of the power leave in a block.
fn cut(simulated: &SimulatedDevice, block: usize) -> BTreeSet<u8> {
    let left = |seed| simulated.fork(seed).power_on().peek(place(block), 1)[0];
    (0..100).map(left).collect()
}

#[test]
fn a_misdirected_write_is_elsewhere() {
    let (simulated, device) = numbered();
    simulated.inject(DeviceFault::misdirected_write(place(9)).within(place(3)..place(5)));
    device.write_buffers(&[WriteAt::new(place(2), &[77; 3 * BLOCK])]).all().unwrap();
    let found: Vec<_> = read(&device).chunks(BLOCK).map(|block| block[0]).collect();
    assert_eq!(found[..12], [1, 2, 77, 4, 5, 6, 7, 8, 9, 77, 77, 12]);
    simulated.clear_faults();
    simulated.inject(DeviceFault::misdirected_write(1 << 40));
    write(&device, 0, 88).unwrap();
    assert_eq!(read(&device)[0], 1);
}

#[test]
fn a_lost_flush_makes_nothing_durable() {
    let lost = |flush_is_lost| {
        (0..100).any(|seed| {
            let (simulated, device) = numbered();
            if flush_is_lost {
                simulated.inject(DeviceFault::lost_flush());
            }
            device.flush().unwrap();
            let fork = simulated.fork(seed);
            fork.power_cut();
            fork.power_on().peek(0, BLOCKS * BLOCK) != expected(1)
        })
    };
    assert!(lost(true));
    assert!(!lost(false));
}

#[test]
fn a_delayed_op_is_overtaken() {
    let geometry = Geometry::new(1 << 20, 512).unwrap();
    let options = SimulatedOptions::new().shuffle(false);
    let simulated = SimulatedDevice::with_options(geometry, options).unwrap();
    let device = Dispatcher::new(simulated.backend()).unwrap();
    // Each is handed over as soon as it has completed.
    let order = || {
        let (mut first, mut second) = (vec![0; 256 << 10], vec![0; 256 << 10]);
        let mut reads = [ReadAt::new(0, &mut first), ReadAt::new(512 << 10, &mut second)];
        let mut order = Vec::new();
        device.read_buffers_with(&mut reads, |number, _| order.push(number));
        order
    };
    assert_eq!(order(), [0, 1], "in order and at once");
    simulated.inject(DeviceFault::delay(OpKind::Read, 3).nth(1));
    assert_eq!(order(), [1, 0]);

    simulated.inject(DeviceFault::delay(OpKind::Write, 1_000_000));
    assert!(write(&device, 2, 1).is_ok(), "a caller with nothing else to wait for gets it at once");
}

#[test]
fn a_held_op_waits_until_the_faults_are_cleared() {
    within_seconds(|| {
        let (simulated, device) = numbered();
        simulated.inject(DeviceFault::hold(OpKind::Write).within(place(3)..place(4)));
        let mut held = start(&device, 3);
        for _ in 0..100 {
            assert!(held.try_wait().is_none());
            write(&device, 5, 6).unwrap();
        }
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(held.wait_deadline(deadline).is_none());
        assert!(Instant::now() >= deadline);
        assert!(read(&device) == expected(1), "it is not carried out either");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| held.wait());
            thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            simulated.clear_faults();
            assert!(waiting.join().unwrap()[0].result.is_ok());
        });
        assert_eq!(read(&device)[3 * BLOCK], 0);
    });
}

#[test]
fn what_is_poked_stays() {
    let (simulated, device) = numbered();
    let ops = simulated.ops_so_far();
    simulated.poke(place(1) - 2, &[9; 4]);
    assert_eq!(simulated.ops_so_far(), ops);
    let mut damaged = expected(1);
    damaged[BLOCK - 2..BLOCK + 2].fill(9);
    assert!(read(&device) == damaged);
    assert_eq!(simulated.peek(place(1) - 3, 6), [1, 9, 9, 9, 9, 2]);
    for seed in 0..20 {
        let fork = simulated.fork(seed);
        fork.power_cut();
        assert_eq!(fork.power_on().peek(place(1) - 2, 4), [9; 4]);
    }
    write(&device, 0, 1).unwrap();
    assert_eq!(simulated.peek(place(1) - 3, 6), [1, 1, 1, 9, 9, 2]);
}

#[test]
fn faults_end_with_the_power() {
    let (simulated, _) = numbered();
    simulated.inject(DeviceFault::fail(OpKind::Write, 5));
    let device = Dispatcher::new(simulated.power_on().backend()).unwrap();
    write(&device, 0, 1).unwrap();
}

#[test]
fn a_bad_medium_fails_for_its_blocks_alone() {
    let (simulated, device) = numbered();
    for kind in [OpKind::Write, OpKind::Read] {
        simulated.inject(DeviceFault::bad_medium(kind).within(place(3)..place(5)));
    }
    let ops = simulated.ops_so_far();
    let mut found = [0; BLOCK];
    for block in [3, 4] {
        assert_eq!(write(&device, block, 77).unwrap_err().class(), ErrorClass::Failed);
        let read = device.read_buffers(&mut [ReadAt::new(place(block), &mut found)]).all();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Media);
    }
    assert_eq!(simulated.ops_so_far(), ops, "nothing was stored");
    device.write_buffers(&[WriteAt::new(place(2), &[77; 4 * BLOCK])]).all().unwrap_err();
    let held: Vec<_> = (0..8).map(|block| simulated.peek(place(block), 1)[0]).collect();
    assert_eq!(held, [1, 2, 77, 4, 5, 77, 7, 8], "the other blocks are stored");
    write(&device, 6, 78).unwrap();
}

#[test]
fn a_permanent_fault_outlasts_everything() {
    let (simulated, device) = numbered();
    simulated.inject(DeviceFault::bad_medium(OpKind::Write).within(place(3)..place(4)).permanent());
    simulated.inject(DeviceFault::fail(OpKind::Write, ENOSPC).within(place(5)..place(6)));
    simulated.clear_faults();
    let lives = [
        simulated.clone(),
        simulated.fork(1).process_kill(),
        simulated.fork(2).process_kill_leaving_writes(),
        simulated.fork(3).power_on(),
        simulated.fork(4).power_on().process_kill().power_on(),
    ];
    for life in lives {
        let device = Dispatcher::new(life.backend()).unwrap();
        assert_eq!(write(&device, 3, 77).unwrap_err().kind(), ErrorKind::Media);
        write(&device, 5, 77).unwrap();
    }
    drop(device);
}

#[test]
fn impossible_shapes_are_refused() {
    let refused = |change: fn(&mut Geometry, &mut SimulatedOptions)| {
        let mut geometry = Geometry::new(1 << 20, 4096).unwrap();
        let mut options = SimulatedOptions::new();
        change(&mut geometry, &mut options);
        let error = SimulatedDevice::with_options(geometry, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    };
    refused(|shape, _| shape.transfer_alignment = 512);
    refused(|shape, _| shape.transfer_alignment = 0);
    refused(|shape, _| shape.capacity += 512);
    refused(|shape, _| shape.logical_block = 0);
    refused(|_, options| options.max_queue_depth = 0);
}

//! A discard reaches a block device as a discard, and a file as a hole.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use raw_block_core::backend::DeviceFile;
use raw_block_core::conformance::Skipped;
use raw_block_core::{AlignedBuf, Direct, Dispatcher, ErrorKind, ReadAt, WriteAt};
use raw_block_fixtures::{LoopDevice, discard_a_gibibyte, temp_file};
use raw_block_posix::{PosixBackend, PosixOptions};
use support::{is_root, passed_on, prefixed, run_again, skip};

const CAPACITY: u64 = 16 << 20;
const MIB: u64 = 1 << 20;

fn open(path: &Path, direct: Direct) -> Dispatcher {
    let options = PosixOptions::new().direct(direct).threads(2);
    Dispatcher::new(Arc::new(PosixBackend::open(path, &options).unwrap())).unwrap()
}

/// Writes to the first three MiB, discards the second one, and checks that the others are
/// unchanged.
fn discard_between_neighbours(dispatcher: &Dispatcher) {
    let mut buffer = AlignedBuf::zeroed(3 << 20).unwrap();
    buffer.fill(9);
    dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    dispatcher.flush().unwrap();
    dispatcher.discard(MIB, MIB).unwrap();
    buffer.fill(0);
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
    assert!(buffer[..1 << 20].iter().all(|&byte| byte == 9));
    assert!(buffer[2 << 20..].iter().all(|&byte| byte == 9));
}

#[test]
fn a_block_device_sees_a_discard_and_no_write() {
    for sector_size in [512, 4096] {
        let device = match LoopDevice::attach(CAPACITY, sector_size) {
            Ok(device) => device,
            Err(skipped) => return skipped.report(),
        };
        for direct in [Direct::Required, Direct::Off] {
            let (written, discards) = match device.written_and_discards(None) {
                Ok(counts) => counts,
                Err(skipped) => return skipped.report(),
            };
            let dispatcher = open(device.path(), direct);
            if !dispatcher.geometry().discard {
                return Skipped::because("the loop device has no discard").report();
            }
            discard_between_neighbours(&dispatcher);
            dispatcher.discard(8 * MIB, MIB).unwrap();
            let expected = (written + 3 * MIB, discards + 2);
            let counts = device.written_and_discards(Some(expected)).unwrap();
            assert_eq!(counts, expected, "sectors of {sector_size}, {direct:?}");
        }
    }
}

#[test]
fn a_block_device_without_discard_still_writes_zeroes() {
    let Some(directory) = passed_on() else {
        if !is_root() {
            return skip("only root can attach a loop device");
        }
        let directory = tempfile::tempdir().unwrap();
        let test = "a_block_device_without_discard_still_writes_zeroes";
        let path = directory.path().to_str().unwrap();
        return run_again(test, path, |command| {
            let propagation = ["--mount", "--propagation", "private", "--"];
            let mut command = prefixed("unshare", &propagation, &command);
            // The directory for the file under the loop device.
            command.env("CARGO_TARGET_TMPDIR", path);
            command
        });
    };
    // A file system without fallocate, so that a loop device over one of its files cannot discard
    // or write zeroes. The mount ends with this process.
    let mount = Command::new("mount").args(["-t", "ramfs", "none"]).arg(&directory).output();
    match mount {
        Ok(output) if output.status.success() => {}
        refused => return skip(&format!("no ramfs can be mounted: {refused:?}")),
    }
    let device = match LoopDevice::attach(CAPACITY, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    let file = DeviceFile::open(device.path(), Direct::Required).unwrap();
    assert!(!file.geometry().discard);
    assert_eq!(file.discard(0, MIB).unwrap_err().kind(), io::ErrorKind::Unsupported);
    drop(file);

    let dispatcher = open(device.path(), Direct::Required);
    assert_eq!(dispatcher.discard(MIB, MIB).unwrap_err().kind(), ErrorKind::Unsupported);
    dispatcher.write_buffers(&[WriteAt::new(0, &[9; 1024])]).all().unwrap();
    dispatcher.write_zeroes(512, 512).unwrap();
    let mut found = [1; 1024];
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
    assert_eq!((&found[..512], &found[512..]), (&[9; 512][..], &[0; 512][..]));
}

#[test]
fn a_discard_of_a_file_makes_a_hole() {
    let file = match temp_file(CAPACITY) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let allocated = || fs::metadata(file.path()).unwrap().blocks() * 512;
    let before = allocated();
    let dispatcher = open(file.path(), Direct::Preferred);
    discard_between_neighbours(&dispatcher);
    dispatcher.discard(CAPACITY - MIB, MIB).unwrap();
    // The file system needs less space to record the holes than the size of a hole.
    assert!(allocated() < before - MIB, "{} of {before} bytes are allocated", allocated());
    assert_eq!(fs::metadata(file.path()).unwrap().len(), CAPACITY);
}

#[test]
fn a_discard_of_a_gibibyte_of_a_file_is_one_hole() {
    if let Err(skipped) = discard_a_gibibyte(|path| open(path, Direct::Preferred)) {
        skipped.report();
    }
}

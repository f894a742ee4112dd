//! A file is held until the last write of a killed process has taken effect.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use raw_block_core::{AlignedBuf, Dispatcher, OwnedTransfer};
use raw_block_fixtures::{KilledWriter, temp_file};
use raw_block_posix::{PosixBackend, PosixOptions};

const LEN: u64 = 1 << 20;

fn open(path: &Path) -> Dispatcher {
    Dispatcher::new(Arc::new(PosixBackend::open(path, &PosixOptions::new()).unwrap())).unwrap()
}

/// Whether a thread of this process waits for the disk.
fn is_writing() -> bool {
    let statuses = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses.into_iter().any(|status| status.contains("State:\tD"))
}

#[test]
fn a_file_is_locked_until_writes_of_a_killed_process_land() {
    if let Some(path) = KilledWriter::child() {
        let dispatcher = open(&path);
        let batch =
            (0..8).map(|at| OwnedTransfer::new(at << 16, AlignedBuf::zeroed(4096).unwrap()));
        let _ticket = dispatcher.batched_write(batch.collect()).unwrap();
        while !is_writing() {
            thread::sleep(Duration::from_millis(1));
        }
        KilledWriter::wait_to_be_killed();
    }
    let file = match temp_file(LEN) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let test = "a_file_is_locked_until_writes_of_a_killed_process_land";
    let mut killed = match KilledWriter::run(test, file.path()) {
        Ok(killed) => killed,
        Err(skipped) => return skipped.report(),
    };
    // The process ends only after its threads have returned from their writes.
    assert!(File::open(file.path()).unwrap().try_lock().is_err(), "writes are in flight");
    killed.finish();
    let _device = open(file.path());
    let opened = fs::read(file.path()).unwrap();
    killed.wait().unwrap();
    assert!(fs::read(file.path()).unwrap() == opened, "a write took effect after the next opening");
}

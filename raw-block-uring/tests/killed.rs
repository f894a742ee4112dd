//! A device is held until the last write of a killed process has taken effect.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use io_uring::{opcode, types};
use raw_block_core::backend::lock_device;
use raw_block_core::conformance::Skipped;
use raw_block_core::{AlignedBuf, Dispatcher, OwnedTransfer, ReadAt};
use raw_block_fixtures::{KilledWriter, LoopDevice, temp_file};
use raw_block_uring::ring::{Linux, Lookup, Ring, RingDevice, Standard};
use raw_block_uring::{UringBackend, UringOptions};

const LEN: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// The offsets of the writes of the child. No two are adjacent, so that each write is a separate
/// op.
const OFFSETS: [u64; 8] =
    [0, 0x4000, 0x8000, 0xc000, 0x1_0000, 0x1_4000, 0x1_8000, LEN - BLOCK as u64];
const WRITTEN: u8 = 0xd1;

fn open(path: &Path) -> Dispatcher {
    let backend = UringBackend::open(path, &UringOptions::new()).unwrap();
    Dispatcher::new(Arc::new(backend)).unwrap()
}

/// The child: submits the writes, and waits to be killed.
fn write(path: &Path) -> ! {
    let dispatcher = open(path);
    let batch = OFFSETS.map(|offset| {
        let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
        buffer.fill(WRITTEN);
        OwnedTransfer::new(offset, buffer)
    });
    let _ticket = dispatcher.batched_write(batch.into()).unwrap();
    while dispatcher.stats().commands < OFFSETS.len() as u64 {
        thread::yield_now();
    }
    KilledWriter::wait_to_be_killed()
}

/// Whether another program can use the device: a file by a lock, a block device exclusively.
fn is_free(path: &Path) -> bool {
    let is_block_device = path.metadata().unwrap().file_type().is_block_device();
    let flags = if is_block_device { libc::O_EXCL } else { 0 };
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => is_block_device || file.try_lock().is_ok(),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => false,
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn assert_held_until_the_writes_land(test: &str, path: &Path) -> Result<(), Skipped> {
    let mut killed = KilledWriter::run(test, path)?;
    killed.wait()?;
    assert!(!is_free(path), "the process has ended, and its writes are in flight");
    let device = thread::scope(|scope| {
        let opening = scope.spawn(|| open(path));
        // Longer than opening waits for a running process.
        thread::sleep(Duration::from_millis(2200));
        killed.finish();
        opening.join().unwrap()
    });
    let mut found = AlignedBuf::zeroed(BLOCK).unwrap();
    for offset in OFFSETS {
        device.read_buffers(&mut [ReadAt::new(offset, &mut found)]).all().unwrap();
        let landed = found.iter().all(|&byte| byte == WRITTEN);
        assert!(landed, "the write at {offset:#x} may still land");
    }
    Ok(())
}

#[test]
fn a_file_is_locked_until_writes_of_a_killed_process_land() {
    if let Some(path) = KilledWriter::child() {
        write(&path);
    }
    let test = "a_file_is_locked_until_writes_of_a_killed_process_land";
    temp_file(LEN)
        .and_then(|file| assert_held_until_the_writes_land(test, file.path()))
        .unwrap_or_else(|skipped| skipped.report());
}

#[test]
fn a_block_device_is_held_until_writes_of_a_killed_process_land() {
    if let Some(path) = KilledWriter::child() {
        write(&path);
    }
    let test = "a_block_device_is_held_until_writes_of_a_killed_process_land";
    LoopDevice::attach(LEN, 512)
        .and_then(|device| assert_held_until_the_writes_land(test, device.path()))
        .unwrap_or_else(|skipped| skipped.report());
}

/// A file in the directory of that at `path`.
fn second(path: &Path) -> PathBuf {
    path.with_extension("second")
}

/// The child: submits a write through one file, in a ring that holds a second file, which is
/// locked.
fn write_holding_a_second_file(path: &Path) -> ! {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let locked = File::create(second(path)).unwrap();
    locked.try_lock().unwrap();
    let device = RingDevice::new(file, "test", None).unwrap().holding(locked);
    let mut ring = Ring::<Standard, ()>::open(Arc::new(device), 1, Linux).unwrap();
    let slot = ring.insert(()).unwrap();
    let buffer = AlignedBuf::zeroed(BLOCK).unwrap();
    let write = opcode::Write::new(types::Fixed(0), buffer.as_ptr(), 4096).build();
    // SAFETY: the buffer lives as long as the process, which is killed.
    unsafe { ring.push(slot, write, Lookup::Plain) };
    ring.enter(0, None);
    assert!(ring.is_submitted() && ring.take_completion().is_none());
    KilledWriter::wait_to_be_killed()
}

#[test]
fn a_ring_holds_a_second_file_until_its_last_write_lands() {
    if let Some(path) = KilledWriter::child() {
        write_holding_a_second_file(&path);
    }
    let test = "a_ring_holds_a_second_file_until_its_last_write_lands";
    let directory = match tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")) {
        Ok(directory) => directory,
        Err(error) => return Skipped::because(error).report(),
    };
    let path = directory.path().join("first");
    let mut file = File::create(&path).unwrap();
    file.write_all(&[0; BLOCK]).unwrap();
    file.sync_all().unwrap();
    let mut killed = match KilledWriter::run(test, &path) {
        Ok(killed) => killed,
        Err(skipped) => return skipped.report(),
    };
    if let Err(skipped) = killed.wait() {
        return skipped.report();
    }
    assert!(!is_free(&second(&path)), "the process has ended, and its write is in flight");
    killed.finish();
    lock_device(&File::open(second(&path)).unwrap(), false, "second").unwrap();
}

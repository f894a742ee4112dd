//! The handling of error numbers in completions.

use std::fs::File;

use raw_block_core::{AlignedBuf, Error, ErrorClass, ErrorKind, ReadAt};

use super::failures::{BLOCK, Stage, WRITES};
use super::scripted::OnResult;
use super::wrapped::{self, Usage};

fn errno(error: &Error) -> Option<i32> {
    error.os_error().and_then(std::io::Error::raw_os_error)
}

/// Reads a block. The thread that submits the read has ended before the first of `results` is
/// reaped.
fn read_for_an_ended_thread(
    stage: &Stage,
    results: &[OnResult],
) -> (Result<(), Error>, AlignedBuf) {
    let device = wrapped::dispatcher(stage.dispatcher.backend(), Usage::SubmittedElsewhere);
    let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
    stage.script(&[], results);
    let result = device.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all();
    (result, buffer)
}

#[test]
fn ops_that_the_kernel_cannot_start_run_on_the_calling_thread() {
    const CANCELED: OnResult = OnResult::Replace(-libc::ECANCELED);
    let stage = Stage::new();
    stage.script(&[], &[CANCELED; WRITES]);
    assert_eq!(stage.write(), [Ok(()); WRITES]);
    assert_eq!(stage.script.lock().unwrap().taken, WRITES, "tried once");
    assert_eq!(stage.written(), WRITES);

    stage.script(&[], &[CANCELED]);
    let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
    stage.dispatcher.read_buffers(&mut [ReadAt::new(8192, &mut buffer)]).all().unwrap();
    assert!(buffer.iter().all(|&byte| byte == 2));

    stage.script(&[], &[CANCELED; 3]);
    stage.dispatcher.flush().unwrap();
    stage.dispatcher.discard(0, 8192).unwrap();
    stage.dispatcher.write_zeroes(8192, 8192).unwrap();
    assert_eq!(stage.script.lock().unwrap().taken, 3);
    assert_eq!(stage.written(), WRITES - 2);
}

#[test]
fn ops_that_ended_with_their_thread_are_submitted_again() {
    for errno in [libc::EFAULT, libc::ECANCELED] {
        let stage = Stage::new();
        stage.write();
        let (result, buffer) = read_for_an_ended_thread(&stage, &[OnResult::Replace(-errno)]);
        result.unwrap();
        assert!(buffer.iter().all(|&byte| byte == 1));
        assert_eq!(stage.script.lock().unwrap().taken, 2, "errno {errno}");
    }
}

#[test]
fn the_ring_does_not_retry_bad_addresses_of_its_thread() {
    const BAD: OnResult = OnResult::Replace(-libc::EFAULT);
    let stage = Stage::new();
    // The dispatcher retries each transfer once, with its memory copied.
    stage.script(&[], &[BAD; 2 * WRITES]);
    for result in stage.try_write() {
        let error = result.unwrap_err();
        assert_eq!((errno(&error), error.class()), (Some(libc::EFAULT), ErrorClass::Failed));
    }
    assert_eq!(stage.script.lock().unwrap().taken, 2 * WRITES);
    let error = read_for_an_ended_thread(&stage, &[BAD; 4]).0.unwrap_err();
    assert_eq!((errno(&error), error.class()), (Some(libc::EFAULT), ErrorClass::Failed));
    assert_eq!(stage.script.lock().unwrap().taken, 4, "the ring retries each once");
}

#[test]
fn einval_after_progress_is_the_end_only_at_the_end() {
    let refused = [OnResult::Replace(512), OnResult::Replace(-libc::EINVAL)];
    let stage = Stage::new();
    let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
    let mut read = || {
        stage.script(&[], &refused);
        stage.dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap_err()
    };
    let error = read();
    assert_eq!((errno(&error), error.class()), (Some(libc::EINVAL), ErrorClass::Failed));
    File::options().write(true).open(stage.file.path()).unwrap().set_len(512).unwrap();
    assert_eq!(read().kind(), ErrorKind::EndOfDevice);
}

//! The handling of error numbers in completions.

use std::fs::File;
use std::thread;

use raw_block_core::{AlignedBuf, Error, ErrorClass, ErrorKind, Finished, OwnedTransfer, ReadAt};

use super::failures::{BLOCK, Stage, WRITES};
use super::scripted::OnResult;

fn errno(error: &Error) -> Option<i32> {
    error.os_error().and_then(std::io::Error::raw_os_error)
}

/// Reads a block with a ticket of another thread, which has ended before the first of `results` is
/// reaped.
fn read_for_an_ended_thread(stage: &Stage, results: &[OnResult]) -> Finished {
    for _ in 0..100 {
        stage.script(&[], results);
        let batch = vec![OwnedTransfer::new(0, AlignedBuf::zeroed(BLOCK).unwrap())];
        let start = || stage.dispatcher.batched_read(batch).unwrap();
        let ticket = thread::scope(|scope| scope.spawn(start).join().unwrap());
        if stage.script.lock().unwrap().results.len() == results.len() {
            return ticket.wait().remove(0);
        }
        // On a busy processor the read can complete before the thread that started it goes on.
        drop(ticket.wait());
    }
    panic!("each read completed before the thread that started it went on");
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
        let finished = read_for_an_ended_thread(&stage, &[OnResult::Replace(-errno)]);
        finished.result.unwrap();
        assert!(finished.buffer.iter().all(|&byte| byte == 1));
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
    let error = read_for_an_ended_thread(&stage, &[BAD; 3]).result.unwrap_err();
    assert_eq!((errno(&error), error.class()), (Some(libc::EFAULT), ErrorClass::Failed));
    assert_eq!(stage.script.lock().unwrap().taken, 3, "the ring retries the first");
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

//! Failures of the system call and of transfers, one at a time.

use std::sync::{Arc, Mutex};

use raw_block_core::conformance::fixture::TempFile;
use raw_block_core::{AlignedBuf, Dispatcher, Error, ErrorKind, ReadAt, WriteAt};

use super::scripted::{OnEnter, OnResult, Script, Scripted, backend};
use crate::width::Standard;

const BLOCK: usize = 4096;
const WRITES: usize = 8;

/// A device behind a script.
struct Stage {
    device: Dispatcher,
    script: Arc<Mutex<Script>>,
    _file: TempFile,
}

impl Stage {
    fn new() -> Self {
        let kernel = Scripted::default();
        let script = Arc::clone(&kernel.0);
        let (backend, file) = backend::<Standard>(1 << 20, kernel).unwrap();
        Self { device: Dispatcher::new(backend).unwrap(), script, _file: file }
    }

    fn script(&self, enters: &[OnEnter], results: &[OnResult]) {
        let mut script = self.script.lock().unwrap();
        script.enters = enters.iter().copied().collect();
        script.results = results.iter().copied().collect();
        (script.taken, script.calls) = (0, 0);
    }

    /// Writes blocks that are no neighbours, each full of its number, and says how each went.
    fn write(&self) -> Vec<Result<(), ErrorKind>> {
        let buffers: Vec<_> = (0..WRITES)
            .map(|number| {
                let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
                buffer.fill(u8::try_from(number).unwrap() + 1);
                buffer
            })
            .collect();
        let writes: Vec<_> =
            (0..).zip(&buffers).map(|(at, buffer)| WriteAt::new(at * 8192, buffer)).collect();
        let results = self.device.write_buffers(&writes);
        results.iter().map(|result| result.as_ref().copied().map_err(Error::kind)).collect()
    }

    /// How many of the blocks hold what [`write`](Self::write) puts there, read without any script.
    fn written(&self) -> usize {
        self.script(&[], &[]);
        let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
        (0..WRITES)
            .filter(|&number| {
                let read = ReadAt::new(number as u64 * 8192, &mut buffer);
                self.device.read_buffers(&mut [read]).all().unwrap();
                buffer.iter().all(|&byte| usize::from(byte) == number + 1)
            })
            .count()
    }
}

#[test]
fn a_system_call_that_fails_in_passing_loses_and_repeats_nothing() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        let stage = Stage::new();
        stage.script(&[OnEnter::Fail(errno); 3], &[]);
        assert_eq!(stage.write(), [Ok(()); WRITES], "errno {errno}");
        assert_eq!(stage.script.lock().unwrap().taken, WRITES);
        assert!(stage.script.lock().unwrap().calls > 3);
        assert_eq!(stage.written(), WRITES);
    }
}

#[test]
fn a_partial_submission_loses_and_repeats_nothing() {
    let stage = Stage::new();
    let (none, some) = (OnEnter::Take(0), OnEnter::Take(3));
    stage.script(&[some, none, OnEnter::Fail(libc::EINTR), some], &[]);
    assert_eq!(stage.write(), [Ok(()); WRITES]);
    assert_eq!(stage.script.lock().unwrap().taken, WRITES);
    assert_eq!(stage.written(), WRITES);
    let stats = stage.device.stats();
    assert_eq!((stats.retries, stats.registered_ops), (0, 0));
}

#[test]
fn want_of_memory_that_does_not_end_fails_the_batch() {
    for errno in [libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        let stage = Stage::new();
        stage.script.lock().unwrap().fails_for_ever = Some(errno);
        assert!(stage.write().iter().all(Result::is_err), "errno {errno}");
        stage.script.lock().unwrap().fails_for_ever = None;
        assert_eq!(stage.written(), 0);
        assert_eq!(stage.write(), [Ok(()); WRITES], "with a new ring");
    }
}

#[test]
fn a_ring_that_breaks_fails_what_the_kernel_did_not_take_and_nothing_else() {
    let stage = Stage::new();
    stage.script(&[OnEnter::Take(3), OnEnter::Fail(libc::EBADF)], &[]);
    let results = stage.write();
    let kept = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(kept, 3, "{results:?}");
    assert_eq!(stage.written(), 3);
    assert_eq!(stage.write(), [Ok(()); WRITES], "with a new ring");
}

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    let stage = Stage::new();
    let short = OnResult::Replace(512);
    stage.script(&[], &[short, OnResult::Keep, OnResult::Replace(2048), short]);
    assert_eq!(stage.write(), [Ok(()); WRITES]);
    assert_eq!(stage.device.stats().retries, 3);
    assert_eq!(stage.script.lock().unwrap().taken, WRITES + 3);
    assert_eq!(stage.written(), WRITES);
}

#[test]
fn a_transfer_without_progress_ends_at_once() {
    let stage = Stage::new();
    stage.script(&[], &[OnResult::Keep, OnResult::Replace(0)]);
    let results = stage.write();
    let failed: Vec<_> = results.iter().filter_map(|result| result.err()).collect();
    assert_eq!(failed, [ErrorKind::EndOfDevice]);
    assert_eq!(stage.script.lock().unwrap().taken, WRITES);
}

#[test]
fn a_transfer_that_fails_in_passing_is_repeated_but_not_for_ever() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
        let stage = Stage::new();
        stage.script(&[], &[OnResult::Replace(-errno); 2 * WRITES]);
        assert_eq!(stage.write(), [Ok(()); WRITES], "errno {errno}");
        assert_eq!(stage.device.stats().retries, 2 * WRITES as u64);
        stage.script(&[], &[OnResult::Replace(-errno); 10_000]);
        assert!(stage.write().iter().all(Result::is_err), "errno {errno}");
        assert!(stage.script.lock().unwrap().taken < 20 * WRITES, "the end came soon");
    }
}

#[test]
fn an_error_of_one_transfer_leaves_its_neighbours_alone() {
    let stage = Stage::new();
    stage.script(&[], &[OnResult::Keep, OnResult::Replace(-libc::EIO)]);
    let results = stage.write();
    let failed: Vec<_> = results.iter().filter_map(|result| result.err()).collect();
    assert_eq!(failed, [ErrorKind::Io]);
}

#[test]
fn zeroes_that_the_ring_cannot_write_are_written_without_it() {
    let stage = Stage::new();
    stage.write();
    for (errno, at) in [(libc::EOPNOTSUPP, 0), (libc::EINVAL, 1), (libc::EBUSY, 2)] {
        stage.script(&[], &[OnResult::Replace(-errno)]);
        stage.device.write_zeroes(at * 8192, 8192).unwrap();
        assert_eq!(stage.script.lock().unwrap().taken, 1);
    }
    assert_eq!(stage.written(), WRITES - 3);
}

#[test]
fn a_flush_that_the_ring_cannot_do_is_done_without_it_and_a_failed_one_is_not() {
    let stage = Stage::new();
    stage.script(&[], &[OnResult::Replace(-libc::EINVAL)]);
    stage.device.flush().unwrap();
    assert_eq!(stage.script.lock().unwrap().taken, 1);
    stage.script(&[], &[OnResult::Replace(-libc::EIO)]);
    assert_eq!(stage.device.flush().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_discard_that_the_ring_cannot_do_is_done_without_it() {
    let stage = Stage::new();
    stage.write();
    stage.script(&[], &[OnResult::Replace(-libc::EOPNOTSUPP)]);
    stage.device.discard(0, 8192).unwrap();
    assert_eq!(stage.script.lock().unwrap().taken, 1);
    assert_eq!(stage.written(), WRITES - 1);
}

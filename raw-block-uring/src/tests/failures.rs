//! Failures of the system call and of transfers, one at a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use raw_block_core::{AlignedBuf, Dispatcher, Error, ErrorClass, ErrorKind, ReadAt, WriteAt};
use raw_block_fixtures::TempFile;

use super::scripted::{OnEnter, OnResult, Script, Scripted, backend};
use crate::ring::Standard;

pub(super) const BLOCK: usize = 4096;
pub(super) const WRITES: usize = 8;

/// A dispatcher over a backend with a scripted kernel.
pub(super) struct Stage {
    pub(super) dispatcher: Dispatcher,
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) file: TempFile,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(None)
    }

    /// With `idle`, a kernel thread polls for submissions.
    pub(super) fn with(idle: Option<Duration>) -> Self {
        let kernel = Scripted::default();
        let script = Arc::clone(&kernel.0);
        let (backend, file) = backend::<Standard>(1 << 20, kernel, idle).unwrap();
        Self { dispatcher: Dispatcher::new(backend).unwrap(), script, file }
    }

    pub(super) fn script(&self, enters: &[OnEnter], results: &[OnResult]) {
        let mut script = self.script.lock().unwrap();
        script.enters = enters.iter().copied().collect();
        script.results = results.iter().copied().collect();
        (script.taken, script.calls) = (0, 0);
    }

    /// Writes blocks that are not adjacent, each filled with its number. Returns the kinds of the
    /// errors.
    pub(super) fn write(&self) -> Vec<Result<(), ErrorKind>> {
        let results = self.try_write();
        results.iter().map(|result| result.as_ref().copied().map_err(Error::kind)).collect()
    }

    /// As [`write`](Self::write), with the errors.
    pub(super) fn try_write(&self) -> Vec<Result<(), Error>> {
        let buffers: Vec<_> = (0..WRITES)
            .map(|number| {
                let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
                buffer.fill(u8::try_from(number).unwrap() + 1);
                buffer
            })
            .collect();
        let writes: Vec<_> =
            (0..).zip(&buffers).map(|(at, buffer)| WriteAt::new(at * 8192, buffer)).collect();
        self.dispatcher.write_buffers(&writes).to_vec()
    }

    /// The number of blocks with the contents from [`write`](Self::write), read without a script.
    pub(super) fn written(&self) -> usize {
        self.script(&[], &[]);
        let mut buffer = AlignedBuf::zeroed(BLOCK).unwrap();
        (0..WRITES)
            .filter(|&number| {
                let read = ReadAt::new(number as u64 * 8192, &mut buffer);
                self.dispatcher.read_buffers(&mut [read]).all().unwrap();
                buffer.iter().all(|&byte| usize::from(byte) == number + 1)
            })
            .count()
    }
}

#[test]
fn a_transient_failure_of_a_call_loses_and_repeats_nothing() {
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
    let stats = stage.dispatcher.stats();
    assert_eq!((stats.retries, stats.registered_ops), (0, 0));
}

#[test]
fn an_entry_that_does_not_fit_waits_for_space() {
    for idle in [None, Some(Duration::from_secs(10))] {
        let stage = Stage::with(idle);
        for free_entries in [[0; 20].as_slice(), &[1, 1, 0, 0, 1, 0], &[1, 0, 0]] {
            stage.script(&[], &[]);
            let before = stage.dispatcher.stats();
            stage.script.lock().unwrap().free_entries = free_entries.iter().copied().collect();
            assert_eq!(stage.write(), [Ok(()); WRITES], "{free_entries:?}, polled after {idle:?}");
            let stats = stage.dispatcher.stats();
            assert_eq!(stats.commands - before.commands, WRITES as u64);
            assert_eq!(stage.written(), WRITES);
        }
    }
}

#[test]
fn an_entry_that_waits_when_the_ring_breaks_was_not_started() {
    let stage = Stage::new();
    stage.script(&[OnEnter::Take(3), OnEnter::Fail(libc::EBADF)], &[]);
    stage.script.lock().unwrap().free_entries = [1, 1, 1, 1, 0, 0].into();
    let errors: Vec<_> = stage.try_write().into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), WRITES - 3);
    assert!(errors.iter().all(|error| error.class() == ErrorClass::NotStarted), "{errors:?}");
    assert_eq!(stage.written(), 3);
    assert_eq!(stage.write(), [Ok(()); WRITES], "with a new ring");
}

#[test]
fn a_lasting_lack_of_memory_fails_the_batch() {
    for errno in [libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        let stage = Stage::new();
        stage.script.lock().unwrap().always_fails = Some(errno);
        assert!(stage.write().iter().all(Result::is_err), "errno {errno}");
        stage.script.lock().unwrap().always_fails = None;
        assert_eq!(stage.written(), 0);
        assert_eq!(stage.write(), [Ok(()); WRITES], "with a new ring");
    }
}

#[test]
fn a_broken_ring_fails_only_what_the_kernel_did_not_take() {
    let stage = Stage::new();
    stage.script(&[OnEnter::Take(3), OnEnter::Fail(libc::EBADF)], &[]);
    let results = stage.write();
    let kept = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(kept, 3, "{results:?}");
    assert_eq!(stage.written(), 3);
    assert_eq!(stage.write(), [Ok(()); WRITES], "with a new ring");
}

#[test]
fn a_short_transfer_continues_where_it_stopped() {
    let stage = Stage::new();
    let short = OnResult::Replace(512);
    stage.script(&[], &[short, OnResult::Keep, OnResult::Replace(2048), short]);
    assert_eq!(stage.write(), [Ok(()); WRITES]);
    assert_eq!(stage.dispatcher.stats().retries, 3);
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
fn a_transient_failure_of_a_transfer_is_repeated_with_a_limit() {
    for errno in [libc::EINTR, libc::EAGAIN] {
        let stage = Stage::new();
        stage.script(&[], &[OnResult::Replace(-errno); 2 * WRITES]);
        assert_eq!(stage.write(), [Ok(()); WRITES], "errno {errno}");
        assert_eq!(stage.dispatcher.stats().retries, 2 * WRITES as u64);
        stage.script(&[], &[OnResult::Replace(-errno); 10_000]);
        assert!(stage.write().iter().all(Result::is_err), "errno {errno}");
        assert!(
            stage.script.lock().unwrap().taken < 20 * WRITES,
            "the number of retries is bounded"
        );
    }
}

#[test]
fn an_error_of_one_transfer_does_not_affect_others() {
    let stage = Stage::new();
    stage.script(&[], &[OnResult::Keep, OnResult::Replace(-libc::EIO)]);
    let results = stage.write();
    let failed: Vec<_> = results.iter().filter_map(|result| result.err()).collect();
    assert_eq!(failed, [ErrorKind::Io]);
}

#[test]
fn zeroes_that_the_ring_cannot_write_are_written_by_a_call() {
    let stage = Stage::new();
    stage.write();
    for (errno, at) in [(libc::EOPNOTSUPP, 0), (libc::EINVAL, 1), (libc::EBUSY, 2)] {
        stage.script(&[], &[OnResult::Replace(-errno)]);
        stage.dispatcher.write_zeroes(at * 8192, 8192).unwrap();
        assert_eq!(stage.script.lock().unwrap().taken, 1);
    }
    assert_eq!(stage.written(), WRITES - 3);
}

#[test]
fn an_unsupported_flush_uses_a_call_and_a_failed_one_does_not() {
    let stage = Stage::new();
    stage.script(&[], &[OnResult::Replace(-libc::EINVAL)]);
    stage.dispatcher.flush().unwrap();
    assert_eq!(stage.script.lock().unwrap().taken, 1);
    stage.script(&[], &[OnResult::Replace(-libc::EIO)]);
    assert_eq!(stage.dispatcher.flush().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_discard_that_the_ring_cannot_do_is_done_by_a_call() {
    let stage = Stage::new();
    stage.write();
    stage.script(&[], &[OnResult::Replace(-libc::EOPNOTSUPP)]);
    stage.dispatcher.discard(0, 8192).unwrap();
    assert_eq!(stage.script.lock().unwrap().taken, 1);
    assert_eq!(stage.written(), WRITES - 1);
}

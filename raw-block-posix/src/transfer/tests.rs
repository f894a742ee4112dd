use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::errno::Errno::{EAGAIN, EINTR, EINVAL, EIO, ENOLINK, ETIMEDOUT};
use raw_block_core::backend::{FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::{AlignedBuf, Dispatcher, Error, ErrorKind, Geometry, ReadAt, WriteAt};

use super::*;

/// The length of the device when it was opened.
const LEN: u64 = 1 << 20;

/// The results of system calls.
#[derive(Default)]
struct Script {
    /// The results of the transfers, in order.
    answers: VecDeque<nix::Result<usize>>,
    /// The current length of the device.
    len: u64,
}

/// A device whose system calls have scripted results.
struct Scripted {
    geometry: Geometry,
    stats: Stats,
    flush_state: FlushState,
    script: Arc<Mutex<Script>>,
}

struct ScriptedQueue {
    script: Arc<Mutex<Script>>,
    ops: Vec<Op>,
}

impl IoBackend for Scripted {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    fn open_queue(&self, _depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(ScriptedQueue { script: Arc::clone(&self.script), ops: Vec::new() }))
    }
}

impl IoQueue for ScriptedQueue {
    fn depth(&self) -> usize {
        1
    }

    fn in_flight(&self) -> usize {
        self.ops.len()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        self.ops.extend(ops.pop_front());
    }

    fn start(&mut self) {}

    fn reap(&mut self, _min: usize, _deadline: Option<Instant>, done: &mut Vec<Completion>) {
        for op in self.ops.drain(..) {
            let script = || self.script.lock().unwrap();
            let (completion, counts) = move_all(
                op,
                || script().len,
                |op| {
                    assert!(!op.is_empty(), "a call for an op that has completed");
                    script().answers.pop_front().unwrap()
                },
            );
            assert_eq!(counts.calls, counts.retries + 1, "each call except the first is a retry");
            done.push(completion);
        }
    }
}

/// Executes a transfer on a device with these results, all of which must be used, and this current
/// length. Also returns how each call accessed the memory.
fn scripted(
    answers: impl IntoIterator<Item = nix::Result<usize>>,
    len: u64,
    transfer: impl FnOnce(&Dispatcher) -> Result<(), Error>,
) -> Result<(), Error> {
    let script = Script { answers: answers.into_iter().collect(), len };
    let script = Arc::new(Mutex::new(script));
    let geometry = Geometry::new(LEN, 512).unwrap();
    let backend = Scripted {
        geometry,
        stats: Stats::new(),
        flush_state: FlushState::new(),
        script: Arc::clone(&script),
    };
    let result = transfer(&Dispatcher::new(Arc::new(backend)).unwrap());
    let script = std::mem::take(&mut *script.lock().unwrap());
    assert!(script.answers.is_empty(), "not all results were used");
    result
}

fn read_block(dispatcher: &Dispatcher) -> Result<(), Error> {
    let mut buffer = AlignedBuf::zeroed(4096).unwrap();
    dispatcher.read_buffers(&mut [ReadAt::new(8192, &mut buffer)]).all()
}

fn write_block(dispatcher: &Dispatcher) -> Result<(), Error> {
    let buffer = AlignedBuf::zeroed(4096).unwrap();
    dispatcher.write_buffers(&[WriteAt::new(8192, &buffer)]).all()
}

/// Reads 4096 bytes from byte 8192 on.
fn read(answers: impl IntoIterator<Item = nix::Result<usize>>) -> Result<(), Error> {
    scripted(answers, LEN, read_block)
}

/// Writes 4096 bytes from byte 8192 on.
fn write(answers: impl IntoIterator<Item = nix::Result<usize>>) -> Result<(), Error> {
    scripted(answers, LEN, write_block)
}

#[test]
fn short_transfers_continue_where_they_ended() {
    read([Ok(512), Ok(1024), Ok(2560)]).unwrap();
    // A transfer through the page cache may also end inside a block, and continue there.
    read([Ok(1), Ok(4095)]).unwrap();
}

#[test]
fn interrupted_calls_are_repeated() {
    read([Err(EINTR), Err(EINTR), Ok(512), Err(EINTR), Ok(3584)]).unwrap();
}

#[test]
fn a_device_without_resources_is_retried_for_a_bounded_time() {
    read([Err(EAGAIN), Err(EAGAIN), Ok(4096)]).unwrap();
    let error = read([Err(EAGAIN); MAX_EAGAIN as usize + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[test]
fn no_progress_is_the_end_of_the_device() {
    for answers in [vec![Ok(0)], vec![Ok(512), Ok(0)]] {
        assert_eq!(read(answers).unwrap_err().kind(), ErrorKind::EndOfDevice);
    }
}

#[test]
fn a_write_without_progress_fails() {
    assert_eq!(write([Ok(512), Ok(0)]).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_read_that_ends_inside_a_block_is_at_the_end_of_the_device() {
    let shorter = 8192 + 100;
    let error = scripted([Ok(100), Err(EINVAL)], shorter, read_block).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EndOfDevice);
    assert_eq!((error.offset(), error.length()), (Some(8292), Some(3996)));
}

#[test]
fn an_invalid_read_before_the_end_of_the_device_is_an_error() {
    for answers in [vec![Err(EINVAL)], vec![Ok(100), Err(EINVAL)], vec![Ok(512), Err(EINVAL)]] {
        let error = read(answers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("Invalid argument"), "{error}");
    }
}

#[test]
fn only_a_device_without_an_answer_leaves_a_write_unknown() {
    for errno in [EIO, EINVAL] {
        assert_eq!(write([Err(errno)]).unwrap_err().class(), ErrorClass::Failed, "{errno}");
    }
    // A part is written, whatever happens to the rest.
    let busy = std::iter::once(Ok(512)).chain([Err(EAGAIN); MAX_EAGAIN as usize + 1]);
    assert_eq!(write(busy).unwrap_err().class(), ErrorClass::Failed);
    for errno in [ETIMEDOUT, ENOLINK] {
        assert_eq!(write([Err(errno)]).unwrap_err().class(), ErrorClass::Unknown, "{errno}");
        assert_eq!(read([Err(errno)]).unwrap_err().class(), ErrorClass::Failed, "{errno}");
    }
}

#[test]
fn an_error_ends_the_transfer_and_has_its_range() {
    let error = read([Ok(512), Err(EIO)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!((error.offset(), error.length()), (Some(8704), Some(3584)));
}

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::errno::Errno::{EAGAIN, EINTR, EINVAL, EIO};
use raw_block_core::{
    AlignedBuf, Dispatcher, Error, ErrorKind, FlushState, Geometry, IoBackend, IoQueue, ReadAt,
    Stats,
};

use super::*;

/// What the system answers, one call after the other.
type Answers = VecDeque<nix::Result<usize>>;

/// A device whose system calls answer what a test says.
struct Scripted {
    geometry: Geometry,
    stats: Stats,
    flush_state: FlushState,
    answers: Arc<Mutex<Answers>>,
}

struct ScriptedQueue {
    answers: Arc<Mutex<Answers>>,
    ops: Vec<Op>,
}

impl IoBackend for Scripted {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn device(&self) -> &'static str {
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
        Ok(Box::new(ScriptedQueue { answers: Arc::clone(&self.answers), ops: Vec::new() }))
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
            let mut answers = self.answers.lock().unwrap();
            let (completion, effort) = move_all(op, 512, |op| {
                assert!(!op.is_empty(), "nothing is left to ask for");
                answers.pop_front().unwrap()
            });
            assert_eq!(effort.calls, effort.repeats + 1, "each call but the first is a repeat");
            done.push(completion);
        }
    }
}

/// Reads 4096 bytes from a device that answers like this; all answers have to be asked for.
fn read(answers: impl IntoIterator<Item = nix::Result<usize>>) -> Result<(), Error> {
    let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
    let geometry = Geometry::new(1 << 20, 512).unwrap();
    let backend = Scripted {
        geometry,
        stats: Stats::new(),
        flush_state: FlushState::new(),
        answers: Arc::clone(&answers),
    };
    let device = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut buffer = AlignedBuf::zeroed(4096).unwrap();
    let result = device.read_buffers(&mut [ReadAt::new(8192, &mut buffer)]).all();
    assert!(answers.lock().unwrap().is_empty(), "not all answers were asked for");
    result
}

#[test]
fn short_transfers_continue_where_they_ended() {
    read([Ok(512), Ok(1024), Ok(2560)]).unwrap();
    // The page cache also ends inside a block, and takes the rest.
    read([Ok(1), Ok(4095)]).unwrap();
}

#[test]
fn interrupted_calls_are_repeated() {
    read([Err(EINTR), Err(EINTR), Ok(512), Err(EINTR), Ok(3584)]).unwrap();
}

#[test]
fn a_device_without_resources_is_asked_again_for_a_bounded_time() {
    read([Err(EAGAIN), Err(EAGAIN), Ok(4096)]).unwrap();
    let error = read([Err(EAGAIN); AGAIN_LIMIT as usize + 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[test]
fn no_progress_is_the_end_of_the_device() {
    for answers in [vec![Ok(0)], vec![Ok(512), Ok(0)]] {
        assert_eq!(read(answers).unwrap_err().kind(), ErrorKind::EndOfDevice);
    }
}

#[test]
fn a_read_that_cannot_go_on_inside_a_block_is_at_the_end_of_the_device() {
    let error = read([Ok(100), Err(EINVAL)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EndOfDevice);
    assert_eq!(error.place(), Some((8292, 3996)));
    let error = read([Ok(512), Err(EINVAL)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn an_error_ends_the_transfer_and_says_where() {
    let error = read([Ok(512), Err(EIO)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.place(), Some((8704, 3584)));
}

//! A batch of writes is in flight while its caller does other work.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fakes::{Behaviour, Gate, Gated, blocks, first_queue, kinds, place, within_seconds, writes};
use raw_block_core::backend::{Completion, IoQueue, OpKind};
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{Dispatcher, ErrorKind, Geometry, MemoryBackend, ReadAt, WriteAt};

/// What happened, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;

/// A queue that logs its calls.
struct Logging(Log);

impl Behaviour for Logging {
    fn submit(
        &mut self,
        honest: &mut dyn IoQueue,
        ops: &mut VecDeque<raw_block_core::backend::Op>,
    ) {
        if !ops.is_empty() {
            self.0.lock().unwrap().push("submit");
        }
        honest.submit(ops);
    }

    fn start(&mut self, honest: &mut dyn IoQueue) {
        self.0.lock().unwrap().push("start");
        honest.start();
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        if min > 0 {
            self.0.lock().unwrap().push("wait");
        }
        honest.reap(min, deadline, done);
    }
}

/// A queue that breaks when its ops are started, and fails them.
#[derive(Default)]
struct BreaksInStart {
    held: VecDeque<raw_block_core::backend::Op>,
    broken: bool,
}

impl Behaviour for BreaksInStart {
    fn submit(&mut self, _: &mut dyn IoQueue, ops: &mut VecDeque<raw_block_core::backend::Op>) {
        if !self.broken {
            self.held.append(ops);
        }
    }

    fn start(&mut self, _: &mut dyn IoQueue) {
        self.broken = true;
    }

    fn reap(
        &mut self,
        _: &mut dyn IoQueue,
        _: usize,
        _: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        let failed =
            |op: raw_block_core::backend::Op| op.fail(std::io::Error::from_raw_os_error(5));
        done.extend(self.held.drain(..).map(failed));
    }

    fn in_flight(&self, _: &dyn IoQueue) -> usize {
        self.held.len()
    }

    fn depth(&self, honest: &dyn IoQueue) -> usize {
        if self.broken { 0 } else { honest.depth() }
    }
}

fn assert_written(device: &Dispatcher, blocks: &[[u8; 512]]) {
    for (number, block) in (0..).zip(blocks) {
        let mut found = [0; 512];
        device.read_buffers(&mut [ReadAt::new(place(number), &mut found)]).all().unwrap();
        assert_eq!(&found, block, "block {number}");
    }
}

#[test]
fn writes_start_before_the_work_and_are_waited_for_after_it() {
    let log = Log::default();
    let shared = Arc::clone(&log);
    let device = first_queue(move || Logging(Arc::clone(&shared)));
    let blocks = blocks(3);
    let work = || log.lock().unwrap().push("work");
    device.write_buffers_while(&writes(&blocks), work).0.all().unwrap();
    assert_eq!(*log.lock().unwrap(), ["submit", "start", "work", "wait"]);
    assert_written(&device, &blocks);
}

#[test]
fn work_can_be_what_the_writes_wait_for() {
    within_seconds(|| {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        let device = first_queue(move || Gated::new(&shared));
        // More than the queue holds.
        let blocks = blocks(40);
        device.write_buffers_while(&writes(&blocks), || gate.open()).0.all().unwrap();
        assert_written(&device, &blocks);
    });
}

#[test]
fn each_write_during_work_has_its_own_result() {
    let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512).unwrap(), 3).unwrap();
    let device = Dispatcher::new(simulated.backend()).unwrap();
    let blocks = blocks(4);
    // Neighbours, which are merged, and repeated when the merge failed.
    let batch: Vec<_> =
        (0..).zip(&blocks).map(|(number, block)| WriteAt::new(512 * number, block)).collect();
    simulated.inject(DeviceFault::fail(OpKind::Write, 5).within(1024..1025));
    let (written, answer) = device.write_buffers_while(&batch, || 7);
    assert_eq!(kinds(&written[..]), [None, None, Some(ErrorKind::Io), None]);
    assert_eq!(answer, 7);
}

#[test]
fn work_is_called_when_its_batch_cannot_be_started() {
    let memory = Arc::new(MemoryBackend::new(1 << 20).unwrap());
    let device = Dispatcher::read_only(memory).unwrap();
    let blocks = blocks(2);
    let (written, answer) = device.write_buffers_while(&writes(&blocks), || 7);
    assert_eq!(kinds(&written[..]), [Some(ErrorKind::PermissionDenied); 2]);
    assert_eq!(answer, 7);
}

#[test]
fn a_queue_that_breaks_as_it_starts_fails_its_writes() {
    within_seconds(|| {
        let device = first_queue(BreaksInStart::default);
        let blocks = blocks(3);
        let (written, answer) = device.write_buffers_while(&writes(&blocks), || 7);
        assert_eq!(kinds(&written[..]), [Some(ErrorKind::Io); 3]);
        assert_eq!(answer, 7);
        device.write_buffers(&writes(&blocks)).all().unwrap();
    });
}

#[test]
fn a_panic_of_work_completes_the_writes_before_it_goes_on() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512).unwrap(), 3).unwrap();
        let device = Dispatcher::new(simulated.backend()).unwrap();
        let blocks = blocks(5);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            // Unlike `panic!`, this prints nothing.
            let panic = || resume_unwind(Box::new("as scripted"));
            device.write_buffers_while(&writes(&blocks), || -> () { panic() })
        }));
        assert!(panicked.is_err());
        assert_eq!(simulated.ops_so_far(), 5, "writes were in flight when the caller went on");
        assert_written(&device, &blocks);
        device.flush().unwrap();
    });
}

//! Ops made by hand, and a queue whose every step is checked.

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use super::Subject;
use super::bytes::aligned;
use crate::backend::{BatchMemory, Segment};
use crate::backend::{Completion, IoQueue, Op, OpKind};
use crate::{AlignedBuf, Error, OwnedTransfer};

/// Memory that one op points into.
#[derive(Debug)]
pub(super) struct Memory(Arc<BatchMemory>);

impl Memory {
    /// Whether no op has it any more.
    pub(super) fn is_released(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The bytes, once no op has them any more.
    #[track_caller]
    pub(super) fn bytes(self) -> AlignedBuf {
        let memory = Arc::try_unwrap(self.0).expect("the memory of a completed op is released");
        let transfer = memory.owned.into_iter().next();
        transfer.and_then(|owned| owned.buffer.try_into().ok()).unwrap_or_default()
    }
}

/// An op over `parts` of `buffer`, in their order.
pub(super) fn op(
    kind: OpKind,
    index: u32,
    offset: u64,
    buffer: AlignedBuf,
    parts: &[Range<usize>],
) -> (Op, Memory) {
    let mut sorted = parts.to_vec();
    sorted.sort_unstable_by_key(|part| part.start);
    assert!(sorted.is_sorted_by(|a, b| a.end <= b.start), "the parts overlap");
    assert!(sorted.last().is_none_or(|last| last.end <= buffer.len()), "a part is outside");

    let start = buffer.start().as_ptr();
    let segments = parts.iter().map(|part| {
        let iov_base = start.wrapping_add(part.start).cast();
        Segment(libc::iovec { iov_base, iov_len: part.len() })
    });
    let mut memory = Arc::new(BatchMemory {
        segments: segments.collect(),
        owned: vec![OwnedTransfer::new(offset, buffer)],
        ..BatchMemory::default()
    });
    let list = Arc::get_mut(&mut memory).unwrap().segments.as_mut_slice();
    let (list, shared) = (NonNull::from(list), Arc::clone(&memory));
    let len = parts.iter().map(|part| part.len() as u64).sum();
    // SAFETY: the list is `memory.segments`, and this is its only op. Its segments are parts of the
    // buffer in `memory` that do not overlap, and `Memory` gives the buffer out only when this op
    // was dropped.
    (unsafe { Op::new(kind, index, offset, len, list, shared) }, Memory(memory))
}

/// An op without memory.
pub(super) fn bare_op(kind: OpKind, index: u32, offset: u64, len: u64) -> (Op, Memory) {
    let memory = Arc::default();
    let (list, shared) = (NonNull::from(&mut [][..]), Arc::clone(&memory));
    // SAFETY: there are no segments.
    (unsafe { Op::new(kind, index, offset, len, list, shared) }, Memory(memory))
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    InFlight,
    Over,
}

struct Entry {
    kind: OpKind,
    stage: Stage,
    memory: Option<Memory>,
}

/// A queue and the ops given to it. Checks after each step that the queue keeps its contract.
pub(super) struct Driver {
    pub(super) queue: Box<dyn IoQueue>,
    waiting: VecDeque<Op>,
    entries: Vec<Entry>,
}

impl Driver {
    pub(super) fn open(subject: &Subject, depth: usize) -> Self {
        Self::new(subject.queue(depth))
    }

    /// With a queue that any thread may use, whatever those of the subject are.
    pub(super) fn open_shared(subject: &Subject, depth: usize) -> Self {
        Self::new(subject.backend.open_queue(depth).unwrap())
    }

    pub(super) fn new(queue: Box<dyn IoQueue>) -> Self {
        Self { queue, waiting: VecDeque::new(), entries: Vec::new() }
    }

    /// Lines up a write. Returns the op's number, as do the other functions that line up an op.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> usize {
        let whole = 0..bytes.len();
        self.add_with_memory(OpKind::Write, offset, aligned(bytes), &[whole])
    }

    /// Lines up a read.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> usize {
        // What a read leaves untouched must not look like what was read.
        let whole = 0..len;
        self.add_with_memory(OpKind::Read, offset, aligned(&vec![0xEE; len]), &[whole])
    }

    pub(super) fn add_with_memory(
        &mut self,
        kind: OpKind,
        offset: u64,
        buffer: AlignedBuf,
        parts: &[Range<usize>],
    ) -> usize {
        let (op, memory) = op(kind, self.entries.len() as u32, offset, buffer, parts);
        self.add(kind, op, memory)
    }

    /// Lines up an op without memory.
    pub(super) fn bare(&mut self, kind: OpKind, offset: u64, len: u64) -> usize {
        let (op, memory) = bare_op(kind, self.entries.len() as u32, offset, len);
        self.add(kind, op, memory)
    }

    fn add(&mut self, kind: OpKind, op: Op, memory: Memory) -> usize {
        self.waiting.push_back(op);
        self.entries.push(Entry { kind, stage: Stage::Waiting, memory: Some(memory) });
        self.entries.len() - 1
    }

    /// Offers what waits to the queue. Returns how many ops it accepted.
    #[track_caller]
    pub(super) fn submit(&mut self) -> usize {
        let in_flight = self.queue.in_flight();
        let offered: Vec<_> = self.waiting.iter().map(|op| op.index).collect();
        self.queue.submit(&mut self.waiting);
        let left: Vec<_> = self.waiting.iter().map(|op| op.index).collect();
        assert!(offered.ends_with(&left), "ops are taken from the front, the others stay in order");
        let accepted = offered.len() - left.len();
        for &index in &offered[..accepted] {
            self.entries[index as usize].stage = Stage::InFlight;
        }
        assert_eq!(self.queue.in_flight(), in_flight + accepted, "what was accepted is in flight");
        assert!(self.queue.in_flight() <= self.queue.depth(), "more in flight than the depth");
        accepted
    }

    /// Starts what was accepted.
    #[track_caller]
    pub(super) fn start(&mut self) {
        let in_flight = self.queue.in_flight();
        self.queue.start();
        assert_eq!(self.queue.in_flight(), in_flight, "starting accepts nothing and gives nothing");
    }

    /// Reaps. Returns how many ops ended; all of them must have ended well.
    #[track_caller]
    pub(super) fn reap(&mut self, min: usize, deadline: Option<Instant>) -> usize {
        let results = self.reap_results(min, deadline);
        for (index, result) in &results {
            assert!(result.is_ok(), "op {index}: {result:?}");
        }
        results.len()
    }

    /// Reaps. Returns the numbers and the results of the ops that ended.
    #[track_caller]
    pub(super) fn reap_results(
        &mut self,
        min: usize,
        deadline: Option<Instant>,
    ) -> Vec<(usize, Result<(), Error>)> {
        let in_flight = self.queue.in_flight();
        let results = self.reap_until(min, deadline);
        if deadline.is_none() {
            assert!(results.len() >= min.min(in_flight), "fewer ops were reaped than asked for");
        }
        results
    }

    /// Reaps from a queue that may have been woken. Returns how many ops ended; all of them must
    /// have ended well.
    #[track_caller]
    pub(super) fn reap_woken(&mut self, min: usize) -> usize {
        let results = self.reap_until(min, None);
        for (index, result) in &results {
            assert!(result.is_ok(), "op {index}: {result:?}");
        }
        results.len()
    }

    #[track_caller]
    fn reap_until(
        &mut self,
        min: usize,
        deadline: Option<Instant>,
    ) -> Vec<(usize, Result<(), Error>)> {
        let in_flight = self.queue.in_flight();
        let mut done = Vec::new();
        self.queue.reap(min, deadline, &mut done);
        assert!(done.len() <= in_flight, "more ops were reaped than were in flight");
        assert_eq!(self.queue.in_flight(), in_flight - done.len(), "reaped ops are not in flight");
        done.into_iter().map(|completion| self.settle(completion)).collect()
    }

    #[track_caller]
    fn settle(&mut self, completion: Completion) -> (usize, Result<(), Error>) {
        let Completion { op, result } = completion;
        let index = op.index as usize;
        let entry = &mut self.entries[index];
        assert_eq!(entry.stage, Stage::InFlight, "op {index} ended, and was not in flight");
        assert_eq!(op.kind(), entry.kind, "op {index} became something else");
        let memory = entry.memory.as_ref().unwrap();
        assert!(op.points_into(&memory.0), "op {index} came back as another one");
        drop(op);
        assert!(memory.is_released(), "op {index} has completed, and its memory is still in use");
        entry.stage = Stage::Over;
        (index, result)
    }

    /// Lets the queue do all that waits; all of it must end well.
    #[track_caller]
    pub(super) fn run(&mut self) {
        while !self.is_idle() {
            self.submit();
            assert!(self.queue.in_flight() > 0, "an empty queue accepts nothing");
            self.reap(1, None);
        }
    }

    /// How many ops wait to be accepted.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no op waits or is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.queue.in_flight() == 0
    }

    /// The memory of a completed op.
    #[track_caller]
    pub(super) fn take(&mut self, index: usize) -> AlignedBuf {
        assert_eq!(self.entries[index].stage, Stage::Over, "op {index} is not over");
        self.entries[index].memory.take().expect("taken once").bytes()
    }

    /// Reads at once what the device holds.
    #[track_caller]
    pub(super) fn read_now(&mut self, offset: u64, len: usize) -> AlignedBuf {
        let read = self.read(offset, len);
        self.run();
        self.take(read)
    }

    /// Drops the queue with whatever is in flight. Returns the memory of its ops.
    pub(super) fn drop_queue(self) -> Vec<Memory> {
        let Self { queue, waiting, entries } = self;
        drop(waiting);
        drop(queue);
        entries.into_iter().filter_map(|entry| entry.memory).collect()
    }
}

//! The queue: ops, and their commands in a ring.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::squeue::Entry128;
use raw_block_core::backend::{Completion, IoQueue, Op, OpKind};
use raw_block_core::{Error, ErrorClass};
use raw_block_uring::ring::{Big, InFlightTable, Kernel, Linux, Lookup, Ring, RingDevice};

use crate::device::NvmeDevice;
use crate::entry::{self, IO, IO_VECTORED};
use crate::in_flight::{CommandInFlight, OpInFlight, Part, Segments};
use crate::limits::Position;
use crate::retry_pauses::RetryPauses;
use crate::verdict::{self, Verdict, judge};

/// Waiting parts are issued once this fraction of the ring's slots is free: a sixteenth.
const REFILL_DIVISOR: usize = 16;

/// The ops of one caller, with an entry in a ring for each of their commands.
///
/// A new op is one part. Issuing a part takes the longest possible command off its front, until
/// nothing is left. All commands of all ops are in flight together, up to the capacity of the ring.
/// Parts that do not fit wait in order.
pub(crate) struct NvmeQueue<K: Kernel = Linux> {
    ring: Ring<Big, CommandInFlight, K>,
    ops: InFlightTable<OpInFlight>,
    /// The parts for which no command was issued.
    waiting: VecDeque<Part>,
    /// Lists of segments to reuse.
    spare: Vec<Segments>,
    /// Only used by a ring that polls for completions.
    pauses: RetryPauses,
    device: Arc<NvmeDevice>,
}

impl<K: Kernel> NvmeQueue<K> {
    pub(crate) fn open(
        device: Arc<NvmeDevice>,
        rings: Arc<RingDevice>,
        depth: usize,
        kernel: K,
    ) -> Result<Self, Error> {
        Ok(Self::with_ring(Ring::open(rings, depth, kernel)?, device))
    }

    /// A queue that only the calling thread uses.
    pub(crate) fn open_local(
        device: Arc<NvmeDevice>,
        rings: Arc<RingDevice>,
        depth: usize,
        kernel: K,
    ) -> Result<Self, Error> {
        Ok(Self::with_ring(Ring::open_local(rings, depth, kernel)?, device))
    }

    fn with_ring(ring: Ring<Big, CommandInFlight, K>, device: Arc<NvmeDevice>) -> Self {
        let capacity = u32::try_from(ring.capacity()).unwrap_or(u32::MAX);
        Self {
            ops: InFlightTable::new(capacity),
            waiting: VecDeque::with_capacity(ring.capacity()),
            spare: Vec::new(),
            pauses: RetryPauses::default(),
            ring,
            device,
        }
    }

    /// Issues waiting parts while the ring has space. Returns whether it issued any.
    ///
    /// Parts of a failed op are not issued. The last one completes the op, which goes to `done`;
    /// without `done`, the part keeps waiting.
    fn issue(&mut self, mut done: Option<&mut Vec<Completion>>) -> bool {
        let mut issued = false;
        let device = Arc::clone(&self.device);
        let translator = &device.translator;
        while self.ring.in_use() < self.ring.capacity()
            && let Some(part) = self.waiting.pop_front()
        {
            let Some(accepted) = self.ops.get_mut(part.op) else { continue };
            if accepted.error.is_some() {
                let Some(done) = done.as_deref_mut() else {
                    self.waiting.push_front(part);
                    break;
                };
                self.finish_part(part.op, done);
                continue;
            }
            let mut segments = self.spare.pop().unwrap_or_default();
            let (first, rest) =
                translator.cut(accepted.op.kind(), accepted.op.iovecs(), part, &mut segments);
            if rest.len > 0 {
                accepted.parts += 1;
                self.waiting.push_front(rest);
            }
            let ranges = match accepted.op.kind() {
                OpKind::Discard => translator.ranges(first.offset, first.len),
                _ => Vec::new(),
            };
            match self.ring.insert(CommandInFlight::new(first, segments, ranges)) {
                Ok(slot) => self.push(slot),
                Err(_) => unreachable!("a slot is free"),
            }
            issued = true;
        }
        issued
    }

    /// Puts the entry for a slot into the submission queue.
    fn push(&mut self, slot: u32) {
        let Some(command) = self.ring.get(slot) else { return };
        let Some(accepted) = self.ops.get(command.part.op) else { return };
        let segments = command.segments.0.as_slice();
        let memory = if command.plain { Lookup::Plain } else { self.ring.region(segments) };
        let entry = self.entry(&accepted.op, command, memory);
        if let Some(command) = self.ring.get_mut(slot) {
            command.registered = matches!(memory, Lookup::Region(_));
        }
        // SAFETY: the entry names memory of the op, a list of segments, ranges or a timer. The op
        // stays in `ops` while it has parts, and the others stay in the slot, until the completion
        // was reaped. The region was looked up in the current table.
        unsafe { self.ring.push(slot, entry, memory) };
    }

    fn entry(&self, op: &Op, command: &CommandInFlight, memory: Lookup) -> Entry128 {
        if let Some(pause) = &command.pause {
            return opcode::Timeout::new(&raw const **pause).build().into();
        }
        let Part { offset, len, .. } = command.part;
        let translator = &self.device.translator;
        let Some(nvme) = translator.command(op.kind(), op.options(), offset, len) else {
            return opcode::Nop::new().build().into();
        };
        let region = match memory {
            Lookup::Region(region) => Some(region),
            Lookup::Crossing | Lookup::Plain => None,
        };
        let (operation, nvme) = match (command.segments.0.as_slice(), command.ranges.as_slice()) {
            ([], []) => (IO, nvme),
            ([], ranges) => (IO, nvme.over(ranges.as_ptr() as usize, size_of_val(ranges))),
            ([one], _) => (IO, nvme.over(one.iov_base as usize, one.iov_len)),
            (list, _) => (IO_VECTORED, nvme.over(list.as_ptr() as usize, list.len())),
        };
        entry::of_command(operation, nvme, region)
    }

    /// Issues a command again after a pause. A ring that polls for completions has no timers
    /// (`EINVAL`).
    fn retry_after(&mut self, slot: u32, pause: Duration) {
        if self.ring.polls_completions() {
            self.pauses.add(slot, pause);
        } else {
            if let Some(command) = self.ring.get_mut(slot) {
                command.pause_for(pause);
            }
            self.push(slot);
        }
    }

    /// Issues the commands whose pause has ended. In a broken ring all pauses end, so that their
    /// commands fail.
    fn end_pauses(&mut self) {
        while self.ring.is_broken()
            && let Some(slot) = self.pauses.take_any()
        {
            self.push(slot);
        }
        if self.pauses.len() > 0 {
            let now = Instant::now();
            while let Some(slot) = self.pauses.take_ended(now) {
                self.push(slot);
            }
        }
    }

    /// Reaps completions: completed ops go to `done`, commands to be retried go to the ring.
    fn reap_completions(&mut self, done: &mut Vec<Completion>) {
        let mut retries = 0;
        while let Some((slot, outcome)) = self.ring.take_completion() {
            retries += u64::from(self.handle(slot, outcome.result, done));
        }
        while let Some((slot, error)) = self.ring.take_lost() {
            let kind = self.kind(slot);
            let error = Error::os(kind.name(), error).with_class(ErrorClass::NotStarted);
            self.complete_command(slot, Some(error), done);
        }
        if retries > 0 {
            self.ring.device().stats().update(|stats| stats.retries += retries);
        }
    }

    /// Handles the result of the command in a slot. Returns whether the command is retried.
    fn handle(&mut self, slot: u32, result: i32, done: &mut Vec<Completion>) -> bool {
        let broken = self.ring.is_broken();
        let Some(command) = self.ring.get_mut(slot) else { return false };
        let Some(accepted) = self.ops.get_mut(command.part.op) else { return false };
        let kind = accepted.op.kind();
        if command.pause.take().is_some() {
            self.push(slot);
            return false;
        }
        match judge(kind, result, command.tries, self.device.controller.retry_delays) {
            Verdict::Done => self.complete_command(slot, None, done),
            Verdict::Failed(error) => self.complete_command(slot, Some(error), done),
            _ if broken => {
                self.complete_command(slot, Some(verdict::error(kind, result)), done);
            }
            Verdict::Resubmit => {
                command.tries += 1;
                self.push(slot);
                return true;
            }
            Verdict::RetryAfter(pause) => {
                accepted.started = true;
                command.tries += 1;
                self.retry_after(slot, pause);
                return true;
            }
            // A region may have too many pages for one command.
            Verdict::Rejected if command.registered => {
                command.plain = true;
                self.push(slot);
                return true;
            }
            Verdict::Rejected => {
                if let Some(part) = self.device.translator.halved(command.part) {
                    self.recycle(slot);
                    self.waiting.push_front(part);
                    return true;
                }
                let error = self.device.explain_rejection(kind);
                self.complete_command(slot, Some(error), done);
            }
        }
        false
    }

    fn kind(&self, slot: u32) -> OpKind {
        let op = self.ring.get(slot).and_then(|command| self.ops.get(command.part.op));
        op.map_or(OpKind::Read, |accepted| accepted.op.kind())
    }

    /// Frees a slot of the ring, and returns its part.
    fn recycle(&mut self, slot: u32) -> Option<Part> {
        let CommandInFlight { part, mut segments, .. } = self.ring.remove(slot)?;
        segments.0.clear();
        self.spare.push(segments);
        Some(part)
    }

    /// Completes the command in a slot.
    fn complete_command(&mut self, slot: u32, error: Option<Error>, done: &mut Vec<Completion>) {
        let Some(Part { op, offset, len, .. }) = self.recycle(slot) else { return };
        if let Some(accepted) = self.ops.get_mut(op) {
            accepted.note(error.map(|error| error.at(offset, len)));
        }
        self.finish_part(op, done);
    }

    /// Counts a part of an op as finished. The last one completes the op.
    fn finish_part(&mut self, op: u32, done: &mut Vec<Completion>) {
        let Some(accepted) = self.ops.get_mut(op) else { return };
        accepted.parts -= 1;
        if accepted.parts == 0 {
            done.extend(self.ops.remove(op).map(OpInFlight::complete));
        }
    }

    /// Reaps completions, and issues waiting parts while the ring has space. A broken ring takes
    /// all parts, and fails them.
    fn advance(&mut self, done: &mut Vec<Completion>) {
        self.end_pauses();
        loop {
            self.reap_completions(done);
            if !self.issue(Some(done)) || !self.ring.is_broken() {
                return;
            }
        }
    }

    /// The number of command completions to wait for while that many ops are missing.
    fn completions_for(&self, missing_ops: usize) -> usize {
        let in_use = self.ring.in_use();
        if !self.waiting.is_empty() && missing_ops > 0 {
            // Refills the ring before it runs empty, but not for each completion.
            (self.ring.capacity() / REFILL_DIVISOR).max(1).min(in_use)
        } else if missing_ops >= self.ops.in_use() {
            in_use
        } else {
            missing_ops.min(in_use)
        }
    }
}

impl<K: Kernel> IoQueue for NvmeQueue<K> {
    fn depth(&self) -> usize {
        if self.ring.is_broken() { 0 } else { self.ops.capacity() }
    }

    fn in_flight(&self) -> usize {
        self.ops.in_use()
    }

    fn is_local(&self) -> bool {
        self.ring.is_local()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        if !self.ring.is_usable_here() {
            return;
        }
        self.ring.refresh_regions();
        while let Some(op) = ops.pop_front() {
            let (offset, len) = (op.offset(), op.len());
            let max_command = self.device.translator.max_command(op.kind());
            match self.ops.insert(OpInFlight::new(op)) {
                Ok(op) => {
                    let from = Position::default();
                    self.waiting.push_back(Part {
                        op,
                        offset,
                        len,
                        from,
                        max_command,
                        halved: false,
                    });
                }
                Err(OpInFlight { op, .. }) => return ops.push_front(op),
            }
        }
    }

    fn start(&mut self) {
        if self.ring.is_usable_here() {
            self.end_pauses();
            self.issue(None);
            self.ring.submit();
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        if !self.ring.is_usable_here() {
            return;
        }
        let target = done.len().saturating_add(min);
        let (mut entered, mut woken) = (false, false);
        loop {
            self.advance(done);
            let missing = target.saturating_sub(done.len());
            woken = woken || missing > 0 && self.ops.in_use() > 0 && self.ring.take_wake();
            let missing = if woken { 0 } else { missing };
            // As in the queue of `raw-block-uring`, a woken thread enters the kernel too.
            let enough = missing == 0 && (entered || min > 0 && !woken);
            let late = entered && deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if self.ops.in_use() == 0 || self.ring.is_submitted() && (enough || late) {
                return;
            }
            let paused = self.pauses.len();
            let until = self.pauses.next_end().into_iter().chain(deadline).min();
            if paused == 0 || paused < self.ring.in_use() {
                self.ring.enter(self.completions_for(missing), until);
            } else if let Some(until) = until
                && missing > 0
            {
                // All commands pause, so there is nothing to poll for.
                self.ring.sleep_until(until);
            }
            entered = true;
        }
    }

    fn waker(&mut self) -> Result<Waker, Error> {
        self.ring.waker()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        // Where the waiting call reaps completions, or polls for them, the descriptor shows none
        // before.
        let silent = self.ring.is_local() || self.ring.polls_completions();
        (!silent).then(|| self.ring.event_fd())
    }
}

impl<K: Kernel> Drop for NvmeQueue<K> {
    /// Waits for all accepted ops, because the kernel uses their memory. If this thread cannot wait
    /// for them, they are leaked.
    fn drop(&mut self) {
        // A wake ends a reap early.
        while self.ops.in_use() > 0 && self.ring.is_usable_here() {
            self.reap(usize::MAX, None, &mut Vec::new());
        }
        if self.ops.in_use() > 0 {
            // The ring leaks the commands and reports it.
            std::mem::forget(std::mem::replace(&mut self.ops, InFlightTable::new(0)));
        }
    }
}

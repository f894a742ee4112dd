//! The queue: ops, and their commands in a ring.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry128;
use io_uring::{opcode, types};
use raw_block_core::backend::{Completion, IoQueue, Op, OpKind};
use raw_block_core::{Error, ErrorClass};
use raw_block_uring::ring::{Big, InFlightTable, Kernel, Linux, Lookup, Ring, RingDevice};

use crate::backend::Shared;
use crate::command::Command;
use crate::in_flight::{Accepted, Issued, Part, Segments};
use crate::limits::Position;
use crate::resting::Resting;
use crate::verdict::{self, Verdict, judge};

/// The device's place in the ring's table of registered files.
const DEVICE: types::Fixed = types::Fixed(0);

// `linux/nvme_ioctl.h`: _IOWR('N', 0x80, struct nvme_uring_cmd) and 0x81 for a list of segments.
#[expect(clippy::cast_possible_truncation, reason = "the numbers of ioctls have 32 bits")]
pub(crate) const IO: u32 = nix::request_code_readwrite!(b'N', 0x80, size_of::<Command>()) as u32;
#[expect(clippy::cast_possible_truncation, reason = "the numbers of ioctls have 32 bits")]
const IO_VECTORED: u32 = nix::request_code_readwrite!(b'N', 0x81, size_of::<Command>()) as u32;

/// Of a ring's slots, the part that must be free again before waiting parts are issued: a sixteenth.
const REFILL: usize = 16;

/// The entry for a passthrough command, which may use a region of registered memory.
pub(crate) fn command_entry(operation: u32, command: Command, region: Option<u16>) -> Entry128 {
    opcode::UringCmd80::new(DEVICE, operation).buf_index(region).cmd(command.to_entry()).build()
}

/// Ops that one caller has in a ring, an entry for each of their commands.
///
/// An op becomes one part; issuing it takes as much off its front as one command can carry, until nothing is left. All
/// commands of all ops are in flight together, bounded by the ring; the parts that wait for room do so in order.
pub(crate) struct NvmeQueue<K: Kernel = Linux> {
    ring: Ring<Big, Issued, K>,
    ops: InFlightTable<Accepted>,
    /// What no command carries yet.
    waiting: VecDeque<Part>,
    /// Lists of segments that commands no longer need, for others to use.
    spare: Vec<Segments>,
    /// Used by a ring that polls for completions, and by no other.
    resting: Resting,
    shared: Arc<Shared>,
}

impl<K: Kernel> NvmeQueue<K> {
    pub(crate) fn open(
        shared: Arc<Shared>,
        rings: Arc<RingDevice>,
        depth: usize,
        kernel: K,
    ) -> Result<Self, Error> {
        Ok(Self::on(Ring::open(rings, depth, kernel)?, shared))
    }

    /// A queue that only the calling thread uses.
    pub(crate) fn open_local(
        shared: Arc<Shared>,
        rings: Arc<RingDevice>,
        depth: usize,
        kernel: K,
    ) -> Result<Self, Error> {
        Ok(Self::on(Ring::open_local(rings, depth, kernel)?, shared))
    }

    fn on(ring: Ring<Big, Issued, K>, shared: Arc<Shared>) -> Self {
        let capacity = u32::try_from(ring.capacity()).unwrap_or(u32::MAX);
        let (waiting, resting) = (VecDeque::with_capacity(ring.capacity()), Resting::default());
        Self {
            ring,
            ops: InFlightTable::new(capacity),
            waiting,
            spare: Vec::new(),
            resting,
            shared,
        }
    }

    /// Issues what waits, while there is space in the ring. Returns whether anything was issued. A part of an op that has
    /// failed is not issued: with the last one the op ends, and goes to `done`. Without `done` the part waits.
    fn issue(&mut self, mut done: Option<&mut Vec<Completion>>) -> bool {
        let mut issued = false;
        let shared = Arc::clone(&self.shared);
        let translator = &shared.translator;
        while self.ring.in_use() < self.ring.capacity()
            && let Some(part) = self.waiting.pop_front()
        {
            let Some(accepted) = self.ops.get_mut(part.op) else { continue };
            if accepted.error.is_some() {
                let Some(done) = done.as_deref_mut() else {
                    self.waiting.push_front(part);
                    break;
                };
                self.end(part.op, done);
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
            match self.ring.insert(Issued::new(first, segments, ranges)) {
                Ok(slot) => self.push(slot),
                Err(_) => unreachable!("there was room"),
            }
            issued = true;
        }
        issued
    }

    /// Puts the entry for what is in a slot into the submission queue.
    fn push(&mut self, slot: u32) {
        let Some(issued) = self.ring.get(slot) else { return };
        let Some(accepted) = self.ops.get(issued.part.op) else { return };
        let segments = issued.segments.0.as_slice();
        let memory = if issued.plain { Lookup::Plain } else { self.ring.region(segments) };
        let entry = self.entry(&accepted.op, issued, memory);
        if let Some(issued) = self.ring.get_mut(slot) {
            issued.registered = matches!(memory, Lookup::Region(_));
        }
        // SAFETY: the entry names memory of the op, a list, ranges or a timer; the op stays in `ops` while it has
        // parts, and all the others in the slot, both until the completion was taken in. The region was looked up just
        // now.
        unsafe { self.ring.push(slot, entry, memory) };
    }

    fn entry(&self, op: &Op, issued: &Issued, memory: Lookup) -> Entry128 {
        if let Some(pause) = &issued.pause {
            return opcode::Timeout::new(&raw const **pause).build().into();
        }
        let Part { offset, len, .. } = issued.part;
        let translator = &self.shared.translator;
        let Some(command) = translator.command(op.kind(), op.options(), offset, len) else {
            return opcode::Nop::new().build().into();
        };
        let region = match memory {
            Lookup::Region(region) => Some(region),
            Lookup::Crossing | Lookup::Plain => None,
        };
        let (operation, command) = match (issued.segments.0.as_slice(), issued.ranges.as_slice()) {
            ([], []) => (IO, command),
            ([], ranges) => (IO, command.over(ranges.as_ptr() as usize, size_of_val(ranges))),
            ([one], _) => (IO, command.over(one.iov_base as usize, one.iov_len)),
            (list, _) => (IO_VECTORED, command.over(list.as_ptr() as usize, list.len())),
        };
        command_entry(operation, command, region)
    }

    /// Lets a command rest, and then be issued again. A ring that polls for completions has no timers (`EINVAL`).
    fn rest(&mut self, slot: u32, pause: Duration) {
        if self.ring.polls_completions() {
            self.resting.add(slot, pause);
        } else {
            if let Some(issued) = self.ring.get_mut(slot) {
                issued.pause_for(pause);
            }
            self.push(slot);
        }
    }

    /// Issues again the commands whose rest has ended. A broken ring takes all of them, to fail them.
    fn wake(&mut self) {
        while self.ring.is_broken()
            && let Some(slot) = self.resting.take_any()
        {
            self.push(slot);
        }
        if self.resting.len() > 0 {
            let now = Instant::now();
            while let Some(slot) = self.resting.take(now) {
                self.push(slot);
            }
        }
    }

    /// Takes in what has completed: appends the ops that are over to `done`, pushes again what is to be repeated.
    fn take_completions(&mut self, done: &mut Vec<Completion>) {
        let mut retries = 0;
        while let Some((slot, outcome)) = self.ring.take_completion() {
            let broken = self.ring.is_broken();
            let Some(issued) = self.ring.get_mut(slot) else { continue };
            let Some(accepted) = self.ops.get_mut(issued.part.op) else { continue };
            let kind = accepted.op.kind();
            if issued.pause.take().is_some() {
                self.push(slot);
                continue;
            }
            match judge(kind, outcome.result, issued.tries, self.shared.controller.retry_delays) {
                Verdict::Done => self.over(slot, None, done),
                Verdict::Failed(error) => self.over(slot, Some(error), done),
                _ if broken => self.over(slot, Some(verdict::error(kind, outcome.result)), done),
                Verdict::Again => {
                    issued.tries += 1;
                    retries += 1;
                    self.push(slot);
                }
                Verdict::After(pause) => {
                    accepted.begun = true;
                    issued.tries += 1;
                    retries += 1;
                    self.rest(slot, pause);
                }
                // A region may have too many pages for one command.
                Verdict::Refit if issued.registered => {
                    issued.plain = true;
                    retries += 1;
                    self.push(slot);
                }
                Verdict::Refit => {
                    let part = self.shared.translator.halved(issued.part);
                    match part {
                        Some(part) => {
                            retries += 1;
                            self.recycle(slot);
                            self.waiting.push_front(part);
                        }
                        None => {
                            let error = self.shared.explain_refusal(kind);
                            self.over(slot, Some(error), done);
                        }
                    }
                }
            }
        }
        while let Some((slot, error)) = self.ring.take_lost() {
            let kind = self.kind(slot);
            let error = Error::os(kind.name(), error).with_class(ErrorClass::NotStarted);
            self.over(slot, Some(error), done);
        }
        if retries > 0 {
            self.ring.device().stats().update(|stats| stats.retries += retries);
        }
    }

    fn kind(&self, slot: u32) -> OpKind {
        let op = self.ring.get(slot).and_then(|issued| self.ops.get(issued.part.op));
        op.map_or(OpKind::Read, |accepted| accepted.op.kind())
    }

    /// Frees a slot of the ring, and returns the part that was in it.
    fn recycle(&mut self, slot: u32) -> Option<Part> {
        let Issued { part, mut segments, .. } = self.ring.remove(slot)?;
        segments.0.clear();
        self.spare.push(segments);
        Some(part)
    }

    /// A command has completed.
    fn over(&mut self, slot: u32, error: Option<Error>, done: &mut Vec<Completion>) {
        let Some(Part { op, offset, len, .. }) = self.recycle(slot) else { return };
        if let Some(accepted) = self.ops.get_mut(op) {
            accepted.note(error.map(|error| error.at(offset, len)));
        }
        self.end(op, done);
    }

    /// A part of an op has ended, and with the last one the op.
    fn end(&mut self, op: u32, done: &mut Vec<Completion>) {
        let Some(accepted) = self.ops.get_mut(op) else { return };
        accepted.parts -= 1;
        if accepted.parts == 0 {
            done.extend(self.ops.remove(op).map(Accepted::complete));
        }
    }

    /// Takes in completions and issues what there is room for. A broken ring takes everything, to fail it.
    fn advance(&mut self, done: &mut Vec<Completion>) {
        self.wake();
        loop {
            self.take_completions(done);
            if !self.issue(Some(done)) || !self.ring.is_broken() {
                return;
            }
        }
    }

    /// How many completions of commands to wait for, if so many ops are still wanted.
    fn want(&self, ops: usize) -> usize {
        let in_use = self.ring.in_use();
        if !self.waiting.is_empty() && ops > 0 {
            // Others wait for room: refill the ring well before it runs dry, but not one by one.
            (self.ring.capacity() / REFILL).max(1).min(in_use)
        } else if ops >= self.ops.in_use() {
            in_use
        } else {
            ops.min(in_use)
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
            let most = self.shared.translator.longest(op.kind());
            match self.ops.insert(Accepted::new(op)) {
                Ok(op) => {
                    let from = Position::default();
                    self.waiting.push_back(Part { op, offset, len, from, most, halved: false });
                }
                Err(Accepted { op, .. }) => return ops.push_front(op),
            }
        }
    }

    fn start(&mut self) {
        if self.ring.is_usable_here() {
            self.wake();
            self.issue(None);
            self.ring.submit();
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        if !self.ring.is_usable_here() {
            return;
        }
        let target = done.len().saturating_add(min);
        let mut entered = false;
        loop {
            self.advance(done);
            let missing = target.saturating_sub(done.len());
            let enough = missing == 0 && (entered || min > 0);
            let late = entered && deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if self.ops.in_use() == 0 || self.ring.is_submitted() && (enough || late) {
                return;
            }
            let resting = self.resting.len();
            let until = self.resting.next().into_iter().chain(deadline).min();
            if resting == 0 || resting < self.ring.in_use() {
                self.ring.enter(self.want(missing), until);
            } else if let Some(until) = until
                && missing > 0
            {
                // There is nothing to poll for.
                thread::sleep(until.saturating_duration_since(Instant::now()));
            }
            entered = true;
        }
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        // Where the call that waits reaps completions, or polls for them, nothing is seen before it.
        let silent = self.ring.is_local() || self.ring.polls_completions();
        (!silent).then(|| self.ring.event_fd())
    }
}

impl<K: Kernel> Drop for NvmeQueue<K> {
    /// Waits for everything that was accepted: the kernel still owns its memory. Where this thread cannot wait for it,
    /// it is leaked.
    fn drop(&mut self) {
        self.reap(usize::MAX, None, &mut Vec::new());
        if self.ops.in_use() > 0 {
            // The ring leaks the commands, and says so.
            std::mem::forget(std::mem::replace(&mut self.ops, InFlightTable::new(0)));
        }
    }
}

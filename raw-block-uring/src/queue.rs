//! The queue: ops in a ring.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::Instant;

use raw_block_core::Error;
use raw_block_core::backend::{Completion, DeviceFile, IoQueue, Op};

use crate::call;
use crate::entry;
use crate::in_flight::{InFlight, OpResult, Verdict};
use crate::ring::{Kernel, Linux, Ring, RingDevice, Standard, Width};

/// The ops of one caller, with an entry in a ring for each.
///
/// An entry is pushed when its op is accepted. The system call that waits for completions also
/// submits all entries.
pub(crate) struct UringQueue<W: Width = Standard, K: Kernel = Linux> {
    ring: Ring<W, InFlight, K>,
    file: Arc<DeviceFile>,
}

impl<W: Width, K: Kernel> UringQueue<W, K> {
    pub(crate) fn open(
        file: Arc<DeviceFile>,
        device: Arc<RingDevice>,
        depth: usize,
        kernel: K,
    ) -> Result<Self, Error> {
        Ok(Self { ring: Ring::open(device, depth, kernel)?, file })
    }

    /// A queue that only the calling thread uses.
    pub(crate) fn open_local(
        file: Arc<DeviceFile>,
        device: Arc<RingDevice>,
        depth: usize,
        kernel: K,
    ) -> Result<Self, Error> {
        Ok(Self { ring: Ring::open_local(device, depth, kernel)?, file })
    }

    /// Puts the entry for the rest of an op into the submission queue.
    fn push(&mut self, slot: u32) {
        let Some(InFlight { op, .. }) = self.ring.get(slot) else { return };
        let joined = entry::join(op.iovecs());
        let segments = joined.as_ref().map_or(op.iovecs(), std::slice::from_ref);
        let memory = self.ring.region(segments);
        let entry = entry::of(op, segments, self.file.is_block_device(), memory);
        // SAFETY: the entry names the memory of the op and its segment list. Both are valid while
        // the op lives, and the op stays in its slot until its completion was reaped. The region
        // was looked up in the current table.
        unsafe { self.ring.push(slot, entry, memory) };
    }

    /// Executes the rest of an op by system calls, and waits for it.
    fn call(&self, mut in_flight: InFlight) -> Completion {
        in_flight.issued_here();
        loop {
            let result = call::execute(&self.file, &in_flight.op);
            match in_flight.judge(result, &self.file) {
                _ if result == -libc::EINTR => {}
                Verdict::Resubmit => {}
                Verdict::NeedsCall(errno) => return in_flight.complete(OpResult::Failed(errno)),
                Verdict::Ended(end) => return in_flight.complete(end),
            }
        }
    }

    /// Reaps completions: appends completed ops to `done`, and pushes the others again.
    fn reap_completions(&mut self, done: &mut Vec<Completion>) {
        let mut retries = 0;
        while let Some((slot, outcome)) = self.ring.take_completion() {
            let broken = self.ring.is_broken();
            let Some(in_flight) = self.ring.get_mut(slot) else { continue };
            match in_flight.judge(outcome.result, &self.file) {
                Verdict::Resubmit if !broken => {
                    in_flight.issued_here();
                    retries += 1;
                    self.push(slot);
                }
                Verdict::Resubmit | Verdict::NeedsCall(_) => {
                    let rest = self.ring.remove(slot);
                    done.extend(rest.map(|rest| self.call(rest)));
                }
                Verdict::Ended(end) => {
                    done.extend(self.ring.remove(slot).map(|ended| ended.complete(end)));
                }
            }
        }
        while let Some((slot, error)) = self.ring.take_lost() {
            done.extend(self.ring.remove(slot).map(|lost| lost.lose(error)));
        }
        if retries > 0 {
            self.ring.device().stats().update(|stats| stats.retries += retries);
        }
    }
}

impl<W: Width, K: Kernel> IoQueue for UringQueue<W, K> {
    fn depth(&self) -> usize {
        if self.ring.is_broken() { 0 } else { self.ring.capacity() }
    }

    fn in_flight(&self) -> usize {
        self.ring.in_use()
    }

    fn is_local(&self) -> bool {
        self.ring.is_local()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        if !self.ring.is_usable_here() {
            return;
        }
        self.ring.refresh_regions();
        let this_thread = thread::current().id();
        while let Some(op) = ops.pop_front() {
            match self.ring.insert(InFlight::new(op, this_thread)) {
                Ok(slot) => self.push(slot),
                Err(InFlight { op, .. }) => return ops.push_front(op),
            }
        }
    }

    fn start(&mut self) {
        if self.ring.is_usable_here() {
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
            self.reap_completions(done);
            let missing = target.saturating_sub(done.len()).min(self.ring.in_use());
            woken = woken || missing > 0 && self.ring.take_wake();
            let want = if woken { 0 } else { missing };
            let idle = self.ring.in_use() == 0;
            // A local ring shows completions only once the kernel was entered, so a woken thread
            // enters it too: otherwise a thread that is woken again and again reaps nothing.
            let enough = want == 0 && (entered || min > 0 && !woken);
            let late = entered && deadline.is_some_and(|deadline| Instant::now() >= deadline);
            // The polling thread may execute the last entries before they count as submitted.
            if self.ring.is_submitted() && (idle || enough || late) {
                return;
            }
            self.ring.enter(want, deadline);
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

impl<W: Width, K: Kernel> Drop for UringQueue<W, K> {
    /// Waits for all accepted ops, because the kernel uses their memory. If this thread cannot wait
    /// for them, the ring leaks them.
    fn drop(&mut self) {
        // A wake ends a reap early.
        while self.ring.in_use() > 0 && self.ring.is_usable_here() {
            self.reap(usize::MAX, None, &mut Vec::new());
        }
    }
}

//! One ring and the ops in it.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, squeue, types};
use raw_block_core::{Completion, Error, IoQueue, Op, OpKind};

use crate::device::Device;
use crate::entry;
use crate::regions::Regions;
use crate::setup;
use crate::slots::{InFlight, Slots};

/// How often a system call is repeated that fails for want of memory, before the ring is given up:
/// with the pause between, for ten seconds.
const ENTER_TRIES: u32 = 10_000;
const ENTER_PAUSE: Duration = Duration::from_millis(1);

/// A ring that one caller uses at a time.
///
/// Ops wait in slots, whose index is the user data of their entries. An entry is pushed when its op is
/// accepted, and the system call that waits for completions hands all entries to the kernel.
pub(crate) struct UringQueue {
    /// Not dropped in a forked child, where something else may have its addresses.
    ring: ManuallyDrop<IoUring>,
    slots: Slots,
    /// Slots whose entries are in the submission queue, oldest first.
    unsubmitted: VecDeque<u32>,
    /// How many of those use registered memory.
    registered: u64,
    regions: Regions,
    /// Which generation of the device's registered memory `regions` shows.
    generation: u64,
    /// Consecutive system calls that failed for want of memory.
    failed_enters: u32,
    /// Why the kernel takes no more entries, once that is so.
    broken: Option<i32>,
    /// The process that has the ring: its memory is not there in a forked child.
    process: u32,
    device: Arc<Device>,
}

impl UringQueue {
    pub(crate) fn open(device: Arc<Device>, depth: usize) -> Result<Self, Error> {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        let (ring, _) = setup::ring(depth)?;
        device.register_file(&ring)?;
        // The kernel rounds up to a power of two, and may clamp; there are at least as many completion
        // entries, so the completion queue holds whatever the slots hold.
        let capacity = ring.params().sq_entries().min(depth);
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            slots: Slots::new(capacity),
            unsubmitted: VecDeque::with_capacity(capacity as usize),
            registered: 0,
            regions: Regions::default(),
            generation: 0,
            failed_enters: 0,
            broken: None,
            process: std::process::id(),
            device,
        })
    }

    /// One system call: hands over what is unsubmitted, and waits for `want` completions.
    fn enter(&mut self, want: usize, deadline: Option<Instant>) {
        let result = if self.broken.is_some() {
            self.wait_without_submitting(want)
        } else if let Some(deadline) = deadline {
            let left = types::Timespec::from(deadline.saturating_duration_since(Instant::now()));
            self.ring.submitter().submit_with_args(want, &types::SubmitArgs::new().timespec(&left))
        } else {
            self.ring.submitter().submit_and_wait(want)
        };
        self.note_submitted();
        match result.map_err(|error| error.raw_os_error()) {
            Ok(_) => self.failed_enters = 0,
            Err(Some(libc::EINTR | libc::ETIME)) => {}
            Err(Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
                if self.failed_enters < ENTER_TRIES =>
            {
                self.failed_enters += 1;
                thread::sleep(ENTER_PAUSE);
            }
            Err(errno) => {
                let errno = errno.unwrap_or(libc::EIO);
                if self.broken.replace(errno).is_none() {
                    let error = io::Error::from_raw_os_error(errno);
                    tracing::error!(device = self.device.path(), %error, "a ring takes no more ops");
                }
                thread::sleep(ENTER_PAUSE);
            }
        }
    }

    /// Waits as [`enter`](Self::enter) does, and leaves the submission queue alone.
    fn wait_without_submitting(&self, want: usize) -> io::Result<usize> {
        const GETEVENTS: u32 = 1; // IORING_ENTER_GETEVENTS, `linux/io_uring.h`
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        // SAFETY: nothing is submitted, so the call reads no entries; there is no argument to point to.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, want, GETEVENTS, None) }
    }

    /// Takes from `unsubmitted` what the kernel took from the submission queue, whatever the system
    /// call returned.
    fn note_submitted(&mut self) {
        let left = {
            let mut submission = self.ring.submission();
            submission.sync();
            submission.len()
        };
        let taken = self.unsubmitted.len().saturating_sub(left);
        if taken > 0 && self.broken.is_none() {
            self.unsubmitted.drain(..taken);
            let registered = std::mem::take(&mut self.registered);
            self.device.stats().update(|stats| {
                stats.submissions += 1;
                stats.registered_ops += registered;
            });
        }
    }

    /// Takes in what has completed: appends what is over to `done`, pushes again what is not.
    fn take_completions(&mut self, done: &mut Vec<Completion>) {
        let mut retries = 0;
        let Self { ring, slots, unsubmitted, registered, regions, broken, .. } = self;
        let (_, mut submission, mut completion) = ring.split();
        completion.sync();
        for entry in &mut completion {
            let Ok(index) = u32::try_from(entry.user_data()) else { continue };
            let Some(in_flight) = slots.get_mut(index) else { continue };
            match judge(in_flight, entry.result()) {
                Verdict::Again if broken.is_none() => {
                    retries += 1;
                    *registered += push(&mut submission, in_flight, index, regions);
                    unsubmitted.push_back(index);
                }
                verdict => {
                    if let Some(op) = slots.remove(index) {
                        done.push(verdict.complete(op));
                    }
                }
            }
        }
        drop(completion);
        drop(submission);
        if let Some(errno) = *broken {
            // The kernel will never see these: nothing is submitted any more.
            for op in unsubmitted.drain(..).filter_map(|index| slots.remove(index)) {
                done.push(op.fail(io::Error::from_raw_os_error(errno)));
            }
        }
        if retries > 0 {
            self.device.stats().update(|stats| stats.retries += retries);
        }
    }
}

impl IoQueue for UringQueue {
    fn depth(&self) -> usize {
        if self.broken.is_some() { 0 } else { self.slots.capacity() }
    }

    fn in_flight(&self) -> usize {
        self.slots.in_use()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let generation = self.device.generation();
        if generation != self.generation {
            self.generation = generation;
            self.regions = self.device.regions_for(&self.ring);
        }
        let Self { ring, slots, unsubmitted, registered, regions, broken, .. } = self;
        let mut submission = ring.submission();
        while let Some(op) = ops.pop_front() {
            match slots.insert(op) {
                Ok((index, in_flight)) => {
                    if broken.is_none() {
                        *registered += push(&mut submission, in_flight, index, regions);
                    }
                    unsubmitted.push_back(index);
                }
                Err(op) => return ops.push_front(op),
            }
        }
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        let target = done.len().saturating_add(min);
        let mut entered = false;
        loop {
            self.take_completions(done);
            let want = target.saturating_sub(done.len()).min(self.slots.in_use());
            let idle = self.slots.in_use() == 0;
            let enough = want == 0 && (entered || min > 0);
            let late = entered && deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if idle || self.unsubmitted.is_empty() && (enough || late) {
                return;
            }
            self.enter(want, deadline);
            entered = true;
        }
    }

    /// The ring itself, which is readable while there are completions.
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the ring owns the descriptor and keeps it open while it is borrowed.
        Some(unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) })
    }
}

impl Drop for UringQueue {
    /// Waits for everything that was accepted: the kernel still owns its memory.
    fn drop(&mut self) {
        if std::process::id() != self.process {
            return;
        }
        self.reap(usize::MAX, None, &mut Vec::new());
        // Without this the ring, which the kernel takes down in the background, would hold the device
        // open, and locked, for some time after it was closed.
        let _ = self.ring.submitter().unregister_files();
        // SAFETY: the ring is not used any more: this is the drop of its only owner.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

/// Puts the entry for what is left of an op into the submission queue. Returns 1 if it uses registered
/// memory, else 0.
fn push(
    submission: &mut squeue::SubmissionQueue<'_>,
    in_flight: &InFlight,
    index: u32,
    regions: &Regions,
) -> u64 {
    let (entry, registered) = entry::of(in_flight, regions);
    let entry = entry.user_data(u64::from(index));
    // SAFETY: the entry names the memory of the op and its segment list, both valid while the op lives,
    // and the op stays in its slot until the kernel's completion for it was taken in.
    let pushed = unsafe { submission.push(&entry) };
    debug_assert!(pushed.is_ok(), "the submission queue has an entry for every slot");
    u64::from(registered)
}

/// What a completion means for its op.
enum Verdict {
    Done,
    Again,
    EndOfDevice,
    Failed(i32),
}

impl Verdict {
    fn complete(self, op: Op) -> Completion {
        match self {
            Self::Done => op.complete(),
            Self::EndOfDevice => op.fail_at_end(),
            Self::Failed(errno) => op.fail(io::Error::from_raw_os_error(errno)),
            Self::Again => op.fail(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }
}

fn judge(in_flight: &mut InFlight, result: i32) -> Verdict {
    let transfers = in_flight.op.kind().transfers();
    match u32::try_from(result) {
        Ok(_) if !transfers => Verdict::Done,
        Ok(0) => Verdict::EndOfDevice,
        Ok(bytes) => {
            in_flight.advance(u64::from(bytes));
            if in_flight.op.is_empty() { Verdict::Done } else { Verdict::Again }
        }
        Err(_) => match -result {
            // ECANCELED: the thread that submitted the op ended, and with it the kernel's worker.
            libc::EINTR | libc::EAGAIN | libc::ECANCELED if in_flight.try_again() => Verdict::Again,
            // A direct read cannot go on inside a block, and only the end of the device makes one stop
            // there.
            libc::EINVAL if in_flight.op.kind() == OpKind::Read && in_flight.has_advanced() => {
                Verdict::EndOfDevice
            }
            libc::EOPNOTSUPP
                if in_flight.op.kind() == OpKind::WriteZeroes && !in_flight.punches =>
            {
                in_flight.punches = true;
                Verdict::Again
            }
            errno => Verdict::Failed(errno),
        },
    }
}

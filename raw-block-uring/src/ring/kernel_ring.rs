//! A ring of the kernel: its two queues, its system call, and the failures of that call.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::Instant;

use io_uring::cqueue::EntryMarker as _;
use io_uring::squeue::EntryMarker as _;
use raw_block_core::Error;

use crate::ring::backlog::Backlog;
use crate::ring::device::RingDevice;
use crate::ring::kernel::{Enter, Kernel, system_call};
use crate::ring::owner::Owner;
use crate::ring::regions::{Lookup, RegisteredRegions};
use crate::ring::setup;
use crate::ring::wake::{WAKE_SLOT, WakePoll};
use crate::ring::width::{Outcome, RawRing, Width};

/// How often a system call is repeated that fails for lack of memory, before the ring counts as
/// broken. With the pause between the calls, this takes ten seconds.
const MAX_FAILED_ENTERS: u32 = 10_000;

/// The submission queue and the completion queue of a ring, and the system call that serves both.
///
/// **Invariant:** a failed or partial system call neither loses nor repeats an entry. What the
/// kernel has taken is read from the submission queue, never from the result of the call.
pub(crate) struct KernelRing<W: Width, K: Kernel> {
    /// Not dropped in a forked child, where something else may be mapped at its addresses.
    raw: ManuallyDrop<RawRing<W>>,
    backlog: Backlog<W::Entry>,
    /// `None` until a waker was taken.
    wake: Option<WakePoll>,
    /// Whether the kernel's polling thread sleeps, and the call that should have woken it failed.
    is_asleep: bool,
    /// The number of consecutive system calls that failed for lack of memory.
    failed_enters: u32,
    /// The `errno` for which the kernel takes no more entries.
    broken: Option<i32>,
    owner: Owner,
    kernel: K,
    device: Arc<RingDevice>,
}

impl<W: Width, K: Kernel> KernelRing<W, K> {
    /// Makes a ring with up to `depth` submission entries, and returns how many it has.
    pub(crate) fn open(
        device: Arc<RingDevice>,
        depth: usize,
        kernel: K,
        local: bool,
    ) -> Result<(Self, u32), Error> {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        let (raw, granted) = setup::ring::<W>(depth, device.usage(local))?;
        device.register_files::<W>(&raw)?;
        // The kernel rounds up to a power of two, and may clamp. There are at least as many
        // completion entries.
        let capacity = raw.params().sq_entries().min(depth);
        let ring = Self {
            raw: ManuallyDrop::new(raw),
            backlog: Backlog::new(capacity as usize),
            wake: None,
            is_asleep: false,
            failed_enters: 0,
            broken: None,
            owner: Owner::new(granted.is_local()),
            kernel,
            device,
        };
        Ok((ring, capacity))
    }

    pub(crate) fn device(&self) -> &RingDevice {
        &self.device
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// The `errno` for which the kernel takes no more entries, if the ring is broken.
    pub(crate) fn broken(&self) -> Option<i32> {
        self.broken
    }

    /// Whether every entry was submitted to the kernel, or to its polling thread while that was
    /// awake.
    pub(crate) fn is_submitted(&self) -> bool {
        if self.broken.is_some() {
            return self.backlog.is_empty();
        }
        self.backlog.is_submitted() && !self.is_asleep
    }

    /// Whether a kernel thread polls for submissions.
    fn polls_submissions(&self) -> bool {
        self.raw.params().is_setup_sqpoll()
    }

    /// Whether the thread that waits for completions polls the device for them.
    pub(crate) fn polls_completions(&self) -> bool {
        self.raw.params().is_setup_iopoll()
    }

    /// The descriptor of the ring, which is readable while there are completions.
    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and keeps it open while it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.raw.as_raw_fd()) }
    }

    /// See [`Ring::waker`](crate::ring::Ring::waker).
    pub(crate) fn waker(&mut self) -> Result<Waker, Error> {
        if let Some(wake) = &self.wake {
            return Ok(wake.waker());
        }
        let wake = WakePoll::new().map_err(|error| {
            Error::os("make a descriptor to wake a ring", error).on(self.device.name())
        })?;
        Ok(self.wake.insert(wake).waker())
    }

    /// See [`Ring::take_wake`](crate::ring::Ring::take_wake).
    pub(crate) fn take_wake(&mut self) -> bool {
        self.wake.as_mut().is_some_and(WakePoll::take)
    }

    /// See [`Ring::sleep_until`](crate::ring::Ring::sleep_until).
    pub(crate) fn sleep_until(&self, end: Instant) {
        match &self.wake {
            Some(wake) => wake.sleep_until(end),
            None => thread::sleep(end.saturating_duration_since(Instant::now())),
        }
    }

    /// Makes a wait for `want` completions one that a waker can end. Returns how many completions
    /// to wait for.
    fn prepare_wait(&mut self, want: usize) -> usize {
        let (polls, broken) = (self.polls_completions(), self.broken.is_some());
        let Some(wake) = &mut self.wake else { return want };
        // A ring that polls for completions cannot poll a descriptor (`EINVAL`).
        if want > 0
            && !polls
            && !broken
            && let Some(entry) = wake.arm()
        {
            // SAFETY: the entry names no memory.
            unsafe { self.push(WAKE_SLOT, entry.into(), Lookup::Plain) };
            self.backlog.note_wake();
        }
        // A wake is a single completion.
        want.min(1)
    }

    /// Whether the kernel has taken every entry.
    pub(crate) fn is_all_taken(&mut self) -> bool {
        self.note_taken();
        self.backlog.is_empty()
    }

    /// Replaces the registered memory of the ring by that of the device. The kernel must have taken
    /// every entry, because entries name places in the table.
    pub(crate) fn register_regions(&mut self) -> RegisteredRegions {
        self.device.regions_for::<W>(&self.raw)
    }

    /// Puts the entry of a slot into the submission queue, or lets it wait while that is full.
    ///
    /// # Safety
    /// That of [`Ring::push`](crate::ring::Ring::push).
    pub(crate) unsafe fn push(&mut self, slot: u32, mut entry: W::Entry, memory: Lookup) {
        if self.broken.is_none() {
            entry.set_user_data(u64::from(slot));
            // SAFETY: the caller guarantees that the memory which the entry names stays valid.
            let fits = self.backlog.waiting.is_empty() && unsafe { self.try_push(&entry) };
            if !fits {
                self.backlog.waiting.push_back(entry);
            }
        }
        self.backlog.push(slot, memory);
    }

    /// Puts an entry into the submission queue. Returns whether it fits.
    ///
    /// # Safety
    /// That of [`Ring::push`](crate::ring::Ring::push).
    unsafe fn try_push(&mut self, entry: &W::Entry) -> bool {
        let mut submission = self.raw.submission();
        let free = submission.capacity() - submission.len();
        // SAFETY: the caller guarantees that the memory which the entry names stays valid.
        self.kernel.free_entries(free) > 0 && unsafe { submission.push(entry) }.is_ok()
    }

    /// Puts waiting entries into the submission queue, as many as fit.
    fn push_waiting(&mut self) {
        while let Some(entry) = self.backlog.waiting.pop_front() {
            // SAFETY: the caller of `push` guarantees that the memory which the entry names stays
            // valid until its completion was taken. The table of regions is not changed before the
            // kernel has taken the entry.
            if !unsafe { self.try_push(&entry) } {
                return self.backlog.waiting.push_front(entry);
            }
        }
    }

    /// Submits all entries without waiting.
    pub(crate) fn submit(&mut self, in_use: usize) {
        while !self.is_submitted() && self.broken.is_none() {
            self.enter(0, None, in_use);
        }
    }

    /// Submits all entries, and waits for `want` completions or until `deadline`. `in_use` is the
    /// number of slots in use, for the statistics.
    pub(crate) fn enter(&mut self, want: usize, deadline: Option<Instant>, in_use: usize) {
        self.push_waiting();
        let want = self.prepare_wait(want);
        let is_full = !self.backlog.waiting.is_empty();
        let polled = self.polls_submissions();
        let (left, sleeps) = {
            let mut submission = self.raw.submission();
            submission.sync();
            (submission.len(), polled && submission.need_wakeup())
        };
        // The awaited completions may be those of entries that still wait for space. A call that
        // polls the device for completions ends neither at a deadline nor by a wake, so the caller
        // repeats calls that do not wait.
        let endless =
            self.polls_completions() && (self.wake.is_some() || deadline.is_some() && !polled);
        let must_not_wait = is_full || endless;
        let enter = Enter {
            // A broken ring only waits; its entries stay in the submission queue.
            to_submit: if self.broken.is_some() { 0 } else { saturate(left) },
            want: if must_not_wait { 0 } else { saturate(want) },
            deadline,
        };
        self.is_asleep = sleeps;
        if polled && enter.want == 0 && !sleeps && !is_full {
            return self.count_submitted(in_use);
        }
        let wait_for_space = polled && is_full;
        let Self { kernel, raw, .. } = self;
        let result =
            kernel.enter(enter, |enter| system_call::<W>(raw, enter, sleeps, wait_for_space));
        self.count_submitted(in_use);
        self.handle(result);
    }

    /// Handles the result of the system call: lack of memory is repeated for a while, other
    /// failures break the ring.
    fn handle(&mut self, result: io::Result<usize>) {
        let result = result.map_err(|error| error.raw_os_error());
        self.is_asleep &= result.is_err() && result != Err(Some(libc::ETIME));
        match result {
            Ok(_) => self.failed_enters = 0,
            Err(Some(libc::EINTR | libc::ETIME)) => {}
            Err(Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
                if self.failed_enters < MAX_FAILED_ENTERS =>
            {
                self.failed_enters += 1;
                thread::sleep(K::PAUSE);
            }
            Err(errno) => {
                self.is_asleep = false;
                self.break_for(errno.unwrap_or(libc::EIO));
                thread::sleep(K::PAUSE);
            }
        }
    }

    /// Marks the ring as broken. The entries that the kernel has not taken come back as lost.
    fn break_for(&mut self, errno: i32) {
        // The polling thread takes entries without a call, so none of them can be reported as lost,
        // unless that thread has ended.
        let may_break = !self.polls_submissions() || errno == libc::EOWNERDEAD;
        if may_break && self.broken.replace(errno).is_none() {
            self.backlog.waiting.clear();
            let error = io::Error::from_raw_os_error(errno);
            tracing::error!(device = self.device.name(), %error, "a ring accepts no more ops");
        }
    }

    /// Updates which entries the kernel has taken from the submission queue. The entries left in a
    /// broken ring are lost.
    fn note_taken(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let mut submission = self.raw.submission();
        submission.sync();
        self.backlog.note_taken(submission.len());
    }

    /// Adds the submitted entries to the statistics, whatever the system call returned.
    fn count_submitted(&mut self, in_use: usize) {
        if self.broken.is_some() {
            return;
        }
        self.note_taken();
        self.backlog.count_submitted(self.polls_submissions(), in_use, self.device.stats());
    }

    /// Takes a completion: the slot of its entry, and its contents.
    pub(crate) fn take_completion(&mut self) -> Option<(u32, Outcome)> {
        let completion = loop {
            let completion = self.raw.completion().next()?;
            if completion.user_data() != u64::from(WAKE_SLOT) {
                break completion;
            }
            self.wake.iter_mut().for_each(WakePoll::note_fired);
        };
        let outcome = W::outcome(&completion);
        let result = self.kernel.result(outcome.result);
        // User data that is not a slot finds nothing in the table.
        let slot = u32::try_from(completion.user_data()).unwrap_or(u32::MAX);
        Some((slot, Outcome { result, ..outcome }))
    }

    /// Takes the slot of an entry that a broken ring never submits, with the cause.
    pub(crate) fn take_lost(&mut self) -> Option<(u32, io::Error)> {
        let errno = self.broken?;
        Some((self.backlog.pop()?, io::Error::from_raw_os_error(errno)))
    }
}

impl<W: Width, K: Kernel> Drop for KernelRing<W, K> {
    fn drop(&mut self) {
        if !self.owner.is_this_process() {
            return;
        }
        // The kernel takes the ring down in the background and would hold the device open until
        // then. Only the owner of a local ring can unregister its files. When another thread drops
        // the ring, `RingDevice` unlocks a file, and a block device is held some 40 ms longer
        // (Linux 6.18).
        let _ = self.raw.submitter().unregister_files();
        // SAFETY: this is the drop of the only owner of the ring, so it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.raw) };
    }
}

/// A count as the kernel takes it.
fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

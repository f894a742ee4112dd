//! A ring, what is in flight in it, and the failures of its system calls.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Instant;

use io_uring::cqueue::EntryMarker as _;
use io_uring::squeue::EntryMarker as _;
use raw_block_core::Error;

use crate::device::RingDevice;
use crate::kernel::{Enter, Kernel, Linux, system_call};
use crate::regions::{Lookup, Regions};
use crate::setup;
use crate::slots::Slots;
use crate::unsubmitted::Unsubmitted;
use crate::width::{Outcome, RawRing, Width};

/// How often a system call is repeated that fails for want of memory, before the ring is given up:
/// with the pause between, for ten seconds.
const ENTER_TRIES: u32 = 10_000;

/// A ring that one caller uses at a time, with a `T` for each entry that it has under way.
///
/// What is under way waits in slots, whose index is the user data of its entry. [`push`](Self::push) puts
/// an entry into the submission queue, [`enter`](Self::enter) hands everything pushed to the kernel and
/// waits, [`take_completion`](Self::take_completion) takes completions. A ring is as deep as it has slots, and there are a
/// submission entry and a completion entry for each. The submission queue can nevertheless be full while a slot is free:
/// the kernel's polling thread may post completions before it frees the entries that it took. An entry that does not fit
/// waits in the ring, and [`enter`](Self::enter) puts it into the queue.
///
/// Failures of the system call are dealt with here: `EINTR` is nothing, `EAGAIN`, `EBUSY` and `ENOMEM`
/// are tried again for ten seconds, whatever else happens [breaks](Self::is_broken) the ring. What the
/// kernel took is read from the submission queue, so a failed or partial call neither loses nor repeats
/// an entry.
pub struct Ring<W: Width, T, K: Kernel = Linux> {
    /// Not dropped in a forked child, where something else may have its addresses.
    raw: ManuallyDrop<RawRing<W>>,
    slots: Slots<T>,
    unsubmitted: Unsubmitted<W::Entry>,
    regions: Regions,
    /// Which generation of the device's registered memory `regions` shows.
    generation: u64,
    /// Whether the kernel's polling thread sleeps, and the call that was to wake it failed.
    is_asleep: bool,
    /// Consecutive system calls that failed for want of memory.
    failed_enters: u32,
    /// Why the kernel takes no more entries, once that is so.
    broken: Option<i32>,
    /// The process that has the ring: its memory is not there in a forked child.
    process: u32,
    /// The only thread that may use the ring, if it is one of a single thread.
    owner: Option<ThreadId>,
    kernel: K,
    device: Arc<RingDevice>,
}

impl<W: Width, T, K: Kernel> Ring<W, T, K> {
    /// Makes a ring of up to `depth` slots; fewer where the kernel grants no more. The device is its
    /// registered file number 0.
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe).
    pub fn open(device: Arc<RingDevice>, depth: usize, kernel: K) -> Result<Self, Error> {
        Self::set_up(device, depth, kernel, false)
    }

    /// As [`open`](Self::open), for the calling thread alone: where the kernel has such rings (Linux 6.1),
    /// it takes in completions with less work, and refuses all other threads. See
    /// [`is_local`](Self::is_local).
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe).
    pub fn open_local(device: Arc<RingDevice>, depth: usize, kernel: K) -> Result<Self, Error> {
        Self::set_up(device, depth, kernel, true)
    }

    fn set_up(
        device: Arc<RingDevice>,
        depth: usize,
        kernel: K,
        local: bool,
    ) -> Result<Self, Error> {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX);
        let (raw, granted) = setup::ring::<W>(depth, device.usage(local))?;
        device.register_files::<W>(&raw)?;
        // The kernel rounds up to a power of two, and may clamp; there are at least as many completion
        // entries.
        let capacity = raw.params().sq_entries().min(depth);
        Ok(Self {
            raw: ManuallyDrop::new(raw),
            slots: Slots::new(capacity),
            unsubmitted: Unsubmitted::new(capacity as usize),
            regions: Regions::default(),
            generation: 0,
            is_asleep: false,
            failed_enters: 0,
            broken: None,
            process: std::process::id(),
            owner: granted.is_local().then(|| thread::current().id()),
            kernel,
            device,
        })
    }

    /// How many slots there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// How many slots are taken.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.slots.in_use()
    }

    /// Whether the kernel takes no more entries: what is pushed comes back as [lost](Self::take_lost).
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether every entry was handed to the kernel, or to its polling thread while that was awake. Otherwise
    /// the ring has to be [entered](Self::enter).
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        if self.is_broken() {
            return self.unsubmitted.is_empty();
        }
        self.unsubmitted.is_handed_over() && !self.is_asleep
    }

    /// Whether a thread of the kernel takes the entries.
    fn is_polled(&self) -> bool {
        self.raw.params().is_setup_sqpoll()
    }

    /// Whether the device is asked for completions by whoever waits for them.
    #[must_use]
    pub fn polls_completions(&self) -> bool {
        self.raw.params().is_setup_iopoll()
    }

    /// What the ring shares with the other rings of its backend.
    #[must_use]
    pub fn device(&self) -> &RingDevice {
        &self.device
    }

    /// Keeps `value` in a slot; gives it back when every slot is taken.
    ///
    /// # Errors
    /// `value`, when there is no room.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        self.slots.insert(value)
    }

    /// What is in a slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot)
    }

    /// What is in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot)
    }

    /// Takes what is over out of its slot.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        self.slots.remove(slot)
    }

    /// Brings the registered memory up to date, for entries that are built from now on.
    pub fn refresh_regions(&mut self) {
        let generation = self.device.generation();
        if generation == self.generation {
            return;
        }
        self.note_taken();
        if !self.unsubmitted.is_empty() {
            // Their entries name places in the table that the ring still has. It is changed another time.
            self.regions = Regions::default();
            return;
        }
        self.generation = generation;
        self.regions = self.device.regions_for::<W>(&self.raw);
    }

    /// What registered memory can do for an entry that names these segments.
    #[must_use]
    pub fn region(&self, segments: &[libc::iovec]) -> Lookup {
        match self.regions.find(segments) {
            // Before Linux 6.15 a list of segments cannot name registered memory.
            Lookup::Region(_) if segments.len() > 1 && !self.device.serves_vectored_fixed() => {
                Lookup::Plain
            }
            lookup => lookup,
        }
    }

    /// Puts an entry for what is in `slot` into the submission queue, or lets it wait while that is full. A
    /// slot has one entry at a time.
    ///
    /// # Safety
    /// What the entry names stays valid until its completion was taken by [`take_completion`](Self::take_completion), or it
    /// came back as [lost](Self::take_lost); a region in it is of the current table.
    pub unsafe fn push(&mut self, slot: u32, entry: impl Into<W::Entry>, memory: Lookup) {
        if self.broken.is_none() {
            let mut entry = entry.into();
            entry.set_user_data(u64::from(slot));
            // SAFETY: the caller answers for what the entry names.
            let fits = self.unsubmitted.waiting.is_empty() && unsafe { self.try_push(&entry) };
            if !fits {
                self.unsubmitted.waiting.push_back(entry);
            }
        }
        self.unsubmitted.push(slot, memory);
    }

    /// Hands over what was pushed, without waiting. Makes no system call when nothing was pushed, or when the
    /// kernel's polling thread is awake and finds it.
    pub fn hand_over(&mut self) {
        while !self.is_handed_over() && !self.is_broken() {
            self.enter(0, None);
        }
    }

    /// Puts an entry into the submission queue. Returns whether there was space.
    ///
    /// # Safety
    /// That of [`push`](Self::push).
    unsafe fn try_push(&mut self, entry: &W::Entry) -> bool {
        let mut submission = self.raw.submission();
        let free = submission.capacity() - submission.len();
        // SAFETY: the caller answers for what the entry names.
        self.kernel.free_entries(free) > 0 && unsafe { submission.push(entry) }.is_ok()
    }

    /// Puts the entries that wait into the submission queue, as far as there is space.
    fn push_waiting(&mut self) {
        while let Some(entry) = self.unsubmitted.waiting.pop_front() {
            // SAFETY: the caller of `push` answers for what the entry names until its completion was taken,
            // and the table of regions is not changed before the kernel has taken it.
            if !unsafe { self.try_push(&entry) } {
                return self.unsubmitted.waiting.push_front(entry);
            }
        }
    }

    /// Hands over what was pushed, and waits for `want` completions or until `deadline`: one system call, or
    /// none where the kernel's polling thread is awake and nothing is waited for.
    ///
    /// While entries wait for space in the submission queue, the call waits for that instead.
    pub fn enter(&mut self, want: usize, deadline: Option<Instant>) {
        self.push_waiting();
        let is_full = !self.unsubmitted.waiting.is_empty();
        let polled = self.is_polled();
        let (left, sleeps) = {
            let mut submission = self.raw.submission();
            submission.sync();
            (submission.len(), polled && submission.need_wakeup())
        };
        let enter = Enter {
            // A broken ring only waits, and leaves the submission queue alone.
            to_submit: if self.is_broken() { 0 } else { u32::try_from(left).unwrap_or(u32::MAX) },
            want: if is_full || deadline.is_some() && self.polls_completions() && !polled {
                // The completions may be those of entries that wait. A call that polls for completions does so
                // to the end, so with a deadline there have to be several.
                0
            } else {
                u32::try_from(want).unwrap_or(u32::MAX)
            },
            deadline,
        };
        self.is_asleep = sleeps;
        if polled && enter.want == 0 && !sleeps && !is_full {
            return self.note_handed_over();
        }
        let wait_for_space = polled && is_full;
        let Self { kernel, raw, .. } = self;
        let result =
            kernel.enter(enter, |enter| system_call::<W>(raw, enter, sleeps, wait_for_space));
        self.note_handed_over();
        let result = result.map_err(|error| error.raw_os_error());
        self.is_asleep &= result.is_err() && result != Err(Some(libc::ETIME));
        match result {
            Ok(_) => self.failed_enters = 0,
            Err(Some(libc::EINTR | libc::ETIME)) => {}
            Err(Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
                if self.failed_enters < ENTER_TRIES =>
            {
                self.failed_enters += 1;
                thread::sleep(K::PAUSE);
            }
            Err(errno) => {
                let errno = errno.unwrap_or(libc::EIO);
                self.is_asleep = false;
                // A thread of the kernel that polls takes entries without being asked, so none can be
                // called lost, unless that thread is gone.
                let may_break = !polled || errno == libc::EOWNERDEAD;
                if may_break && self.broken.replace(errno).is_none() {
                    // Their slots come back as lost.
                    self.unsubmitted.waiting.clear();
                    let error = io::Error::from_raw_os_error(errno);
                    tracing::error!(device = self.device.name(), %error, "a ring takes no more ops");
                }
                thread::sleep(K::PAUSE);
            }
        }
    }

    /// Looks how many entries the kernel has taken from the submission queue. Those that a broken ring still
    /// has are lost.
    fn note_taken(&mut self) {
        if self.is_broken() {
            return;
        }
        let mut submission = self.raw.submission();
        submission.sync();
        self.unsubmitted.note_taken(submission.len());
    }

    /// Counts what a system call handed over, whatever it returned.
    fn note_handed_over(&mut self) {
        if self.is_broken() {
            return;
        }
        self.note_taken();
        let (polled, in_use) = (self.is_polled(), self.slots.in_use());
        self.unsubmitted.count_handed_over(polled, in_use, self.device.stats());
    }

    /// Takes a completion: which slot it is for, and what it says.
    pub fn take_completion(&mut self) -> Option<(u32, Outcome)> {
        let completion = self.raw.completion().next()?;
        let outcome = W::outcome(&completion);
        let result = self.kernel.result(outcome.result);
        // Whatever is not a slot's belongs to nobody; `get_mut` finds nothing there.
        let slot = u32::try_from(completion.user_data()).unwrap_or(u32::MAX);
        Some((slot, Outcome { result, ..outcome }))
    }

    /// Takes a slot whose entry the kernel will never see, because the ring is broken, and why it is.
    pub fn take_lost(&mut self) -> Option<(u32, io::Error)> {
        let errno = self.broken?;
        Some((self.unsubmitted.pop()?, io::Error::from_raw_os_error(errno)))
    }

    /// The ring itself, which is readable while there are completions; but only for a ring that is neither
    /// [local](Self::is_local) nor [polls](Self::polls_completions).
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and keeps it open while it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.raw.as_raw_fd()) }
    }

    /// Whether this process made the ring: a forked child has none of its memory.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        std::process::id() == self.process
    }

    /// Whether only the thread that made the ring may use it. Any thread may drop it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether this thread may use the ring.
    #[must_use]
    pub fn is_usable_here(&self) -> bool {
        self.is_ours() && self.owner.is_none_or(|owner| owner == thread::current().id())
    }
}

impl<W: Width, T, K: Kernel> Drop for Ring<W, T, K> {
    /// Whoever has the ring waited for what is in flight; what is left in slots is leaked, because the
    /// kernel still owns its memory.
    fn drop(&mut self) {
        if self.slots.in_use() > 0 {
            let slots = std::mem::replace(&mut self.slots, Slots::new(0));
            if self.is_ours() {
                let left = slots.in_use();
                tracing::error!(device = self.device.name(), left, "ops of a ring are leaked");
                self.device.note_leaked();
            }
            std::mem::forget(slots);
        }
        if !self.is_ours() {
            return;
        }
        // Without this the ring, which the kernel takes down in the background, would hold the device
        // open for some time after it was closed. Of a local ring no other thread can do that: then
        // `RingDevice` unlocks a file, and a block device is held some 40 ms longer (Linux 6.18).
        let _ = self.raw.submitter().unregister_files();
        // SAFETY: the ring is not used any more: this is the drop of its only owner.
        unsafe { ManuallyDrop::drop(&mut self.raw) };
    }
}

impl<W: Width, T, K: Kernel> fmt::Debug for Ring<W, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("device", &self.device.name())
            .field("capacity", &self.capacity())
            .field("in_use", &self.in_use())
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

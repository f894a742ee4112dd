//! A ring, what is in flight in it, and the failures of its system calls.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Instant;

use io_uring::cqueue::EntryMarker as _;
use io_uring::squeue::EntryMarker as _;
use io_uring::types;
use raw_block_core::Error;

use crate::device::RingDevice;
use crate::kernel::{Enter, Kernel, Linux};
use crate::regions::{Lookup, Regions};
use crate::setup;
use crate::slots::Slots;
use crate::width::{Outcome, RawRing, Width};

/// How often a system call is repeated that fails for want of memory, before the ring is given up:
/// with the pause between, for ten seconds.
const ENTER_TRIES: u32 = 10_000;

// Flags of `io_uring_enter(2)`, from `linux/io_uring.h`.
const GETEVENTS: u32 = 1;
const SQ_WAKEUP: u32 = 1 << 1;
const EXT_ARG: u32 = 1 << 3;

/// A ring that one caller uses at a time, with a `T` for each entry that it has under way.
///
/// What is under way waits in slots, whose index is the user data of its entry. [`push`](Self::push) puts
/// an entry into the submission queue, [`enter`](Self::enter) hands everything pushed to the kernel and
/// waits, [`take_completion`](Self::take_completion) takes completions. A ring is as deep as it has slots, and there are a
/// submission entry and a completion entry for each, so neither queue overflows.
///
/// Failures of the system call are dealt with here: `EINTR` is nothing, `EAGAIN`, `EBUSY` and `ENOMEM`
/// are tried again for ten seconds, whatever else happens [breaks](Self::is_broken) the ring. What the
/// kernel took is read from the submission queue, so a failed or partial call neither loses nor repeats
/// an entry.
pub struct Ring<W: Width, T, K: Kernel = Linux> {
    /// Not dropped in a forked child, where something else may have its addresses.
    raw: ManuallyDrop<RawRing<W>>,
    slots: Slots<T>,
    /// Slots whose entries are in the submission queue, oldest first.
    unsubmitted: VecDeque<u32>,
    /// How many of those use registered memory, and how many would but for crossing a border.
    registered: u64,
    crossing: u64,
    regions: Regions,
    /// Which generation of the device's registered memory `regions` shows.
    generation: u64,
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
            unsubmitted: VecDeque::with_capacity(capacity as usize),
            registered: 0,
            crossing: 0,
            regions: Regions::default(),
            generation: 0,
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

    /// Whether every entry was handed to the kernel, or to its thread that looks for them.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.unsubmitted.is_empty() || self.raw.params().is_setup_sqpoll()
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

    /// Puts an entry for what is in `slot` into the submission queue. A slot has one entry at a time.
    ///
    /// # Safety
    /// What the entry names stays valid until its completion was taken by [`take_completion`](Self::take_completion), or it
    /// came back as [lost](Self::take_lost); a region in it is of the current table.
    pub unsafe fn push(&mut self, slot: u32, entry: impl Into<W::Entry>, memory: Lookup) {
        if self.broken.is_none() {
            let mut entry = entry.into();
            entry.set_user_data(u64::from(slot));
            // SAFETY: the caller answers for what the entry names.
            let pushed = unsafe { self.raw.submission().push(&entry) };
            debug_assert!(pushed.is_ok(), "the submission queue has an entry for every slot");
        }
        self.registered += u64::from(matches!(memory, Lookup::Region(_)));
        self.crossing += u64::from(matches!(memory, Lookup::Crossing));
        self.unsubmitted.push_back(slot);
    }

    /// One system call: hands over what was pushed, and waits for `want` completions or until `deadline`.
    pub fn enter(&mut self, want: usize, deadline: Option<Instant>) {
        let polled = self.raw.params().is_setup_sqpoll();
        let (left, sleeps) = {
            let mut submission = self.raw.submission();
            submission.sync();
            (submission.len(), polled && submission.need_wakeup())
        };
        let enter = Enter {
            // A broken ring only waits, and leaves the submission queue alone.
            to_submit: if self.is_broken() { 0 } else { u32::try_from(left).unwrap_or(u32::MAX) },
            // Who polls for completions does so to the end; with a deadline it has to be call by call.
            want: if self.polls_completions() && deadline.is_some() {
                0
            } else {
                u32::try_from(want).unwrap_or(u32::MAX)
            },
            deadline,
        };
        let Self { kernel, raw, .. } = self;
        let result = kernel.enter(enter, |enter| system_call::<W>(raw, enter, sleeps));
        self.note_submitted();
        match result.map_err(|error| error.raw_os_error()) {
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
                // A thread of the kernel that polls takes entries without being asked, so none can be
                // called lost, unless that thread is gone.
                let may_break = !polled || errno == libc::EOWNERDEAD;
                if may_break && self.broken.replace(errno).is_none() {
                    let error = io::Error::from_raw_os_error(errno);
                    tracing::error!(device = self.device.name(), %error, "a ring takes no more ops");
                }
                thread::sleep(K::PAUSE);
            }
        }
    }

    /// Takes from `unsubmitted` what the kernel took from the submission queue, whatever the system
    /// call returned.
    fn note_submitted(&mut self) {
        let left = {
            let mut submission = self.raw.submission();
            submission.sync();
            submission.len()
        };
        let taken = self.unsubmitted.len().saturating_sub(left);
        if taken > 0 && self.broken.is_none() {
            self.unsubmitted.drain(..taken);
            let registered = std::mem::take(&mut self.registered);
            let crossing = std::mem::take(&mut self.crossing);
            let under_way = self.slots.in_use() - self.unsubmitted.len();
            self.device.stats().update(|stats| {
                stats.submissions += 1;
                stats.commands += taken as u64;
                stats.under_way_at_submissions += under_way as u64;
                stats.registered_ops += registered;
                stats.crossing_ops += crossing;
            });
        }
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
        Some((self.unsubmitted.pop_front()?, io::Error::from_raw_os_error(errno)))
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

fn system_call<W: Width>(raw: &RawRing<W>, enter: Enter, wake: bool) -> io::Result<usize> {
    let flags = GETEVENTS | if wake { SQ_WAKEUP } else { 0 };
    let Enter { to_submit, want, deadline } = enter;
    let Some(deadline) = deadline else {
        // SAFETY: the entries in the submission queue are valid (the contract of `push`), and there is
        // no argument to point to.
        return unsafe { raw.submitter().enter::<libc::sigset_t>(to_submit, want, flags, None) };
    };
    let left = types::Timespec::from(deadline.saturating_duration_since(Instant::now()));
    let arguments = types::SubmitArgs::new().timespec(&left);
    // SAFETY: as above; the argument is what `EXT_ARG` says it is, and outlives the call.
    unsafe { raw.submitter().enter(to_submit, want, flags | EXT_ARG, Some(&arguments)) }
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

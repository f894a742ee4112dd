//! Rings for authors of backends: entries with a value for each, in either width.
//!
//! Users of files and block devices do not need this module; they use
//! [`UringBackend`](crate::UringBackend). A backend for other commands, such as NVMe passthrough,
//! builds on it:
//!
//! - [`RingDevice`]: the state that all rings of a backend share, such as the open files and the
//!   registered memory.
//! - [`Ring`]: one ring, and a value of the backend for each of its entries.
//! - [`Width`]: the size of the entries, [`Standard`] or [`Big`].
//! - [`Kernel`]: the system calls of a ring; [`Linux`], except in tests.
//! - [`InFlightTable`]: the table used by [`Ring::insert`], for backends whose ops take several
//!   entries.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use io_uring::{opcode, types};
//! use raw_block_uring::ring::{Linux, Lookup, Ring, RingDevice, Standard};
//!
//! let file = tempfile::tempfile()?;
//! let device = Arc::new(RingDevice::new(file, "example", None)?);
//! let mut ring = Ring::<Standard, &str>::open(device, 8, Linux)?;
//!
//! let slot = ring.insert("a flush").expect("a new ring has a free slot");
//! let flush = opcode::Fsync::new(types::Fixed(0)).build();
//! // SAFETY: the entry names no memory.
//! unsafe { ring.push(slot, flush, Lookup::Plain) };
//! ring.enter(1, None);
//!
//! let (slot, outcome) = ring.take_completion().expect("the call waited for it");
//! assert_eq!((ring.remove(slot), outcome.result), (Some("a flush"), 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use raw_block_core::Error;

mod backlog;
mod buffer_table;
mod device;
pub(crate) mod flags;
mod in_flight_table;
mod kernel;
mod kernel_ring;
mod owner;
mod regions;
pub(crate) mod setup;
mod wake;
mod width;

pub use device::RingDevice;
pub use in_flight_table::InFlightTable;
pub use kernel::{Enter, Kernel, Linux};
pub use regions::Lookup;
pub use width::{Big, Outcome, Standard, Width};

use kernel_ring::KernelRing;
use regions::RegisteredRegions;

/// A ring that one caller uses at a time, with a value of type `T` for each entry in flight.
///
/// [`insert`](Self::insert) stores a value in a slot, whose index is the user data of the entry.
/// [`push`](Self::push) puts the entry into the submission queue, [`enter`](Self::enter) submits
/// all entries and waits, [`take_completion`](Self::take_completion) takes a completion.
///
/// There are a submission entry and a completion entry for each slot. The submission queue can
/// nevertheless be full while a slot is free, because the kernel's polling thread may post a
/// completion before it frees the submission entry. An entry that does not fit waits in the ring,
/// and [`enter`](Self::enter) puts it into the queue.
///
/// The ring handles failures of the system call. It ignores `EINTR`, repeats `EAGAIN`, `EBUSY` and
/// `ENOMEM` for ten seconds, and [breaks](Self::is_broken) on any other error. A failed or partial
/// call neither loses nor repeats an entry.
///
/// See the [module](self) for an example.
pub struct Ring<W: Width, T, K: Kernel = Linux> {
    in_flight: InFlightTable<T>,
    regions: RegisteredRegions,
    /// The generation of the device's registered memory that `regions` shows.
    generation: u64,
    kernel_ring: KernelRing<W, K>,
}

impl<W: Width, T, K: Kernel> Ring<W, T, K> {
    /// Makes a ring of up to `depth` slots; fewer where the kernel grants no more. The device is
    /// registered file 0.
    ///
    /// # Errors
    /// Those of [`probe`](crate::probe).
    pub fn open(device: Arc<RingDevice>, depth: usize, kernel: K) -> Result<Self, Error> {
        Self::set_up(device, depth, kernel, false)
    }

    /// As [`open`](Self::open), for the calling thread only. From Linux 6.1 on, such a ring reaps
    /// completions with less work and refuses all other threads. See [`is_local`](Self::is_local).
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
        let (kernel_ring, capacity) = KernelRing::open(device, depth, kernel, local)?;
        Ok(Self {
            in_flight: InFlightTable::new(capacity),
            regions: RegisteredRegions::default(),
            generation: 0,
            kernel_ring,
        })
    }

    /// The number of slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.in_flight.capacity()
    }

    /// The number of slots in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_flight.in_use()
    }

    /// Whether the kernel takes no more entries. Pushed entries come back as
    /// [lost](Self::take_lost).
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.kernel_ring.broken().is_some()
    }

    /// Whether every entry was submitted to the kernel, or to its polling thread while that was
    /// awake. Otherwise the ring has to be [entered](Self::enter).
    #[must_use]
    pub fn is_submitted(&self) -> bool {
        self.kernel_ring.is_submitted()
    }

    /// Whether the thread that waits for completions polls the device for them.
    #[must_use]
    pub fn polls_completions(&self) -> bool {
        self.kernel_ring.polls_completions()
    }

    /// The state that the ring shares with the other rings of its backend.
    #[must_use]
    pub fn device(&self) -> &RingDevice {
        self.kernel_ring.device()
    }

    /// Stores `value` in a slot and returns the slot.
    ///
    /// # Errors
    /// Returns `value` if every slot is in use.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        self.in_flight.insert(value)
    }

    /// The value in a slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.in_flight.get(slot)
    }

    /// The value in a slot, mutable.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.in_flight.get_mut(slot)
    }

    /// Removes a value whose entry has completed, and frees its slot.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        self.in_flight.remove(slot)
    }

    /// Brings the registered memory up to date, for entries that are built from now on.
    pub fn refresh_regions(&mut self) {
        let generation = self.device().generation();
        if generation == self.generation {
            return;
        }
        if !self.kernel_ring.is_all_taken() {
            // Entries in the submission queue name places in the current table. A later call
            // replaces it.
            self.regions = RegisteredRegions::default();
            return;
        }
        self.generation = generation;
        self.regions = self.kernel_ring.register_regions();
    }

    /// Finds the registered memory for an entry that names these segments.
    #[must_use]
    pub fn region(&self, segments: &[libc::iovec]) -> Lookup {
        match self.regions.find(segments) {
            // Before Linux 6.15 a list of segments cannot name registered memory.
            Lookup::Region(_) if segments.len() > 1 && !self.device().serves_vectored_fixed() => {
                Lookup::Plain
            }
            lookup => lookup,
        }
    }

    /// Puts the entry for the value in `slot` into the submission queue, or lets it wait while that
    /// is full. A slot has one entry at a time.
    ///
    /// # Safety
    /// The memory that the entry names stays valid until its completion was taken by
    /// [`take_completion`](Self::take_completion), or it came back as [lost](Self::take_lost). A
    /// region in it was [looked up](Self::region) after the last [refresh](Self::refresh_regions).
    pub unsafe fn push(&mut self, slot: u32, entry: impl Into<W::Entry>, memory: Lookup) {
        // SAFETY: the contract is the same.
        unsafe { self.kernel_ring.push(slot, entry.into(), memory) };
    }

    /// Submits all pushed entries without waiting. Makes no system call if there are none, or if
    /// the kernel's polling thread is awake and finds them.
    pub fn submit(&mut self) {
        self.kernel_ring.submit(self.in_flight.in_use());
    }

    /// Submits all pushed entries, and waits for `want` completions or until `deadline`. Makes one
    /// system call, or none where the kernel's polling thread is awake and `want` is 0.
    ///
    /// While entries wait for space in the submission queue, the call waits for that instead.
    pub fn enter(&mut self, want: usize, deadline: Option<Instant>) {
        self.kernel_ring.enter(want, deadline, self.in_flight.in_use());
    }

    /// A handle with which any thread ends a wait in [`enter`](Self::enter), also before it begins.
    ///
    /// From the first call on, a wait ends with the first completion, however many are wanted. A
    /// ring that [polls for completions](Self::polls_completions) does not wait any more. See
    /// [`take_wake`](Self::take_wake).
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`](raw_block_core::ErrorKind::OutOfResources) when the process
    /// has no descriptor left.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use raw_block_uring::ring::{Linux, Ring, RingDevice, Standard};
    ///
    /// let device = Arc::new(RingDevice::new(tempfile::tempfile()?, "example", None)?);
    /// let mut ring = Ring::<Standard, ()>::open(device, 8, Linux)?;
    /// let waker = ring.waker()?;
    /// std::thread::spawn(move || waker.wake());
    ///
    /// // Nothing is in flight, so only the wake ends the wait.
    /// while !ring.take_wake() {
    ///     ring.enter(1, None);
    ///     assert_eq!(ring.take_completion(), None);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn waker(&mut self) -> Result<Waker, Error> {
        self.kernel_ring.waker()
    }

    /// Takes a wake: returns whether a [waker](Self::waker) was used since the last call.
    ///
    /// Call it before each wait. Otherwise a wake that came before the wait may not end it.
    pub fn take_wake(&mut self) -> bool {
        self.kernel_ring.take_wake()
    }

    /// Sleeps until `end`, or until a [waker](Self::waker) is used. Does not enter the ring.
    pub fn sleep_until(&self, end: Instant) {
        self.kernel_ring.sleep_until(end);
    }

    /// Takes a completion: the slot of its entry, and its contents.
    pub fn take_completion(&mut self) -> Option<(u32, Outcome)> {
        self.kernel_ring.take_completion()
    }

    /// Takes the slot of an entry that a broken ring never submits, with the cause.
    pub fn take_lost(&mut self) -> Option<(u32, io::Error)> {
        self.kernel_ring.take_lost()
    }

    /// The descriptor of the ring, which is readable while there are completions; only for a ring
    /// that neither is [local](Self::is_local) nor
    /// [polls for completions](Self::polls_completions).
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.kernel_ring.event_fd()
    }

    /// Whether only the thread that made the ring may use it. Any thread may drop it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.kernel_ring.owner().is_local()
    }

    /// Whether the calling thread may use the ring. A forked child may not.
    #[must_use]
    pub fn is_usable_here(&self) -> bool {
        self.kernel_ring.owner().is_this_thread()
    }
}

impl<W: Width, T, K: Kernel> Drop for Ring<W, T, K> {
    /// Leaks the values that are still in slots, because the kernel still uses their memory. The
    /// caller waits for all entries before it drops the ring.
    fn drop(&mut self) {
        let left = self.in_flight.in_use();
        if left == 0 {
            return;
        }
        if self.kernel_ring.owner().is_this_process() {
            let device = self.device();
            tracing::error!(device = device.name(), left, "a dropped ring leaks its ops in flight");
            device.note_leaked();
        }
        std::mem::forget(std::mem::replace(&mut self.in_flight, InFlightTable::new(0)));
    }
}

impl<W: Width, T, K: Kernel> fmt::Debug for Ring<W, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("device", &self.device().name())
            .field("capacity", &self.capacity())
            .field("in_use", &self.in_use())
            .field("broken", &self.kernel_ring.broken())
            .finish_non_exhaustive()
    }
}

//! Everything that calls and threads share.

pub(crate) mod health;
pub(crate) mod index;
pub(crate) mod pins;
pub(crate) mod policy;
pub(crate) mod space;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use health::{Concern, HealthMonitor};
use index::{Index, Located};
use pins::PinId;
use policy::Policy;
use raw_block_core::{Dispatcher, ErrorKind, waiting};
use space::{
    Allocated, Allocation, Batch, HeaderState, LookupTime, OpenedSegment, Outcome, Readers, Shape,
    Shortage, Slot, Space,
};

use super::checkpoint::containers::Containers;
use super::checkpoint::throttle::Throttle;
use super::format::Layout;
use super::mutant::Mutant;
use super::options::OpenOptions;
use super::reclaim::signal::Signal;
use super::stats::Counters;
use crate::Error;
use crate::error::Doing;

/// Everything that the calls of a store and its background thread share.
///
/// Locks are taken in this order: `reclaiming`, `checkpointing`, that of the space, those of the index. A reclaim takes
/// checkpoints; a checkpoint never reclaims. A thread that waits for space holds none of the first two, and has
/// submitted everything that it allocated.
pub(crate) struct StoreState {
    pub(crate) dispatcher: Dispatcher,
    /// Where everything lies.
    pub(crate) layout: Layout,
    pub(crate) shape: Shape,
    pub(crate) options: OpenOptions,
    pub(crate) index: Index,
    pub(crate) readers: Arc<Readers>,
    pub(crate) policy: Policy,
    pub(crate) counters: Counters,
    pub(crate) health: HealthMonitor,
    refuses_writes: AtomicBool,
    /// The error of the write because of which changes are refused.
    refused: Mutex<Option<raw_block_core::Error>>,
    /// The pauses of checkpoints.
    pub(crate) throttle: Throttle,
    /// Wakes the background worker.
    pub(crate) worker: Signal,
    /// Held while a checkpoint is taken.
    pub(crate) checkpointing: Mutex<Containers>,
    /// Held while a reclaim runs.
    pub(crate) reclaiming: Mutex<()>,
    space: Mutex<Waited>,
    /// Signalled when something changed that a thread waits for.
    changed: Condvar,
    /// The process that opened the store: a forked child has neither its threads nor its device.
    process: u32,
}

struct Waited {
    space: Space,
    /// How many threads wait for `changed`.
    waiting: usize,
}

/// What a [`StoreState`] is made of.
pub(crate) struct StateParts {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) layout: Layout,
    pub(crate) options: OpenOptions,
    pub(crate) index: Index,
    pub(crate) space: Space,
    pub(crate) containers: Containers,
}

impl StoreState {
    pub(crate) fn new(parts: StateParts) -> Self {
        let StateParts { dispatcher, layout, options, index, space, containers } = parts;
        let policy = Policy::new(&options, space.shape());
        policy.set_clock(space.clock());
        Self {
            dispatcher,
            layout,
            shape: *space.shape(),
            index,
            readers: Arc::clone(space.readers()),
            policy,
            options,
            counters: Counters::default(),
            health: HealthMonitor::default(),
            refuses_writes: AtomicBool::new(false),
            refused: Mutex::new(None),
            throttle: Throttle::default(),
            worker: Signal::default(),
            checkpointing: Mutex::new(containers),
            reclaiming: Mutex::new(()),
            space: Mutex::new(Waited { space, waiting: 0 }),
            changed: Condvar::new(),
            process: std::process::id(),
        }
    }

    /// Whether this is a forked child of the process that opened the store.
    pub(crate) fn is_inherited(&self) -> bool {
        std::process::id() != self.process
    }

    /// Refuses calls in a forked child, before they take a lock that a thread of the parent held when it forked.
    ///
    /// # Errors
    /// [`Error::Device`] of kind [`ErrorKind::Forked`].
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if !self.is_inherited() {
            return Ok(());
        }
        let rule =
            "this process is a forked child of the one that opened the store: open it here again";
        let error = raw_block_core::Error::new(ErrorKind::Forked, "use a store", rule);
        Err(error.on(self.device_name())).doing("use the store")
    }

    /// Path or name of the device.
    pub(crate) fn device_name(&self) -> &str {
        self.dispatcher.backend().device()
    }

    /// Makes durable what has completed.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.check_process()?;
        if Mutant::FlushDoesNothing.is_on() {
            return Ok(());
        }
        self.dispatcher.flush().doing("flush the store")
    }

    /// Uses the space under its lock, and wakes the threads that wait for it to change.
    pub(crate) fn with_space<T>(&self, act: impl FnOnce(&mut Space) -> T) -> T {
        let mut guard = self.lock();
        let before = guard.space.version();
        let result = act(&mut guard.space);
        if guard.space.version() != before {
            self.wake(&guard);
        }
        result
    }

    /// Waits until `done` returns something. It is asked again whenever the space changed.
    pub(crate) fn wait_for<T>(&self, mut done: impl FnMut(&mut Space) -> Option<T>) -> T {
        let mut guard = self.lock();
        loop {
            if let Some(result) = done(&mut guard.space) {
                return result;
            }
            guard.waiting += 1;
            guard = waiting::wait(&self.changed, &self.space, guard);
            guard.waiting -= 1;
        }
    }

    /// Allocates space for what is left of a batch, as [`Space::allocate`], with the memory for it in the index.
    ///
    /// # Errors
    /// Something is left of the batch. What was allocated is in `out`.
    pub(crate) fn allocate(&self, batch: &mut Batch, out: &mut Allocation) -> Result<(), NoSpace> {
        let mut guard = self.lock();
        let first = out.slots.len();
        let allocated = guard.space.allocate(batch, out);
        self.policy.set_clock(guard.space.clock());
        self.extend_index(&mut guard.space, first, out)?;
        Ok(allocated?)
    }

    /// As [`Space::allocate_tombstones`], with the memory for it in the index.
    ///
    /// # Errors
    /// There is no space or no memory.
    pub(crate) fn allocate_tombstones(&self, out: &mut Allocation) -> Result<(), NoSpace> {
        let mut guard = self.lock();
        let first = out.slots.len();
        guard.space.allocate_tombstones(out)?;
        self.extend_index(&mut guard.space, first, out)
    }

    /// Makes the entries exist in the index of the slots from `first` on, for a caller that holds the lock of the space.
    /// If there is no memory for them, they fail and are taken out.
    ///
    /// # Errors
    /// [`NoSpace::Memory`].
    pub(crate) fn extend_index(
        &self,
        space: &mut Space,
        first: usize,
        out: &mut Allocation,
    ) -> Result<(), NoSpace> {
        let extend = |slot: &Slot| {
            let entries = slot.first_number.saturating_add(slot.objects.len() as u32);
            self.index.extend(slot.segment, entries)
        };
        let Some(error) = out.slots[first..].iter().find_map(|slot| extend(slot).err()) else {
            return Ok(());
        };
        for slot in out.slots.drain(first..).collect::<Vec<_>>() {
            if let Some(opened) = slot.opened {
                space.header_written(&opened, false);
            }
            let objects = out.objects.get(slot.objects.clone()).unwrap_or(&[]);
            space.published(&slot, objects, objects.iter().map(|_| Outcome::Failed), &[]);
            space.give_up(&slot, slot.objects.len() as u32);
        }
        Err(NoSpace::Memory(error))
    }

    /// What a waiting delete was granted, as [`Space::take_granted`], with the memory for it in the index.
    ///
    /// # Errors
    /// There is no memory.
    pub(crate) fn take_granted(&self, delete: u64) -> Result<Option<Allocation>, NoSpace> {
        let mut guard = self.lock();
        let Some(mut granted) = guard.space.take_granted(delete) else { return Ok(None) };
        self.extend_index(&mut guard.space, 0, &mut granted)?;
        Ok(Some(granted))
    }

    /// Reports what became of a slot, as [`Space::published`], and frees segments that waited for it.
    pub(crate) fn published(
        &self,
        slot: &Slot,
        objects: &[Allocated],
        outcomes: impl IntoIterator<Item = Outcome>,
        dropped: &[Located],
    ) {
        let may_free = self.with_space(|space| {
            space.published(slot, objects, outcomes, dropped);
            space.may_have_drained()
        });
        if may_free {
            self.free_drained();
        }
    }

    /// Ends the last attempt to write objects of a slot, as [`Space::give_up`].
    pub(crate) fn give_up(&self, failed: &Slot, objects: u32) {
        let may_free = self.with_space(|space| {
            space.give_up(failed, objects);
            space.may_have_drained()
        });
        if may_free {
            self.free_drained();
        }
    }

    /// Reports how the write of a segment's header ended.
    pub(crate) fn header_written(&self, opened: &OpenedSegment, written: bool) {
        self.with_space(|space| space.header_written(opened, written));
    }

    /// Waits until the header of a slot's segment is written, or not. Returns whether it is: only then the objects of
    /// the slot may be published.
    pub(crate) fn wait_for_header(&self, slot: &Slot) -> bool {
        if slot.header == HeaderState::Written || Mutant::PutBeforeSegmentHeader.is_on() {
            return true;
        }
        let ended = |space: &mut Space| {
            Some(space.header_of(slot)).filter(|of| *of != HeaderState::Writing)
        };
        let header = self.wait_for(ended);
        header == HeaderState::Written || Mutant::PutAlthoughSegmentHeaderFailed.is_on()
    }

    /// Counts a write error of a slot against its segment, as [`Space::confirm_error`].
    pub(crate) fn confirm_error(&self, slot: &Slot) {
        if self.with_space(|space| space.confirm_error(slot)) {
            self.note_quarantine(slot.segment);
        }
    }

    /// Puts the segment of a slot into quarantine: the device may still carry out a write to it.
    pub(crate) fn quarantine(&self, slot: &Slot) {
        if self.with_space(|space| space.quarantine(slot)) {
            self.note_quarantine(slot.segment);
        }
    }

    fn note_quarantine(&self, segment: u32) {
        let reason = format!("segment {segment} is in quarantine: writes to it failed");
        self.health.raise(Concern::Quarantine, self.device_name(), reason);
    }

    /// Begins to read a segment in which the index showed an object after `since`; `None` if the object has to be looked
    /// up again.
    pub(crate) fn read_segment(&self, segment: u32, since: LookupTime) -> Option<ReadGuard<'_>> {
        match self.readers.enter(segment, since) {
            Ok(generation) => Some(ReadGuard { state: self, segment, generation }),
            Err(was_last) => {
                if was_last {
                    self.free_drained();
                }
                None
            }
        }
    }

    /// Begins to read a pinned version: where it is, and a reader of that segment.
    pub(crate) fn read_pinned(&self, pin: PinId) -> Option<(Located, ReadGuard<'_>)> {
        let guard = self.lock();
        let (object, generation) = guard.space.pinned(pin)?;
        let segment = object.place.segment;
        // The pin keeps the segment from being closed, as long as the lock keeps the object from being moved.
        self.readers.enter_kept(segment);
        Some((object, ReadGuard { state: self, segment, generation }))
    }

    /// Takes a pin back.
    pub(crate) fn unpin(&self, pin: PinId) {
        if self.with_space(|space| space.unpin(pin)) {
            self.free_drained();
        }
    }

    /// Frees the draining segments that nothing keeps any more.
    pub(crate) fn free_drained(&self) {
        let drained = self.with_space(Space::take_drained);
        for segment in drained {
            self.index.release(segment);
            self.with_space(|space| space.freed(segment));
        }
    }

    /// Refuses changes while the device refuses writes.
    ///
    /// # Errors
    /// [`Error::Device`] with the error of the write that was refused.
    pub(crate) fn check_writes(&self, doing: &'static str) -> Result<(), Error> {
        if !self.refuses_writes.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone().map_or(Ok(()), Err).doing(doing)
    }

    /// The device refuses writes: three attempts in a row failed in different segments. Changes are refused until
    /// [`writes_accepted`](Self::writes_accepted).
    pub(crate) fn writes_refused(&self, error: &raw_block_core::Error) {
        self.health.raise(Concern::Writes, self.device_name(), error.to_string());
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        self.refuses_writes.store(true, Ordering::Relaxed);
    }

    /// A checkpoint was written: the device accepts writes.
    pub(crate) fn writes_accepted(&self) {
        if self.refuses_writes.swap(false, Ordering::Relaxed) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.health.clear(Concern::Writes, self.device_name());
        }
    }

    fn wake(&self, guard: &MutexGuard<'_, Waited>) {
        if guard.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waited> {
        waiting::lock(&self.space)
    }
}

/// Why nothing was allocated.
#[derive(Clone, Debug)]
pub(crate) enum NoSpace {
    /// There is no space on the device.
    Space(Shortage),
    /// There is no memory for the index.
    Memory(Error),
}

impl From<Shortage> for NoSpace {
    fn from(shortage: Shortage) -> Self {
        Self::Space(shortage)
    }
}

/// A reader of a segment, which is not freed until this is dropped.
pub(crate) struct ReadGuard<'a> {
    state: &'a StoreState,
    pub(crate) segment: u32,
    pub(crate) generation: u64,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        if self.state.readers.leave(self.segment) && !self.state.is_inherited() {
            self.state.free_drained();
        }
    }
}

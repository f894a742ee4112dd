//! The state of an open store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use raw_block_core::{Dispatcher, ErrorClass, ErrorKind, process, sync};

use super::backoff::CallBackoff;
use super::calls::{CallGuard, Calls};
use super::containers::Containers;
use super::delete_queue::DeleteQueue;
use super::failing::{FailingWrites, Suspect};
use super::index::Index;
use super::policy::Policy;
use super::scratch::ScratchPool;
use super::signal::Signal;
use super::space::{Readers, Shape, Space};
use super::throttle::Throttle;
use crate::Error;
use crate::error::Context;
use crate::format::{Layout, SuperblockState};
use crate::io::superblocks::Superblocks;
use crate::mutant::Mutant;
use crate::options::OpenOptions;
use crate::stats::Counters;
use crate::stats::health::{Concern, HealthMonitor};

/// How long a caller that needs space waits for gets that keep released segments from being free,
/// before others are reclaimed in their place. A get takes that long only if the device hangs, or
/// the system is overloaded.
const GETS_MAY_TAKE: Duration = Duration::from_millis(500);

/// The state that the calls of a store and its background thread share.
///
/// Locks are acquired in this order: `reclaiming`, `checkpointing`, `superblocks`, that of the
/// space, those of the index. A reclaim takes checkpoints; a checkpoint never reclaims. A thread
/// that waits for space holds neither of the first two, and has submitted everything that it
/// allocated.
pub(crate) struct StoreState {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) calls: Calls,
    /// The layout of the device.
    pub(crate) layout: Layout,
    pub(crate) shape: Shape,
    pub(crate) options: OpenOptions,
    pub(crate) index: Index,
    pub(crate) readers: Arc<Readers>,
    pub(crate) policy: Policy,
    pub(crate) counters: Counters,
    pub(crate) deletes: DeleteQueue,
    /// Memory for headers, kept from one call to the next.
    pub(crate) scratch: ScratchPool,
    pub(crate) health: HealthMonitor,
    failing: FailingWrites,
    /// Whether it was logged that long objects waste space.
    pub(crate) warned_of_waste: AtomicBool,
    refuses_writes: AtomicBool,
    /// The error of the write after which changes are refused.
    refused: Mutex<Option<raw_block_core::Error>>,
    /// The error of a write with an unknown outcome, whose segment is in quarantine.
    pub(super) unknown: OnceLock<raw_block_core::Error>,
    /// Whether the store was closed, so that the next opening knows the segments in quarantine.
    pub(crate) is_closed: AtomicBool,
    /// The pauses of checkpoints.
    pub(crate) throttle: Throttle,
    /// Wakes the background worker.
    pub(crate) worker: Signal,
    /// Which calls try to take a due checkpoint, if there is no worker.
    pub(crate) checkpoint_backoff: CallBackoff,
    /// Which calls look whether the device accepts writes again, if there is no worker.
    pub(crate) refused_backoff: CallBackoff,
    /// Held while a checkpoint is taken.
    pub(crate) checkpointing: Mutex<Containers>,
    /// Held while the superblock is written.
    superblocks: Mutex<Superblocks>,
    /// Held while a reclaim runs.
    pub(crate) reclaiming: Mutex<()>,
    space: Mutex<WatchedSpace>,
    /// Signalled when a thread may stop waiting.
    changed: Condvar,
    /// The process that opened the store: a forked child has neither its threads nor its device.
    process: u32,
}

pub(super) struct WatchedSpace {
    pub(super) space: Space,
    /// How many threads wait for `changed`.
    waiting: usize,
}

/// The parts of a [`StoreState`].
pub(crate) struct StateParts {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) layout: Layout,
    pub(crate) options: OpenOptions,
    pub(crate) index: Index,
    pub(crate) space: Space,
    pub(crate) superblocks: Superblocks,
    pub(crate) containers: Containers,
}

impl StoreState {
    pub(crate) fn new(parts: StateParts) -> Self {
        let StateParts { dispatcher, layout, options, index, mut space, superblocks, containers } =
            parts;
        space.set_kept_percent(options.kept_percent.min(OpenOptions::MAX_KEPT_PERCENT));
        let policy = Policy::new(&options, space.shape());
        policy.set_clock(space.clock());
        Self {
            dispatcher,
            calls: Calls::default(),
            layout,
            shape: *space.shape(),
            index,
            readers: Arc::clone(space.readers()),
            policy,
            options,
            counters: Counters::default(),
            deletes: DeleteQueue::default(),
            scratch: ScratchPool::default(),
            health: HealthMonitor::default(),
            failing: FailingWrites::default(),
            warned_of_waste: AtomicBool::new(false),
            refuses_writes: AtomicBool::new(false),
            refused: Mutex::new(None),
            unknown: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            throttle: Throttle::default(),
            worker: Signal::default(),
            checkpoint_backoff: CallBackoff::default(),
            refused_backoff: CallBackoff::default(),
            checkpointing: Mutex::new(containers),
            superblocks: Mutex::new(superblocks),
            reclaiming: Mutex::new(()),
            space: Mutex::new(WatchedSpace { space, waiting: 0 }),
            changed: Condvar::new(),
            process: process::id(),
        }
    }

    /// Whether this is a forked child of the process that opened the store.
    pub(crate) fn is_inherited(&self) -> bool {
        process::id() != self.process
    }

    /// Refuses calls in a forked child, before they take a lock that a thread of the parent held
    /// when it forked.
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
        Err(error.on(self.device_name())).context("use the store")
    }

    /// Begins a call of the store's user, which closing waits for.
    ///
    /// # Errors
    /// Those of [`check_process`](Self::check_process); [`Error::Closed`].
    pub(crate) fn begin_call(&self) -> Result<CallGuard<'_>, Error> {
        self.check_process()?;
        self.calls.begin().ok_or_else(|| Error::Closed { device: self.device_name().to_owned() })
    }

    /// Path or name of the device.
    pub(crate) fn device_name(&self) -> &str {
        self.dispatcher.backend().name()
    }

    /// Makes durable what has completed.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let _call = self.begin_call()?;
        if Mutant::FlushDoesNothing.is_on() {
            return Ok(());
        }
        self.dispatcher.flush().context("flush the store")
    }

    /// Durably marks the store as open. From then on a recovery uses no checkpoint that is older
    /// than the committed one.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn mark_open(&self) -> Result<(), Error> {
        let mut superblocks = sync::lock(&self.superblocks);
        let oldest = self.with_space(|space| space.committed()).number;
        superblocks.mark(&self.dispatcher, SuperblockState::Open { oldest })
    }

    /// Keeps recoveries from using a checkpoint that is older than the committed one: it would
    /// bring objects back that only the committed one shows to be gone.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn forbid_older_checkpoints(&self) -> Result<(), Error> {
        if Mutant::OlderCheckpointsUsable.is_on() { Ok(()) } else { self.mark_open() }
    }

    /// Durably marks the store as closed, to be opened from the committed checkpoint.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(crate) fn mark_clean(&self) -> Result<(), Error> {
        let mut superblocks = sync::lock(&self.superblocks);
        let checkpoint = self.with_space(|space| space.committed()).number;
        superblocks.mark(&self.dispatcher, SuperblockState::Clean { checkpoint })
    }

    /// Uses the space under its lock, and wakes the threads that wait for it to change.
    pub(crate) fn with_space<T>(&self, act: impl FnOnce(&mut Space) -> T) -> T {
        self.act(&mut self.lock(), act)
    }

    /// Uses the space for a caller that has its lock, and wakes the threads that wait for it to
    /// change.
    fn act<T>(
        &self,
        guard: &mut MutexGuard<'_, WatchedSpace>,
        act: impl FnOnce(&mut Space) -> T,
    ) -> T {
        let before = guard.space.version();
        let result = act(&mut guard.space);
        if guard.space.version() != before {
            self.wake(guard);
        }
        result
    }

    /// Waits until `done` returns `Some`. Calls it again whenever the space has changed.
    pub(crate) fn wait_for<T>(&self, mut done: impl FnMut(&mut Space) -> Option<T>) -> T {
        let mut guard = self.lock();
        loop {
            if let Some(result) = self.act(&mut guard, &mut done) {
                return result;
            }
            guard.waiting += 1;
            guard = sync::wait(&self.changed, &self.space, guard);
            guard.waiting -= 1;
        }
    }

    /// The same for a caller that waits for space. Segments that gets keep from being free for
    /// longer than [`GETS_MAY_TAKE`] do not count as about to be free any more: others are
    /// reclaimed in their place.
    pub(crate) fn wait_for_space<T>(&self, mut done: impl FnMut(&mut Space) -> Option<T>) -> T {
        let mut waits_until = None;
        let mut guard = self.lock();
        loop {
            if let Some(result) = self.act(&mut guard, &mut done) {
                return result;
            }
            let until = *waits_until.get_or_insert_with(|| Instant::now() + GETS_MAY_TAKE);
            let at_most = until.saturating_duration_since(Instant::now());
            guard.waiting += 1;
            let (now, timed_out) = sync::wait_timeout(&self.changed, &self.space, guard, at_most);
            guard = now;
            guard.waiting -= 1;
            if timed_out {
                waits_until = None;
                if guard.space.stop_waiting_for_gets() {
                    self.wake(&guard);
                }
            }
        }
    }

    /// Refuses changes while the device refuses writes.
    ///
    /// # Errors
    /// [`Error::Device`] with the error of the write that was refused.
    pub(crate) fn check_writes(&self, context: &'static str) -> Result<(), Error> {
        if !self.refuses_writes.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone().map_or(Ok(()), Err).context(context)
    }

    /// A write to this generation of a segment failed. If those to three segments failed in a row,
    /// whichever calls they were of, the device refuses writes.
    pub(crate) fn write_failed(
        &self,
        segment: u32,
        generation: u64,
        error: &raw_block_core::Error,
    ) {
        let is_media_error = error.kind().is_io() && error.class() == ErrorClass::Failed;
        let failed = self.failing.failed(Suspect { segment, generation }, is_media_error);
        if failed && !self.refuses_writes() {
            self.writes_refused(error);
        }
    }

    /// A write to a segment succeeded. Media errors before it were those of their segments.
    pub(crate) fn write_succeeded(&self) {
        let Some(suspects) = self.failing.succeeded() else { return };
        self.refused_backoff.succeeded();
        for Suspect { segment, generation } in suspects {
            if self.with_space(|space| space.confirm_error(segment, generation)) {
                self.note_quarantine(segment);
            }
        }
    }

    /// How many times in a row a checkpoint succeeded and the next write to a segment failed.
    pub(crate) fn failed_probations(&self) -> u32 {
        self.failing.failed_probations()
    }

    /// The device refuses writes. Changes are refused until
    /// [`writes_accepted`](Self::writes_accepted).
    pub(crate) fn writes_refused(&self, error: &raw_block_core::Error) {
        self.health.raise(Concern::Writes, self.device_name(), error.to_string());
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        self.refuses_writes.store(true, Ordering::Relaxed);
        // It tries to take a checkpoint until that succeeds.
        self.worker.wake();
    }

    /// Stops writes on the backend if the store ends without being closed and the outcome of a
    /// write is unknown: the next opening may not know the segments in quarantine, to which the
    /// device may still carry out that write.
    pub(crate) fn stop_writes_after_unknown(&self) {
        if let Some(error) = self.unknown.get()
            && !self.is_closed.load(Ordering::Relaxed)
        {
            self.dispatcher.backend().flush_state().stop_writes(error);
        }
    }

    /// Whether changes are refused because the device refuses writes.
    pub(crate) fn refuses_writes(&self) -> bool {
        self.refuses_writes.load(Ordering::Relaxed)
    }

    /// A checkpoint was written: the device accepts writes.
    pub(crate) fn writes_accepted(&self) {
        if self.refuses_writes.swap(false, Ordering::Relaxed) {
            self.failing.on_probation();
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.health.clear(Concern::Writes, self.device_name());
        }
    }

    fn wake(&self, guard: &MutexGuard<'_, WatchedSpace>) {
        if guard.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Whether a thread waits for a change of the space.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.lock().waiting > 0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, WatchedSpace> {
        sync::lock(&self.space)
    }
}

impl Drop for StoreState {
    fn drop(&mut self) {
        if !self.is_inherited() {
            self.stop_writes_after_unknown();
        }
    }
}
